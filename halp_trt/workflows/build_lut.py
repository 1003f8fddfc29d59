"""Building latency tables: which layers, in which order, and what happens when it is interrupted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from halp_trt.errors import MissingLatencyError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.latency import (
    Effort,
    LatencyTable,
    Region,
    Surface,
    check_target,
    graph_specs,
    grid_surfaces,
    least_probes,
    measure_surfaces,
    usual_probes,
)
from halp_trt.planning.chunks import grid_steps
from halp_trt.planning.resources import footprint_of
from halp_trt.planning.widths import width_choices
from halp_trt.runtimes import DEFAULT_FOOTPRINT, TENSORRT, BatchProber, Prober, Runtime, Unit
from halp_trt.runtimes.round_bench import ROUNDS, at_speed
from halp_trt.specs import ChannelGraph, Footprint, LayerSpec, Measurement, Target
from halp_trt.store import append_rows, append_surfaces, create_table, read_table
from halp_trt.workflows.precision import parser_opset

__all__ = ["ON_MISS", "Measurer", "Survey", "build_lut", "network_footprint", "slice_specs", "survey_lut"]

Progress = Callable[[int, int], None]

ON_MISS = ("measure", "interpolate", "refuse")
"""What to do about a layer that is not in the table: measure and add it, interpolate it by the table's surfaces where
they cover it, or stop."""


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
    footprint: Footprint = DEFAULT_FOOTPRINT,
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
        footprint: memory of the network that the layers are part of.
        progress: called with the number of layers done and of all, first with none done.

    Raises:
        ArtefactError: there is a table and ``resume`` is not set, or it is damaged or cannot be written.
        TargetMismatchError: the table is of another target.
    """
    table = _open_table(Path(path), target, resume)
    missing = table.missing(specs)
    random.Random(seed).shuffle(missing)
    num_known = len(set(specs)) - len(missing)
    bench = _Bench(
        runtime=runtime,
        target=target,
        footprint=footprint,
        reference_us=_first_reference_us(table.rows),
    )
    wanted = dict.fromkeys(missing)
    return table.with_rows(
        bench.measure_rows(wanted, Path(path), lambda done: progress(num_known + done, len(set(specs))))
    )


