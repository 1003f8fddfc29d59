"""Looking up layers in a latency table, and measuring and adding those that it lacks."""

from __future__ import annotations

import itertools
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from halp_trt.errors import MissingLatencyError, UsageError
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.graphs.unprobed import probe_refusal
from halp_trt.latency import LatencyTable, Surface, check_target
from halp_trt.planning.estimates import estimate
from halp_trt.runtimes import (
    DEFAULT_FOOTPRINT,
    BatchProber,
    Prober,
    Runtime,
    ScatteredProber,
    Unit,
    Unmeasured,
    traits_of,
)
from halp_trt.specs import Footprint, LayerSpec, Measurement, Target
from halp_trt.store import append_rows, create_table, read_table
from halp_trt.workflows.precision import parser_opset

__all__ = [
    "ON_MISS",
    "Bench",
    "Measurer",
    "Progress",
    "open_table",
    "silent",
    "speed_of",
]

Progress = Callable[[int, int], None]
"""A callback that gets the number of layers done, and of all."""

ON_MISS = ("measure", "interpolate", "refuse")
"""Reactions to a layer that the table lacks: measure and add it, interpolate it by the table's surfaces where they
cover it, or stop."""


def silent(num_done: int, num_total: int) -> None:
    """A progress callback that shows nothing."""


class Measurer:
    """Looks up layers and units in a table, and measures and adds those that it lacks."""

    def __init__(
        self,
        path: str | Path,
        runtime: Runtime,
        target: Target,
        *,
        on_miss: str = "measure",
        footprint: Footprint = DEFAULT_FOOTPRINT,
        progress: Progress = silent,
    ) -> None:
        """Opens a table.

        Args:
            path: the table's file; started if there is none and ``on_miss`` is ``measure``.
            runtime: the runtime that measures.
            target: the target that the table must be of.
            on_miss: one of ``ON_MISS``.
            footprint: memory of the network that the layers are part of.
            progress: called with the number of measured and of missing layers of a look-up.

        Raises:
            UsageError: ``on_miss`` is none of them.
            ArtefactError: the table is damaged, or missing though nothing may be measured.
            TargetMismatchError: it is of another target.
        """
        if on_miss not in ON_MISS:
            choices = f"{', '.join(ON_MISS[:-1])} or {ON_MISS[-1]}"
            raise UsageError(f"a missing latency can be met with {choices}, not {on_miss!r}")
        table = open_table(Path(path), target, resume=True) if on_miss == "measure" else read_table(path)
        check_target(table, target)
        if on_miss == "measure":  # rows measured for a network of quite another size are measured again
            table = table.for_footprint(footprint.num_bytes)
        self._path, self._on_miss, self._progress = Path(path), on_miss, progress
        self._bench = Bench(runtime=runtime, target=target, footprint=footprint)
        self._table, self._known = table, dict(table.rows)
        self._at_hand: dict[LayerSpec, Measurement] = {}

    @property
    def table(self) -> LatencyTable:
        """The table as it is now, without interpolated rows."""
        return self._table if self._on_miss != "measure" else replace(self._table, rows=self._known)

    @property
    def num_rows(self) -> int:
        """Number of rows in the table."""
        return len(self.table.rows)

    def rewind(self, num_rows: int) -> None:
        """Goes back to the table's first rows; a later row counts once it is asked for, without a new measurement.

        So a killed run that is repeated from where it was saved knows no more than it did the first time.
        """
        if self._on_miss == "measure":
            rows = list({**self._known, **self._at_hand}.items())
            self._known, self._at_hand = dict(rows[:num_rows]), dict(rows[num_rows:])

    @property
    def surfaces(self) -> tuple[Surface, ...]:
        """Surfaces over pairs of widths, exact wherever there is a row by now."""
        return self.table.refined_surfaces()

    def __call__(self, specs: Sequence[LayerSpec]) -> dict[LayerSpec, Measurement]:
        """The rows of some layers.

        Raises:
            MissingLatencyError: some are not there and may not be measured.
        """
        return self._look_up(dict.fromkeys(specs))

    def units(self, units: Sequence[Unit]) -> dict[LayerSpec, Measurement]:
        """The rows of the kernels that a runtime executes of a model.

        Raises:
            MissingLatencyError: some are not there and may not be measured.
        """
        return self._look_up({unit.spec: unit.model for unit in units})

    def _look_up(self, wanted: Mapping[LayerSpec, bytes | None]) -> dict[LayerSpec, Measurement]:
        self._known.update({spec: self._at_hand.pop(spec) for spec in wanted if spec in self._at_hand})
        missing = {spec: model for spec, model in wanted.items() if spec not in self._known}
        if missing and self._on_miss == "interpolate":
            found, missing = self._interpolated(missing)
            self._known.update(found)
        if missing and self._on_miss != "measure":
            raise MissingLatencyError(
                f"{self._path} lacks {len(missing)} of the layers, first {next(iter(missing))}; run build-lut again "
                "with a smaller step, or allow measuring while planning"
            )
        refused = {spec: reason for spec in missing if (reason := self._refusal(spec, missing[spec]))}
        missing = {spec: model for spec, model in missing.items() if spec not in refused}
        if missing:
            report = partial(_report_of, self._progress, len(missing))
            bench = replace(self._bench, speed_us=speed_of(self._known))
            rows, lost = bench.measure_rows(missing, self._path, report)
            self._known.update(rows)
            _warn_lost(lost)
            refused |= lost
        if refused:
            self._estimate(refused)
        return {spec: self._known[spec] for spec in wanted}

    def _refusal(self, spec: LayerSpec, model: bytes | None) -> str:
        """The reason why a layer cannot be measured alone; empty for one that can, or that has a model of its own."""
        return "" if model is not None else probe_refusal(spec, self._bench.target.batch_size)

    def _estimate(self, refused: Mapping[LayerSpec, str]) -> None:
        """Adds estimated rows, with a doubt, of layers that cannot be measured alone."""
        rows, batch_size = dict(self._known), self._bench.target.batch_size
        found = {spec: estimate(spec, reason, rows, batch_size) for spec, reason in refused.items()}
        append_rows(self._path, found.items())
        self._known.update(found)

    def _interpolated(
        self, missing: Mapping[LayerSpec, bytes | None]
    ) -> tuple[dict[LayerSpec, Measurement], dict[LayerSpec, bytes | None]]:
        """Interpolated rows of missing layers, and the layers that no surface of the table covers."""
        found, left = {}, {}
        for spec, model in missing.items():
            try:
                found.update(self._table.estimates((spec,)))
            except MissingLatencyError:
                left[spec] = model
        return found, left


