"""Building latency tables: which layers, in which order, and what happens when it is interrupted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from halp_trt.errors import MissingLatencyError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.latency import LatencyTable, check_target
from halp_trt.runtimes import TENSORRT, Runtime
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement, Target
from halp_trt.store import append_rows, create_table, read_table
from halp_trt.workflows.precision import parser_opset

__all__ = ["ON_MISS", "build_lut", "measurer", "slice_specs"]

Progress = Callable[[int, int], None]
Measure = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]

ON_MISS = ("measure", "refuse")
"""What to do about a layer that is not in the table: measure and add it, or stop."""


def _silent(num_done: int, num_total: int) -> None:
    """Shows nothing."""


def build_lut(
    specs: Sequence[LayerSpec],
    *,
    path: str | Path,
    runtime: Runtime,
    target: Target,
    resume: bool = False,
    seed: int = 0,
    progress: Progress = _silent,
) -> LatencyTable:
    """Measures layers and writes each row as soon as it is known.

    Repeated layers are measured once, in random order, so that a drift of the machine does not look like a staircase.

    Args:
        specs: the layers.
        path: the table's file.
        runtime: what measures them.
        target: goes into the header, or must equal the one there.
        resume: whether to continue a table that exists.
        seed: of the order.
        progress: called with the number of layers done and of all, first with none done.

    Raises:
        ArtefactError: there is a table and ``resume`` is not set, or it is damaged or cannot be written.
        TargetMismatchError: the table is of another target.
    """
    table = _open_table(Path(path), target, resume)
    missing = table.missing(specs)
    random.Random(seed).shuffle(missing)
    num_known = len(set(specs)) - len(missing)
    return table.with_rows(
        _measure_rows(missing, Path(path), runtime, target, lambda done: progress(num_known + done, len(set(specs))))
    )


def measurer(
    path: str | Path,
    runtime: Runtime,
    target: Target,
    *,
    on_miss: str = "measure",
    progress: Progress = _silent,
) -> Measure:
    """A function that looks layers up in a table and measures and adds what is not there.

    Args:
        path: the table's file; started if there is none and ``on_miss`` is ``measure``.
        runtime: what measures.
        target: what the table must be of.
        on_miss: ``measure`` or ``refuse``.
        progress: called with the number of measured and of missing layers of a call.

    Raises:
        UsageError: ``on_miss`` is neither.
        ArtefactError: the table is damaged, or missing though nothing may be measured.
        TargetMismatchError: it is of another target.
    """
    if on_miss not in ON_MISS:
        raise UsageError(f"a missing latency can be met with {' or '.join(ON_MISS)}, not {on_miss!r}")
    table = read_table(path) if on_miss == "refuse" else _open_table(Path(path), target, resume=True)
    check_target(table, target)
    known = dict(table.rows)

    def measure(specs: Sequence[LayerSpec]) -> dict[LayerSpec, Measurement]:
        missing = [spec for spec in dict.fromkeys(specs) if spec not in known]
        if missing and on_miss == "refuse":
            raise MissingLatencyError(
                f"{path} lacks {len(missing)} of the layers, first {missing[0]}; run build-lut again with a smaller "
                "step, or allow measuring while planning"
            )
        if missing:
            known.update(_measure_rows(missing, Path(path), runtime, target, lambda n: progress(n, len(missing))))
        return {spec: known[spec] for spec in specs}

    return measure


def _open_table(path: Path, target: Target, resume: bool) -> LatencyTable:
    if not (resume and path.exists()):
        create_table(path, target)
        return LatencyTable(target=target, rows={})
    table = read_table(path)
    check_target(table, target)
    return table


def _measure_rows(
    specs: Sequence[LayerSpec], path: Path, runtime: Runtime, target: Target, report: Callable[[int], None]
) -> dict[LayerSpec, Measurement]:
    """Measures and appends one layer after the other; a kill loses the one in flight."""
    rows: dict[LayerSpec, Measurement] = {}
    report(0)
    if not specs:
        return rows
    with runtime.prober(target) as prober:
        for spec in specs:
            rows[spec] = prober.measure(_probe(spec, target))
            append_rows(path, [(spec, rows[spec])])
            report(len(rows))
    return rows


def _probe(spec: LayerSpec, target: Target) -> bytes:
    """One layer as the target's runtime measures it: TensorRT has it alone, in the types it has inside a network."""
    if target.runtime not in TENSORRT:
        return make_probe(spec, target.batch_size)
    return make_typed_probe(spec, target.batch_size, target.precision, opset=parser_opset(target))


def slice_specs(graph: ChannelGraph, step: int) -> tuple[LayerSpec, ...]:
    """The layers to measure before planning: one-dimensional slices through the dense widths.

    Every layer is taken dense, and with each of its two sides narrowed alone: the channel groups of that side, those
    that may be pruned, keep every multiple of ``step`` channels. A group on both sides narrows both. Widths that a
    grouped convolution cannot have are left out. Pairs of narrowed widths are measured when a plan needs them.

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
    """Counts of the prunable groups among these, in sum every multiple of ``step``, narrowed alike."""
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
