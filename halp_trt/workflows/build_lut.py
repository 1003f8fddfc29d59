"""Building latency tables of given layers, row by row in random order, so that an interrupted build can go on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from halp_trt.errors import UsageError
from halp_trt.latency import LatencyTable
from halp_trt.runtimes import DEFAULT_FOOTPRINT, Runtime
from halp_trt.specs import ChannelGraph, Footprint, LayerSpec, Target
from halp_trt.workflows.measurer import Bench, Progress, open_table, silent, speed_of

__all__ = ["build_lut", "slice_specs"]


def build_lut(
    specs: Sequence[LayerSpec],
    *,
    path: str | Path,
    runtime: Runtime,
    target: Target,
    resume: bool = False,
    seed: int = 0,
    footprint: Footprint = DEFAULT_FOOTPRINT,
    progress: Progress = silent,
) -> LatencyTable:
    """Measures layers and writes each row as soon as it is known.

    Repeated layers are measured once, in random order, so that a drift of the machine does not look like a staircase.

    Args:
        specs: the layers.
        path: the table's file.
        runtime: the runtime that measures them.
        target: goes into the header, or must equal the one there.
        resume: whether to continue a table that exists.
        seed: seed of the order.
        footprint: memory of the network that the layers are part of.
        progress: called with the number of layers done and of all, first with none done.

    Raises:
        ArtefactError: there is a table and ``resume`` is not set, or it is damaged or cannot be written.
        TargetMismatchError: the table is of another target.
    """
    table = open_table(Path(path), target, resume).for_footprint(footprint.num_bytes)
    missing = table.missing(specs)
    random.Random(seed).shuffle(missing)
    num_known = len(set(specs)) - len(missing)
    bench = Bench(
        runtime=runtime,
        target=target,
        footprint=footprint,
        speed_us=speed_of(table.rows),
    )
    wanted = dict.fromkeys(missing)
    return table.with_rows(
        bench.measure_rows(wanted, Path(path), lambda done: progress(num_known + done, len(set(specs))))
    )


def slice_specs(graph: ChannelGraph, step: int) -> tuple[LayerSpec, ...]:
    """The layers to measure before planning: one-dimensional slices through the dense widths.

    Every layer is taken dense, and with each of its two sides narrowed alone: the prunable channel groups of that side
    keep every multiple of ``step`` channels. A group on both sides narrows both. Widths that a grouped convolution
    cannot have are left out. Pairs of narrowed widths are measured when a plan needs them.

    Raises:
        UsageError: the step is below 1.
    """
    if step < 1:
        raise UsageError(f"the step between widths must be at least 1 channel, got {step}")
    dense = graph.dense_counts()
    found: dict[LayerSpec, None] = {}
    for layer in graph.layers:
        found[layer.spec] = None
        for side in dict.fromkeys((layer.in_groups, layer.out_groups)):
            for counts in _narrowed(graph, dict.fromkeys(name for name, _ in side), step):
                try:
                    found[layer.spec_at({**dense, **counts})] = None
                except UsageError:  # the widths do not divide into the layer's convolution groups
                    continue
    return tuple(found)


def _narrowed(graph: ChannelGraph, names: Mapping[str, None], step: int) -> Iterator[dict[str, int]]:
    """Channel counts of the prunable groups among ``names``, narrowed alike: one for each multiple of ``step``."""
    sizes = {name: graph.group(name).num_channels for name in names if graph.group(name).prunable}
    total = sum(sizes.values())
    for kept in range(step, total, step):
        if kept < len(sizes):
            continue
        counts = {name: max(1, size * kept // total) for name, size in sizes.items()}
        for name in sizes:  # rounding leaves a few channels over, or took a few too many
            room = kept - sum(counts.values())
            counts[name] = min(sizes[name], max(1, counts[name] + room))
        yield counts
