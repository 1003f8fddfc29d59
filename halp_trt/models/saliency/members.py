"""The parameters that follow channel groups, and sums over the positions of each channel in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import parametrize

from halp_trt.errors import GraphMismatchError
from halp_trt.specs import ChannelGraph, ParameterAxis

__all__ = ["Member", "members_of", "scored_members", "sum_along", "sum_per_channel", "widest"]

Floats = npt.NDArray[np.float64]
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
"""Normalisations, whose scale and shift score best."""
_OVER_CHANNELS = (nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
"""Normalisations whose statistics are over several channels."""
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Transposed convolutions."""
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear)
"""Convolutions and linear layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One parameter axis that follows groups, with its parameter.

    Attributes:
        axis: the axis.
        parameter: the parameter of its name.
        rank: 0 for a normalisation's scale or shift, 1 for the output side of a convolution or linear layer or of what
            it is computed from, 2 for anything else.
        reads: True if it is the input side of a convolution's or linear layer's weight that reads every channel.
        mixes: True if it belongs to a normalisation over channels, whose outputs depend on all of them.
    """

    axis: ParameterAxis
    parameter: nn.Parameter
    rank: int
    reads: bool = False
    mixes: bool = False


def members_of(module: nn.Module, graph: ChannelGraph) -> list[Member]:
    """The parameters that follow groups; a shared one counts once.

    Raises:
        GraphMismatchError: the graph was made for another network.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    seen: set[tuple[int, int]] = set()
    members = []
    for axis in graph.parameters:
        owner_name, _, name = axis.parameter.rpartition(".")
        owner = modules.get(owner_name)
        tensor = getattr(owner, name, None)
        if owner is None or not isinstance(tensor, torch.Tensor):
            raise GraphMismatchError(f"the network has no parameter {axis.parameter!r}; trace this network again")
        if not isinstance(tensor, nn.Parameter) or (id(tensor), axis.axis) in seen:
            continue
        length = sum(run.count * run.repeat for run in axis.runs)
        if axis.axis >= tensor.ndim or tensor.shape[axis.axis] != length:
            raise GraphMismatchError(
                f"parameter {axis.parameter!r} has shape {tuple(tensor.shape)}, but the graph expects {length} "
                f"positions along axis {axis.axis}; use the network that was traced, not a slimmed one"
            )
        seen.add((id(tensor), axis.axis))
        members.append(
            Member(
                axis=axis,
                parameter=tensor,
                rank=_rank(owner, name, axis.axis),
                reads=_reads(owner, name, axis.axis),
                mixes=isinstance(owner, _OVER_CHANNELS),
            )
        )
    return members


def _rank(owner: nn.Module, name: str, axis: int) -> int:
    if isinstance(owner, _NORMS):
        return 0
    if isinstance(owner, _WEIGHTED) and (name == "bias" or axis == _out_axis(owner)):
        return 1
    if isinstance(owner, parametrize.ParametrizationList) and axis == 0:
        return 1
    return 2


def _reads(owner: nn.Module, name: str, axis: int) -> bool:
    is_whole = isinstance(owner, _WEIGHTED) and getattr(owner, "groups", 1) == 1
    return is_whole and name == "weight" and axis == 1 - _out_axis(owner)


def _out_axis(owner: nn.Module) -> int:
    """The output axis of a layer's weight; depthwise transposed convolutions have one axis for both sides."""
    if isinstance(owner, _TRANSPOSED):
        return 0 if owner.groups > 1 and owner.groups == owner.in_channels else 1
    return 0


def scored_members(
    members: list[Member], graph: ChannelGraph, order: tuple[int, ...] = (0, 1, 2), *, is_partial: bool = False
) -> dict[str, list[Member]]:
    """The members to score every prunable group by: those of the first rank in ``order`` that it has.

    Raises:
        GraphMismatchError: no parameter follows a group, unless ``is_partial`` lets such groups be left out.
    """
    chosen = {}
    for group in graph.prunable_groups:
        following = [m for m in members if any(run.group == group.name for run in m.axis.runs)]
        ranked = next(filter(None, ([m for m in following if m.rank == rank] for rank in order)), None)
        if ranked is None and is_partial:
            continue
        if ranked is None:
            raise GraphMismatchError(
                f"no parameter follows channel group {group.name!r}; freeze it, nothing can score it"
            )
        chosen[group.name] = ranked
    return chosen


def widest(values: torch.Tensor) -> torch.Tensor:
    """The values in float64, or in float32 on a device that has no wider format (MPS)."""
    try:
        return values.double()
    except (TypeError, RuntimeError):
        return values.float()


def sum_along(values: torch.Tensor, axis: int) -> Floats:
    """The sums over all axes but one."""
    others = [i for i in range(values.ndim) if i != axis]
    reduced = values.sum(dim=others) if others else values
    return np.asarray(reduced.cpu().numpy(), dtype=np.float64)


def sum_per_channel(values: Floats, axis: ParameterAxis, group: str, num_channels: int) -> Floats:
    """The sums over all positions of each channel of a group along a parameter axis."""
    result = np.zeros(num_channels)
    for first, stretch in _stretches(values, axis, group):
        result[first : first + len(stretch)] += stretch
    return result


def _stretches(values: Floats, axis: ParameterAxis, group: str) -> Iterator[tuple[int, Floats]]:
    """Yields ``(first channel, sums)`` for every stretch of consecutive channels of a group along an axis."""
    offset = 0
    for run in axis.runs:
        length = run.count * run.repeat
        if run.group == group:
            yield run.first, values[offset : offset + length].reshape(run.count, run.repeat).sum(axis=1)
        offset += length
