"""The part of a network that can be pruned, and the reasons why the rest cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from halp_trt.specs import ChannelGraph, ChannelGroup

__all__ = ["Fence", "Prunability", "prunability", "why_nothing"]

_ALONE = "it is the only channel of its group"
_MOST_NAMES = 2
"""Number of layers that a reason names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Channels that cannot be pruned for one kind of reason.

    Attributes:
        reason: the reason, as the first of the groups has it.
        num_channels: number of channels.
        layers: the first layer that writes each of the groups.
    """

    reason: str
    num_channels: int
    layers: tuple[str, ...]

    def __str__(self) -> str:
        named, more = ", ".join(self.layers[:_MOST_NAMES]), len(self.layers) - _MOST_NAMES
        return f"{self.num_channels:,} of {named}{f' and {more} more' if more > 0 else ''} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunability:
    """The share of a network that can be pruned.

    Attributes:
        num_channels: channels that layers write, coupled ones counted once; the network's own inputs do not count.
        num_prunable: those among them that may be pruned.
        dense_us: the table's sum over all layers at full width; None without a table.
        prunable_us: the part of it in layers that read or write a prunable channel, so that their time depends on the
            plan. A layer counts whole, also where other channels of it are fixed: no plan saves all of it.
        fences: the reasons why the other channels stay, those of most channels first.
    """

    num_channels: int
    num_prunable: int
    dense_us: float | None
    prunable_us: float | None
    fences: tuple[Fence, ...]

    @property
    def latency_fraction(self) -> float | None:
        """The share of the dense latency in layers that pruning makes narrower; None without a table."""
        if self.dense_us is None or self.prunable_us is None:
            return None
        return self.prunable_us / self.dense_us if self.dense_us else 0.0


def prunability(graph: ChannelGraph, latencies_us: Mapping[str, float] | None = None) -> Prunability:
    """The channels and the share of the latency that can be pruned in a network.

    Args:
        graph: the network.
        latencies_us: microseconds of every layer at full width, as ``halp_trt.latency.layer_latencies_us`` gives them;
            None for no table.
    """
    written = {name for layer in graph.layers for name in _names(layer.out_groups) - _names(layer.in_groups)}
    groups = [group for group in graph.groups if group.name in written]
    free = {group.name for group in groups if _reason(group) == ""}
    dense_us = prunable_us = None
    if latencies_us is not None:
        dense_us = math.fsum(latencies_us[layer.name] for layer in graph.layers)
        prunable_us = math.fsum(
            latencies_us[layer.name]
            for layer in graph.layers
            if free & (_names(layer.in_groups) | _names(layer.out_groups))
        )
    return Prunability(
        num_channels=sum(group.num_channels for group in groups),
        num_prunable=sum(group.num_channels for group in groups if group.name in free),
        dense_us=dense_us,
        prunable_us=prunable_us,
        fences=_fences([group for group in groups if group.name not in free], graph),
    )


def why_nothing(found: Prunability) -> str:
    """The sentence for a network of which nothing can be pruned, with the biggest reasons."""
    reasons = "; ".join(map(str, found.fences[:3])) or "no layer writes any"
    return f"none of the network's {found.num_channels:,} channels can be pruned: {reasons}"


def _fences(groups: Iterable[ChannelGroup], graph: ChannelGraph) -> tuple[Fence, ...]:
    nodes = {name for layer in graph.layers for name in (layer.name, *layer.nodes)}
    kinds: dict[str, list[ChannelGroup]] = {}
    for group in groups:
        kinds.setdefault(_kind(_reason(group), nodes), []).append(group)
    fences = [
        Fence(
            reason=_reason(max(alike, key=lambda group: group.num_channels)),
            num_channels=sum(group.num_channels for group in alike),
            layers=tuple(dict.fromkeys(group.name.partition("#")[0] for group in alike)),
        )
        for alike in kinds.values()
    ]
    return tuple(sorted(fences, key=lambda fence: -fence.num_channels))


def _reason(group: ChannelGroup) -> str:
    """The reason why a group cannot be pruned; empty if it can. A group keeps one channel at least."""
    if not group.prunable:
        return group.reason or "its width is fixed"
    return _ALONE if group.num_channels < 2 else ""


def _kind(reason: str, nodes: Iterable[str]) -> str:
    """A reason without the node that it begins with."""
    first, _, rest = reason.partition(" ")
    return rest if first in nodes else reason


def _names(pairs: Iterable[tuple[str, int]]) -> set[str]:
    return {name for name, _ in pairs}
