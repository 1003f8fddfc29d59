"""Masks: pruned channels become exact zeros while every tensor keeps its size, as HALP trains between steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.specs import PruningPlan

__all__ = ["HARD", "HardMask", "mask", "settle"]


def mask(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Sets everything that belongs to pruned channels to zero, in place; calling it again changes nothing.

    Call it after every optimiser step. Both sides are masked, what writes a channel and what reads it, so that the
    network computes what the slimmed one computes whatever lies between (an activation with f(0) != 0 too). Momentum
    and other optimiser state of the same shape is masked along, unlike HALP (arXiv:2210.06659), whose momentum keeps
    pulling at dead weights.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    tensors = named_tensors(module)
    with torch.no_grad():
        for axis in plan.graph.parameters:
            dead = dead_positions(tensors, axis, plan)
            if not len(dead):
                continue
            tensor = tensors[axis.parameter]
            tensor.index_fill_(axis.axis, dead, 0)
            for state in _state_of(optimizer, tensor):
                state.index_fill_(axis.axis, dead, 0)


def settle(module: nn.Module, plan: PruningPlan) -> None:
    """Makes a removed block hand on what it handed on in the mean, in place; calling it again changes nothing.

    Its last layer has nothing left to read and writes its bias. The batch norm behind it would go on subtracting the
    mean that it saw before; with its bias for a mean it hands on its shift, as it does while training, and the network
    answers in evaluation what it learns with. Batch norms that stand behind other layers, too, are left alone.
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
    """Removed channels are exact zeros and stay so."""

    returns_channels: bool = False

    def apply(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Masks, and settles what stands behind removed blocks."""
        mask(module, plan, optimizer)
        settle(module, plan)

    def after_backward(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Does nothing: dead weights may have gradients, which the next mask takes back."""

    def after_update(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Masks what the update moved."""
        mask(module, plan, optimizer)


HARD = HardMask()


def _state_of(optimizer: torch.optim.Optimizer | None, tensor: torch.Tensor) -> list[torch.Tensor]:
    if optimizer is None or tensor not in optimizer.state:
        return []
    return [s for s in optimizer.state[tensor].values() if isinstance(s, torch.Tensor) and s.shape == tensor.shape]
