"""How much each channel matters: HALP's Taylor score from gradients, and weight magnitude where there is no data.

For a channel with batch-norm scale γ and shift β, the first-order change of the loss when it is removed is
``γ ∂L/∂γ + β ∂L/∂β`` (arXiv 2210.06659, section 3.1; arXiv 1906.10771). Its absolute value is averaged over the
minibatches between two pruning steps. Channels of coupled layers are one: their signed terms are summed before the
absolute value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from halp_trt.errors import GraphMismatchError, NonFiniteError, UsageError
from halp_trt.specs import ChannelGraph, ParameterAxis, Saliency

__all__ = ["Reduction", "SaliencySums", "accumulate", "finish", "magnitude"]

Reduction = Literal["abs_of_sum", "sum_of_abs"]
_Array = npt.NDArray[np.float64]
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED, nn.Linear)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaliencySums:
    """What has been gathered since the last pruning step.

    Attributes:
        totals: per prunable group, the sum over minibatches of each channel's absolute term.
        num_batches: minibatches that were added.
        num_skipped: minibatches left out because a gradient was not finite.
    """

    totals: Mapping[str, _Array] = field(default_factory=dict)
    num_batches: int = 0
    num_skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """One parameter axis that follows groups, with what stands behind its name."""

    axis: ParameterAxis
    parameter: nn.Parameter
    rank: int  # 0: a normalisation's scale or shift, 1: output side of a convolution or linear layer, 2: anything else


def accumulate(
    sums: SaliencySums, module: nn.Module, graph: ChannelGraph, *, reduction: Reduction = "abs_of_sum"
) -> SaliencySums:
    """Adds the Taylor terms of the gradients that ``module`` holds now; call it after every backward pass.

    A group is scored by the normalisations on its channels (``γ ∂γ + β ∂β``); where it has none, by the weights and
    biases of the convolutions and linear layers that write it (``Σ w ∂w``); where it has neither, by whatever
    parameters follow it. Differs from HALP's released code, which falls back to the weights as soon as one coupled
    layer lacks batch norm, and leaves the biases out.

    Args:
        sums: from the previous minibatch, or a fresh ``SaliencySums()``.
        module: the dense (possibly masked) network.
        graph: its channel graph.
        reduction: ``abs_of_sum`` (the paper's) adds the signed terms of coupled layers first, so that they may cancel;
            ``sum_of_abs`` adds their absolute values.

    Raises:
        GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        UsageError: a group's parameters have no gradients.
    """
    members = _members(module, graph)
    terms = {
        group: _batch_terms(group, chosen, graph.group(group).num_channels, reduction)
        for group, chosen in _chosen(members, graph).items()
    }
    if not all(bool(np.isfinite(term).all()) for term in terms.values()):
        return SaliencySums(totals=sums.totals, num_batches=sums.num_batches, num_skipped=sums.num_skipped + 1)
    totals = {group: sums.totals[group] + term if sums.totals else term for group, term in terms.items()}
    return SaliencySums(totals=MappingProxyType(totals), num_batches=sums.num_batches + 1, num_skipped=sums.num_skipped)


def finish(sums: SaliencySums) -> Saliency:
    """The mean over the minibatches that were added.

    Raises:
        NonFiniteError: all minibatches were skipped.
        UsageError: nothing was gathered.
    """
    if sums.num_batches == 0:
        if sums.num_skipped:
            raise NonFiniteError(
                f"the gradients of all {sums.num_skipped} minibatches hold NaN or infinity; lower the learning rate"
            )
        raise UsageError("no minibatch was scored; call accumulate after at least one backward pass")
    return Saliency(scores={group: tuple((total / sums.num_batches).tolist()) for group, total in sums.totals.items()})


def magnitude(module: nn.Module, graph: ChannelGraph) -> Saliency:
    """Each channel's share of its layers' weight norms: no data needed.

    For every convolution and linear layer that writes the group, the L2 norm of a channel's weights is divided by the
    sum over the layer's channels, so that each layer sums to 1 whatever its scale and width; the shares of coupled
    layers add up, as their latencies do. A group that no such layer writes is scored by its other parameters likewise.

    Raises:
        GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        NonFiniteError: a weight is NaN or infinite.
    """
    scores = {}
    for group, members in _chosen(_members(module, graph), graph, order=(1, 0, 2)).items():
        total = np.zeros(graph.group(group).num_channels)
        for member in members:
            if member.parameter.ndim == 1 and member.rank == 1:
                continue  # biases
            squares = member.parameter.detach().double().pow(2)
            norms = np.sqrt(_per_channel(_along(squares, member.axis.axis), member.axis, group, len(total)))
            if not np.isfinite(norms).all():
                raise NonFiniteError(f"parameter {member.axis.parameter!r} holds NaN or infinity; load sound weights")
            total += norms / norms.sum() if norms.sum() > 0 else norms
        scores[group] = tuple(total.tolist())
    return Saliency(scores=scores)


def _members(module: nn.Module, graph: ChannelGraph) -> list[_Member]:
    """The parameters that follow groups; one known by several names, or of a module used twice, counts once."""
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
        members.append(_Member(axis=axis, parameter=tensor, rank=_rank(owner, name, axis.axis)))
    return members


def _rank(owner: nn.Module, name: str, axis: int) -> int:
    if isinstance(owner, _NORMS):
        return 0
    if isinstance(owner, _WEIGHTED) and (name == "bias" or axis == _out_axis(owner)):
        return 1
    return 2


def _out_axis(owner: nn.Module) -> int:
    """Axis of the weight along which its outputs lie; depthwise transposed convolutions have one for both sides."""
    if isinstance(owner, _TRANSPOSED):
        return 0 if owner.groups > 1 and owner.groups == owner.in_channels else 1
    return 0


def _chosen(
    members: list[_Member], graph: ChannelGraph, order: tuple[int, ...] = (0, 1, 2)
) -> dict[str, list[_Member]]:
    """For each prunable group its members of the first kind in ``order`` that it has."""
    chosen = {}
    for group in graph.prunable_groups:
        following = [m for m in members if any(run.group == group.name for run in m.axis.runs)]
        ranked = next(filter(None, ([m for m in following if m.rank == rank] for rank in order)), None)
        if ranked is None:
            raise GraphMismatchError(
                f"no parameter follows channel group {group.name!r}; freeze it, nothing can score it"
            )
        chosen[group.name] = ranked
    return chosen


def _batch_terms(group: str, members: list[_Member], num_channels: int, reduction: Reduction) -> _Array:
    """``|Σ p ∂p|`` of each channel for one minibatch."""
    layers: dict[str, _Array] = {}
    for member in members:
        gradient = member.parameter.grad
        if gradient is None:
            continue
        products = member.parameter.detach().double() * gradient.double()
        term = _per_channel(_along(products, member.axis.axis), member.axis, group, num_channels)
        layer = member.axis.parameter.rpartition(".")[0]
        layers[layer] = layers.get(layer, np.zeros(num_channels)) + term
    if not layers:
        raise UsageError(
            f"the parameters of channel group {group!r} have no gradients; call backward first, or freeze the group if "
            f"they are not trained"
        )
    if reduction == "abs_of_sum":
        return np.asarray(np.abs(sum(layers.values())), dtype=np.float64)
    return np.asarray(sum(np.abs(term) for term in layers.values()), dtype=np.float64)


def _along(values: torch.Tensor, axis: int) -> _Array:
    """Sums over all axes but one."""
    others = [i for i in range(values.ndim) if i != axis]
    reduced = values.sum(dim=others) if others else values
    return np.asarray(reduced.cpu().numpy(), dtype=np.float64)


def _per_channel(values: _Array, axis: ParameterAxis, group: str, num_channels: int) -> _Array:
    """Sums the positions along a parameter axis that belong to each channel of a group."""
    result = np.zeros(num_channels)
    for first, stretch in _stretches(values, axis, group):
        result[first : first + len(stretch)] += stretch
    return result


def _stretches(values: _Array, axis: ParameterAxis, group: str) -> Iterator[tuple[int, _Array]]:
    offset = 0
    for run in axis.runs:
        length = run.count * run.repeat
        if run.group == group:
            yield run.first, values[offset : offset + length].reshape(run.count, run.repeat).sum(axis=1)
        offset += length