def survey_lut(
    graph: ChannelGraph,
    request: Survey,
    *,
    path: str | Path,
    runtime: Runtime,
    target: Target,
    resume: bool = False,
    progress: Progress = _silent,
) -> LatencyTable:
    """Measures a network's layers over both of their widths, from few probes; every row is written as it is known.

    The surfaces that interpolate between the rows are written when all are laid. A killed survey goes on where it was:
    it asks for the same probes again, and those that are there are not measured twice.

    Args:
        graph: the network.
        request: how far to go.
        path: the table's file.
        runtime: what measures them.
        target: goes into the header, or must equal the one there.
        resume: whether to continue a table that exists.
        progress: called with the number of layers measured so far and an estimate of all.

    Raises:
        ArtefactError: there is a table and ``resume`` is not set, or it is damaged or cannot be written.
        TargetMismatchError: the table is of another target.
        UsageError: there are more layers than probes.
    """
    regions = request.regions(graph)
    if not resume:
        create_table(path, target)
    done = 0

    def report(num_done: int, num_total: int) -> None:
        progress(done + num_done, max(done + num_total, _PROBES_OF_A_SURFACE * len(regions)))

    measurer = Measurer(path, runtime, target, footprint=network_footprint(graph, target.batch_size), progress=report)

    def lookup(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        nonlocal done
        shuffled = random.Random(request.seed).sample(list(specs), len(specs))
        rows = measurer(shuffled)
        done += len(specs)
        return rows

    lay = grid_surfaces if request.is_full else measure_surfaces
    known = measurer.table.surfaces
    append_surfaces(path, [surface for surface in lay(regions, lookup) if surface not in known])
    progress(done, done)
    return read_table(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """How a network's latency table is laid out.

    Attributes:
        step: channels between two widths.
        effort: of the whole table: how many probes there may be, and the error at which refinement stops; None for as
            many as its different layers need (``_FEWEST``, or ``_PROBES_OF_A_LAYER`` each where that is more).
        max_error_fraction: the error at which refinement stops where no effort is named.
        is_full: measure every pair of widths instead.
        seed: of the order of probes.
    """

    step: int = 8
    effort: Effort | None = None
    max_error_fraction: float = 0.03
    is_full: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.step < 1:
            raise UsageError(f"the step between widths must be at least 1 channel, got {self.step}")

    def regions(self, graph: ChannelGraph) -> list[Region]:
        """One region for every different layer, each with its share of the probes.

        All get what a surface cannot do without, then what one takes where nothing bends; what is left is shared by the
        square root of their entries.

        Raises:
            UsageError: the probes do not suffice for the first of that.
        """
        found: dict[Region, None] = {}
        steps = grid_steps(graph, grid_step=self.step)
        for layer in graph.layers:
            ins, outs = (_widths(graph, groups, steps) for groups in (layer.in_groups, layer.out_groups))
            outs = () if layer.is_one_sided else outs or (layer.spec.out_channels,)
            region = Region(spec=layer.spec, in_widths=ins or (layer.spec.in_channels,), out_widths=outs)
            found[_possible(region)] = None
        effort = self.effort or Effort(
            max_probes=max(_FEWEST, _PROBES_OF_A_LAYER * len(found)), max_error_fraction=self.max_error_fraction
        )
        shares = _shares(list(found), effort.max_probes)
        if shares is None and not self.is_full:
            least = sum(map(least_probes, found))
            raise UsageError(
                f"{effort.max_probes} probes are too few for the {len(found)} different layers of this network; "
                f"allow at least {least} with --max-probes"
            )
        return [
            replace(region, effort=replace(effort, max_probes=share))
            for region, share in zip(found, shares or [1] * len(found), strict=True)
        ]


_PROBES_OF_A_SURFACE = 20
_FEWEST, _PROBES_OF_A_LAYER = 1_000, 24


def _shares(regions: Sequence[Region], max_probes: int) -> list[int] | None:
    """How many probes each region may take; None where they are too few."""
    least, usual = (np.asarray([count(region) for region in regions]) for count in (least_probes, usual_probes))
    if least.sum() > max_probes:
        return None
    wanted = usual - least
    if usual.sum() <= max_probes:
        least, wanted = usual, np.sqrt([region.num_entries for region in regions])
    shares = least + (max_probes - least.sum()) * wanted / max(wanted.sum(), 1)
    return [int(share) for share in shares]


def _widths(graph: ChannelGraph, groups: Sequence[tuple[str, int]], steps: Mapping[str, int]) -> tuple[int, ...]:
    """The widths that a side of a layer may take: every sum of what its groups may be given; none without groups."""
    times = Counter[str]()
    for name, multiplicity in groups:
        times[name] += multiplicity
    sums = {0}
    for name, multiplicity in times.items():
        group = graph.group(name)
        choices = width_choices(group.num_channels, steps[name]) if group.prunable else (group.num_channels,)
        sums = {width + multiplicity * choice for width in sums for choice in choices}
    return tuple(sorted(sums - {0}))


def _possible(region: Region) -> Region:
    """A region without the widths that a grouped convolution cannot have."""
    spec = region.spec
    if spec.conv_groups == 1 or spec.is_depthwise:
        return region
    return replace(
        region,
        in_widths=tuple(width for width in region.in_widths if width % spec.conv_groups == 0),
        out_widths=tuple(width for width in region.out_widths if width % spec.conv_groups == 0),
    )


def network_footprint(graph: ChannelGraph, batch_size: int) -> Footprint:
    """What lies between two runs of a layer while a network is pruned: half of what the dense one goes through."""
    dense = footprint_of(graph_specs(graph, graph.dense_counts()), batch_size)
    return Footprint(weight_bytes=dense.weight_bytes // 2, arena_bytes=dense.arena_bytes // 2)


class Measurer:
    """Looks layers and units up in a table, and measures and adds what is not there."""

    def __init__(
        self,
        path: str | Path,
        runtime: Runtime,
        target: Target,
        *,
        on_miss: str = "measure",
        footprint: Footprint = DEFAULT_FOOTPRINT,
        progress: Progress = _silent,
    ) -> None:
        """Opens a table.

        Args:
            path: the table's file; started if there is none and ``on_miss`` is ``measure``.
            runtime: what measures.
            target: what the table must be of.
            on_miss: one of ``ON_MISS``.
            footprint: memory of the network that the layers are part of.
            progress: called with the number of measured and of missing layers of a call.

        Raises:
            UsageError: ``on_miss`` is none of them.
            ArtefactError: the table is damaged, or missing though nothing may be measured.
            TargetMismatchError: it is of another target.
        """
        if on_miss not in ON_MISS:
            choices = f"{', '.join(ON_MISS[:-1])} or {ON_MISS[-1]}"
            raise UsageError(f"a missing latency can be met with {choices}, not {on_miss!r}")
        table = _open_table(Path(path), target, resume=True) if on_miss == "measure" else read_table(path)
        check_target(table, target)
        self._path, self._on_miss, self._progress = Path(path), on_miss, progress
        self._bench = _Bench(runtime=runtime, target=target, footprint=footprint)
        self._table, self._known = table, dict(table.rows)

    @property
    def table(self) -> LatencyTable:
        """The table as it is now; where it interpolates, without what that told."""
        return self._table if self._on_miss != "measure" else self._table.with_rows(self._known)

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """Over pairs of widths, exact wherever there is a row by now."""
        return self.table.refined_surfaces()

    def __call__(self, specs: Sequence[LayerSpec]) -> dict[LayerSpec, Measurement]:
        """The rows of some layers.

        Raises:
            MissingLatencyError: some are not there and may not be measured.
        """
        return self._look_up(dict.fromkeys(specs))

    def units(self, units: Sequence[Unit]) -> dict[LayerSpec, Measurement]:
        """The rows of what a runtime executes of a model.

        Raises:
            MissingLatencyError: some are not there and may not be measured.
        """
        return self._look_up({unit.spec: unit.model for unit in units})

    def _look_up(self, wanted: Mapping[LayerSpec, bytes | None]) -> dict[LayerSpec, Measurement]:
        missing = {spec: model for spec, model in wanted.items() if spec not in self._known}
        if missing and self._on_miss == "interpolate":
            found, missing = self._interpolated(missing)
            self._known.update(found)
        if missing and self._on_miss != "measure":
            raise MissingLatencyError(
                f"{self._path} lacks {len(missing)} of the layers, first {next(iter(missing))}; run build-lut again "
                "with a smaller step, or allow measuring while planning"
            )
        if missing:
            report = partial(_report_of, self._progress, len(missing))
            bench = replace(self._bench, reference_us=_first_reference_us(self._known))
            self._known.update(bench.measure_rows(missing, self._path, report))
        return {spec: self._known[spec] for spec in wanted}

    def _interpolated(
        self, missing: Mapping[LayerSpec, bytes | None]
    ) -> tuple[dict[LayerSpec, Measurement], dict[LayerSpec, bytes | None]]:
        """What the table's surfaces tell of missing layers, and those that none covers."""
        found, left = {}, {}
        for spec, model in missing.items():
            try:
                found.update(self._table.estimates((spec,)))
            except MissingLatencyError:
                left[spec] = model
        return found, left


def _first_reference_us(rows: Mapping[LayerSpec, Measurement]) -> float:
    """What the reference took when a table was begun: rows of one table are at one speed of the machine."""
    return next((row.reference_us for row in rows.values() if row.reference_us), 0.0)


def _report_of(progress: Progress, total: int, done: int) -> None:
    progress(done, total)


def _open_table(path: Path, target: Target, resume: bool) -> LatencyTable:
    if not (resume and path.exists()):
        create_table(path, target)
        return LatencyTable(target=target, rows={})
    table = read_table(path)
    check_target(table, target)
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What measures, as part of how large a network, and what the reference took when the table was begun."""

    runtime: Runtime
    target: Target
    footprint: Footprint
    reference_us: float = 0.0

    def measure_rows(
        self, wanted: Mapping[LayerSpec, bytes | None], path: Path, report: Callable[[int], None]
    ) -> dict[LayerSpec, Measurement]:
        """Measures layers, or units by models of their own, and appends the rows as they are known."""
        rows: dict[LayerSpec, Measurement] = {}
        reference_us = self.reference_us
        report(0)
        if not wanted:
            return rows
        with self.runtime.prober(self.target) as prober:
            for spec, row in zip(wanted, self._taken(prober, wanted), strict=True):
                if self.target.protocol.method == ROUNDS:
                    reference_us = reference_us or row.reference_us
                    row = at_speed(row, reference_us)
                rows[spec] = row
                append_rows(path, [(spec, row)])
                report(len(rows))
        return rows

    def _taken(self, prober: Prober, wanted: Mapping[LayerSpec, bytes | None]) -> Iterator[Measurement]:
        probes = (model or self._probe(spec) for spec, model in wanted.items())
        if isinstance(prober, BatchProber):
            yield from prober.measure_all(probes, self.footprint)
        else:
            yield from (prober.measure(probe) for probe in probes)

    def _probe(self, spec: LayerSpec) -> bytes:
        """A layer as the target's runtime measures it: TensorRT has it alone, in the types it has inside a network."""
        target = self.target
        if target.runtime not in TENSORRT:
            if target.runtime == "onnxruntime" and target.precision != "fp32":
                raise UsageError(
                    f"{target.runtime} measures layers in fp32, not {target.precision!r}: prune with fp32 and "
                    "deploy in the other"
                )
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