def _report_of(progress: Progress, total: int, done: int) -> None:
    progress(done, total)


# ---- what both share ----


def open_table(path: Path, target: Target, resume: bool) -> LatencyTable:
    """A table to add rows to: a new one, or with ``resume`` the one there, of the same target.

    Raises:
        ArtefactError: there is one and ``resume`` is not set, or it is damaged.
        TargetMismatchError: it is of another target.
    """
    create_table(path, target, may_exist=resume)
    table = read_table(path)
    check_target(table, target)
    return table


def _warn_lost(lost: Mapping[LayerSpec, str]) -> None:
    """Names the layers that a device gave no latency for."""
    if lost:
        spec, reason = next(iter(lost.items()))
        warnings.warn(
            f"{len(lost)} of the layers gave no latency on their device and are estimated, first {spec} ({reason})",
            stacklevel=2,
        )


def speed_of(rows: Mapping[LayerSpec, Measurement]) -> float:
    """The reference's latency at the machine speed that all rows are normalised to, microseconds; 0 if unknown."""
    return next((row.speed_us or row.reference_us for row in rows.values() if row.reference_us), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The runtime that measures rows of a table, the footprint of the network around them, and the machine's speed.

    ``speed_us`` is the reference's latency that rows are normalised to; if it is 0, the median of the first rows is.
    """

    runtime: Runtime
    target: Target
    footprint: Footprint
    speed_us: float = 0.0

    def measure_rows(
        self, wanted: Mapping[LayerSpec, bytes | None], path: Path, report: Callable[[int], None]
    ) -> tuple[dict[LayerSpec, Measurement], dict[LayerSpec, str]]:
        """Measures layers, or units by models of their own, and appends the rows as they are known.

        Returns:
            The rows, and the reasons why other layers have none: their device crashed, hung or had too little memory.
        """
        rows: dict[LayerSpec, Measurement] = {}
        lost: dict[LayerSpec, str] = {}
        specs, speed_us = list(wanted), self.speed_us
        has_one_speed = traits_of(self.target.runtime).has_one_speed
        report(0)
        if not wanted:
            return rows, lost
        with self.runtime.prober(self.target) as prober:
            for taken in self._taken(prober, wanted):
                told = {specs[number]: row for number, row in taken.items()}
                lost |= {spec: row.reason for spec, row in told.items() if isinstance(row, Unmeasured)}
                known = {spec: row for spec, row in told.items() if not isinstance(row, Unmeasured)}
                if has_one_speed and known:
                    speed_us = speed_us or statistics.median(row.reference_us for row in known.values())
                    known = {spec: row.at_speed(speed_us) for spec, row in known.items()}
                append_rows(path, known.items())
                rows |= known
                report(len(rows) + len(lost))
        return rows, lost

    def _taken(
        self, prober: Prober, wanted: Mapping[LayerSpec, bytes | None]
    ) -> Iterator[Mapping[int, Measurement | Unmeasured]]:
        """Rows by the numbers of their layers, as they become known."""
        probes = (model or self._probe(spec) for spec, model in wanted.items())
        if isinstance(prober, ScatteredProber):
            yield from prober.measure_scattered(probes, self.footprint)
            return
        numbers = itertools.count()
        if isinstance(prober, BatchProber):
            for rows in prober.measure_all(probes, self.footprint):
                yield {next(numbers): row for row in rows}
        else:
            for probe in probes:
                yield {next(numbers): prober.measure(probe)}

    def _probe(self, spec: LayerSpec) -> bytes:
        """A layer's probe for the target's runtime: TensorRT gets it alone, in the types it has inside a network."""
        target, traits = self.target, traits_of(self.target.runtime)
        traits.check_measures(target)
        if not traits.has_typed_probes:
            return make_probe(spec, target.batch_size)
        return make_typed_probe(spec, target.batch_size, target.precision, opset=parser_opset(target))
