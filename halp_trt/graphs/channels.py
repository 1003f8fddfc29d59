"""From labels to channel groups: coupled channels that stand in the same axes form one group."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from halp_trt.graphs.labels import Ids, Labels
from halp_trt.specs import ChannelGroup, ParameterAxis, Stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """The group and index of every labelled channel.

    Attributes:
        groups: the channel groups, in the order in which the network writes them.
        position: ``(group index, channel index)`` by the channel's root.
    """

    groups: tuple[ChannelGroup, ...]
    position: Mapping[int, tuple[int, int]]


def form_groups(labels: Labels, written: Sequence[tuple[str, str, int]]) -> Channels:
    """The channel groups: channels with the same couplings, axes and multiplicity form one.

    Args:
        labels: labels of the dense graph.
        written: ``(layer name, tensor, axis)`` of every axis written by a layer, in execution order; a group is named
            after its first writer.
    """
    where: dict[int, Counter[int]] = defaultdict(Counter)
    names: dict[int, str] = {}
    order: list[int] = []
    for index, (_, _, ids) in enumerate(labels.labelled()):
        for root in labels.roots(ids).tolist():
            where[root][index] += 1
    for name, tensor, axis in written:
        carried = labels.get(tensor, axis)
        for root in labels.roots([] if carried is None else carried).tolist():
            if root not in names:
                names[root] = name
                order.append(root)
    order += [root for root in where if root not in names]
    kinds: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for root in order:
        kinds[(names.get(root, "input"), labels.frozen_reason(root), frozenset(where[root].items()))].append(root)
    groups: list[ChannelGroup] = []
    position: dict[int, tuple[int, int]] = {}
    uses = Counter[str]()
    for kind, roots in kinds.items():
        name, reason = str(kind[0]), str(kind[1])
        uses[name] += 1
        unique = name if uses[name] == 1 else f"{name}#{uses[name]}"
        for channel, root in enumerate(roots):
            position[root] = (len(groups), channel)
        groups.append(ChannelGroup(name=unique, num_channels=len(roots), prunable=not reason, reason=reason))
    return Channels(groups=tuple(groups), position=position)


def runs(labels: Labels, channels: Channels, ids: Ids) -> tuple[Stretch, ...]:
    """An axis as runs: stretches of consecutive channels of one group, each repeated equally often."""
    places = [channels.position[root] for root in labels.roots(ids).tolist()]
    repeated: list[tuple[int, int, int]] = []
    for group, channel in places:
        if repeated and repeated[-1][:2] == (group, channel):
            repeated[-1] = (group, channel, repeated[-1][2] + 1)
        else:
            repeated.append((group, channel, 1))
    stretches: list[Stretch] = []
    for group, channel, times in repeated:
        name = channels.groups[group].name
        last = stretches[-1] if stretches else None
        if last and last.group == name and last.repeat == times and last.first + last.count == channel:
            stretches[-1] = Stretch(group=name, first=last.first, count=last.count + 1, repeat=times)
        else:
            stretches.append(Stretch(group=name, first=channel, count=1, repeat=times))
    return tuple(stretches)


def multiplicities(labels: Labels, channels: Channels, ids: Ids | None) -> tuple[tuple[str, int], ...]:
    """``(group, multiplicity)`` pairs of an axis: how often each of a group's channels stands in it."""
    if ids is None:
        return ()
    counts = Counter(channels.position[root][0] for root in labels.roots(ids).tolist())
    return tuple(
        (channels.groups[group].name, total // channels.groups[group].num_channels) for group, total in counts.items()
    )


def parameter_axes(labels: Labels, channels: Channels, masked: Set[tuple[str, int]]) -> tuple[ParameterAxis, ...]:
    """The axes of parameters and buffers that follow a group.

    Args:
        labels: labels of the dense graph.
        channels: its groups.
        masked: names and axes of parameters that are zero at removed channels.
    """
    return tuple(
        ParameterAxis(parameter=tensor, axis=axis, runs=runs(labels, channels, ids))
        for tensor, axis, ids in labels.labelled()
        if (tensor, axis) in masked
    )


def alive(labels: Labels, axes: Sequence[ParameterAxis], kept: Mapping[str, Sequence[int]]) -> dict[int, bool]:
    """For every root carried by a parameter, True if a plan keeps it; roots not listed stay."""
    state: dict[int, bool] = {}
    sets = {group: set(channels) for group, channels in kept.items()}
    for axis in axes:
        ids = labels.get(axis.parameter, axis.axis)
        if ids is None:
            continue
        expected = [
            (run.group, channel) for run in axis.runs for channel in range(run.first, run.first + run.count)
            for _ in range(run.repeat)
        ]  # fmt: skip
        for root, (group, channel) in zip(labels.roots(ids).tolist(), expected, strict=True):
            state[root] = channel in sets[group]
    return state


def mask_of(labels: Labels, state: Mapping[int, bool], ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The mask of an axis: True for positions that stay."""
    return np.array([state.get(root, True) for root in labels.roots(ids).tolist()], dtype=np.bool_)
