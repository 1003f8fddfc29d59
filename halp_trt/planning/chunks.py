"""Chunks: the number of channels of a group that are pruned at a time (latency-aware grouping, arXiv:2210.06659, sec.
3.2).

A chunk is as large as the staircase step of the layers that write the group. Widths then land on the right edge of a
step, the most channels for a latency.
"""

from __future__ import annotations

import math

from halp_trt.errors import UsageError
from halp_trt.latency import noise_us, staircase_step
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.widths import width_choices
from halp_trt.specs import ChannelGraph, ChannelGroup, Layer, LayerSpec

__all__ = ["channel_steps", "grid_chunks", "grid_steps", "slice_specs"]

_STEPPING_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose latency over the width is searched for a staircase."""


def channel_steps(graph: ChannelGraph, lookup: Lookup, *, grid_step: int = 8) -> dict[str, int]:
    """The chunk of every prunable group: the largest staircase step of the layers that write it.

    Each convolution or matrix product is looked at alone, over the widths of the group, everything else dense. If no
    staircase shows, the chunk is the grid step (divided by the multiplicity). Differs from HALP: steps are found, not
    given by hand, and a layer's step is searched among the widths it can take (multiples of its multiplicity).

    Args:
        graph: the dense network.
        lookup: measurements of ``slice_specs(graph, grid_step=grid_step)``.
        grid_step: distance between measured widths in channels of a layer.
    """
    rows = lookup(slice_specs(graph, grid_step=grid_step))
    stairs: dict[tuple[LayerSpec, ...], int | None] = {}
    steps = {}
    for group in graph.prunable_groups:
        grid = _grid(graph, group, grid_step)
        counts = width_choices(group.num_channels, grid)
        steps[group.name] = grid
        for layer in _stepping_layers(graph, group):
            specs = _slice(graph, layer, group, grid)
            if specs not in stairs:
                points = [rows[spec] for spec in specs]
                stairs[specs] = staircase_step(
                    counts, [point.latency_us for point in points], [noise_us(point) for point in points]
                )
            steps[group.name] = max(steps[group.name], stairs[specs] or grid)
    return steps


def grid_steps(graph: ChannelGraph, *, grid_step: int = 8) -> dict[str, int]:
    """The grid step of every prunable group, for methods that do not group channels by latency."""
    return {group.name: _grid(graph, group, grid_step) for group in graph.prunable_groups}


def grid_chunks(graph: ChannelGraph, lookup: Lookup, *, grid_step: int = 8) -> dict[str, int]:
    """The chunks of :func:`grid_steps`, with the signature of :class:`halp_trt.planning.method.Chunks`."""
    return grid_steps(graph, grid_step=grid_step)


def slice_specs(graph: ChannelGraph, *, grid_step: int = 8) -> tuple[LayerSpec, ...]:
    """The specs that ``channel_steps`` looks up, each once."""
    return tuple(
        dict.fromkeys(
            spec
            for group in graph.prunable_groups
            for layer in _stepping_layers(graph, group)
            for spec in _slice(graph, layer, group, _grid(graph, group, grid_step))
        )
    )


def _slice(graph: ChannelGraph, layer: Layer, group: ChannelGroup, grid: int) -> tuple[LayerSpec, ...]:
    """A layer's specs over the widths of one group, all other groups dense."""
    dense = graph.dense_counts()
    return tuple(layer.spec_at({**dense, group.name: count}) for count in width_choices(group.num_channels, grid))


def _stepping_layers(graph: ChannelGraph, group: ChannelGroup) -> list[Layer]:
    """The layers whose latency decides on a group's chunk: convolutions and matrix products that write it."""
    return [
        layer
        for layer in graph.layers
        if layer.spec.operator in _STEPPING_OPERATORS and any(name == group.name for name, _ in layer.out_groups)
    ]


def _grid(graph: ChannelGraph, group: ChannelGroup, grid_step: int) -> int:
    """The grid step in channels of a group: the smallest that moves each of its layers by at least ``grid_step``."""
    if grid_step < 1:
        raise UsageError(f"the grid step must be at least 1 channel, got {grid_step}")
    layers = _stepping_layers(graph, group)
    times = [sum(times for name, times in layer.out_groups if name == group.name) for layer in layers]
    return math.ceil(grid_step / min(times, default=1))
