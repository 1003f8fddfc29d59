"""Hard masks: pruned channels are exact zeros while every tensor keeps its size, as in HALP between steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.specs import ParameterAxis, PruningPlan

__all__ = ["HARD", "HardMask", "freeze_removed_batchnorms", "mask", "mask_axes"]


def mask(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Sets all parameters and buffers of pruned channels to zero, in place; calling it again changes nothing.

    Call it after every optimiser step. Both the writers and the readers of a channel are masked, so the outputs equal
    those of the slimmed network whatever lies between (even an activation with f(0) != 0). Momentum and other
    optimiser state of the same shape is masked along. Differs from HALP (arXiv:2210.06659), whose momentum goes on
    changing dead weights.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    mask_axes(module, plan, plan.graph.parameters, optimizer)


def mask_axes(
    module: nn.Module,
    plan: PruningPlan,
    axes: Iterable[ParameterAxis],
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Sets the pruned channels to zero along some axes of parameters and buffers; otherwise as :func:`mask`."""
    tensors = named_tensors(module)
    with torch.no_grad():
        for axis in axes:
            dead = dead_positions(tensors, axis, plan)
            if not len(dead):
                continue
            tensor = tensors[axis.parameter]
            tensor.index_fill_(axis.axis, dead, 0)
            for state in _state_of(optimizer, tensor):
                state.index_fill_(axis.axis, dead.to(state.device), 0)


def freeze_removed_batchnorms(module: nn.Module, plan: PruningPlan) -> None:
    """Sets the running mean behind every removed block to the block's bias, in place, so eval mode equals training.

    The last layer of a removed block has no input left and writes its bias ``b``, a constant. In training mode the
    batch norm behind it subtracts the batch mean, ``b``, and outputs its shift; in eval mode it would subtract the
    running mean from before the removal. Batch norms shared with other layers are left alone. Calling it again changes
    nothing.
    """
    tensors, removed = named_tensors(module), set(plan.removed_blocks)
    nodes = [node for layer in plan.graph.layers for node in layer.nodes]
    with torch.no_grad():
        for layer in plan.graph.layers:
            for node in layer.nodes[1:2] if layer.name in removed else ():
                mean = tensors.get(f"{node}.running_mean")
                if mean is not None and not any(other.startswith(f"{node}:") for other in nodes):
                    bias = tensors.get(f"{layer.name}.bias")
                    mean.copy_(bias) if bias is not None else mean.zero_()


@dataclass(frozen=True, slots=True)
class HardMask:
    """The masking that keeps removed channels at exact zeros."""

    returns_channels: bool = False

    def apply(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Masks removed channels, and sets the running means behind removed blocks."""
        mask(module, plan, optimizer)
        freeze_removed_batchnorms(module, plan)

    def after_backward(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Does nothing: the next mask undoes whatever gradients do to dead weights."""

    def after_update(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Masks removed channels again, since the update may have changed them."""
        mask(module, plan, optimizer)


HARD = HardMask()
"""The row ``hard`` of ``MASKS``."""


def _state_of(optimizer: torch.optim.Optimizer | None, tensor: torch.Tensor) -> list[torch.Tensor]:
    """The optimiser's state tensors of a parameter that have its shape."""
    if optimizer is None or tensor not in optimizer.state:
        return []
    return [s for s in optimizer.state[tensor].values() if isinstance(s, torch.Tensor) and s.shape == tensor.shape]
