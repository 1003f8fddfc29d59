"""Soft masks (SMCP, arXiv:2211.02206, section 3): weights live on behind the mask, and what was removed may come back.

Weights that *read* a removed channel are zeros in the forward pass. The backward pass goes through as if they were not
(a straight-through estimator): the channel is still written, so its readers have gradients, the optimiser updates their
dense weights, and a later plan may take the channel back. Weights behind the mask are drawn to zero a little in every
update (SR-STE, arXiv:2102.04010), so that none comes back as a stale giant.

A group whose channels are read by anything but weights (a norm over channels, a product of two activations) is masked
hard, as its removed channels would change what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from halp_trt.models.masks.hard import freeze_removed_batchnorms, mask_axes
from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.models.saliency.members import Member, members_of
from halp_trt.specs import ChannelGraph, ParameterAxis, PruningPlan

__all__ = ["SOFT", "SoftMask", "soft_groups"]

_DENSE = "dense"
"""Key of an optimiser's state under which a reader's dense weights lie: checkpoints keep it, slimming cuts it along."""
_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class SoftMask:
    """The masking from which channels return.

    Attributes:
        decay: share of a masked weight, times the learning rate, that every update takes off.
        returns_channels: True.
        saliency: the score by which channels are chosen by default: others are 0 for channels that are not read.
    """

    decay: float = 2e-4
    returns_channels: bool = True
    saliency: str = "reading-taylor"

    def apply(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Masks the readers of removed channels; those of channels that came back have their weights again.

        Without an optimiser nothing is trained: removed channels are masked hard when the last plan is cut.
        """
        if optimizer is None:
            return
        self.after_backward(module, plan, optimizer)
        freeze_removed_batchnorms(module, plan)
        self._hide(module, plan, optimizer)

    def after_backward(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Puts the dense weights back, so that they are what is scored and updated."""
        if optimizer is None:
            return
        with torch.no_grad():
            for parameter in module.parameters():
                if _DENSE in optimizer.state.get(parameter, {}):
                    parameter.copy_(optimizer.state[parameter].pop(_DENSE))

    def after_update(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Draws the weights behind the mask towards zero, and masks them again."""
        if optimizer is None:
            return
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        with torch.no_grad():
            for member, dead in _dead_readers(module, plan):
                rate = rates.get(id(member.parameter), 0.0)
                kept = member.parameter.index_select(member.axis.axis, dead) * (1 - rate * self.decay)
                member.parameter.index_copy_(member.axis.axis, dead, kept)
        self._hide(module, plan, optimizer)

    def _hide(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer) -> None:
        """Sets what reads removed channels to zero, and keeps its dense weights in the optimiser's state."""
        soft = soft_groups(module, plan.graph)
        with torch.no_grad():
            for member, dead in _dead_readers(module, plan):
                state = optimizer.state[member.parameter]
                if _DENSE not in state:
                    state[_DENSE] = member.parameter.detach().clone()
                member.parameter.index_fill_(member.axis.axis, dead, 0)
        mask_axes(module, plan, [axis for axis in plan.graph.parameters if not _groups_of(axis) <= soft], optimizer)


def soft_groups(module: nn.Module, graph: ChannelGraph) -> frozenset[str]:
    """The groups all of whose channels are read by weights alone, perhaps through layers that mix no channels."""
    members = members_of(module, graph)
    read = {name for member in members if member.reads for name in _groups_of(member.axis)}
    mixed = {name for member in members if member.mixes for name in _groups_of(member.axis)}
    named = {member.axis.parameter for member in members if member.reads}
    for layer in graph.layers:
        is_weighted = layer.spec.operator in _PRODUCTS and any(name.startswith(f"{layer.name}.") for name in named)
        if not (layer.is_one_sided or is_weighted):
            mixed |= {name for name, _ in layer.in_groups}
    return frozenset(read - mixed)


def _dead_readers(module: nn.Module, plan: PruningPlan) -> Iterator[tuple[Member, torch.Tensor]]:
    """Every weight that reads softly masked channels, with the positions that read removed ones."""
    soft, tensors = soft_groups(module, plan.graph), named_tensors(module)
    for member in members_of(module, plan.graph):
        if member.reads and _groups_of(member.axis) <= soft:
            dead = dead_positions(tensors, member.axis, plan)
            if len(dead):
                yield member, dead


def _groups_of(axis: ParameterAxis) -> frozenset[str]:
    return frozenset(run.group for run in axis.runs)


SOFT = SoftMask()
"""The row ``soft`` of ``MASKS``."""
