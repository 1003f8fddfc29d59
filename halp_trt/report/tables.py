"""Latency tables as plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from halp_trt.latency import LatencyTable, Surface
from halp_trt.report import units
from halp_trt.report.coverage import coverage, drift_fractions, heaviest, kernel_name, width_range
from halp_trt.texts import counted

__all__ = ["describe_table"]


def describe_table(table: LatencyTable) -> str:
    """A latency table in words: rows measured, entries covered between them, and their errors."""
    notes = [f"timed by {units.protocol_line(table.target.protocol)}", *_notes(table)]
    head = f"Latency table of {units.target_line(table.target)}: {counted(len(table.rows), 'probe')}"
    parts = ["\n".join([head, *notes]), units.columns(_operators(table))]
    if table.surfaces:
        parts.append(units.columns(_surfaces(heaviest(table))))
    return "\n\n".join(parts)


def _notes(table: LatencyTable) -> Iterator[str]:
    covered, drift = coverage(table.refined_surfaces()), drift_fractions(table)
    if covered is not None:
        yield (
            f"{counted(len(table.surfaces), 'layer')} over their widths: {units.count(covered.num_entries)} entries, "
            f"{units.count(covered.num_measured)} of them measured ({units.percent(covered.measured_fraction)})"
        )
        p95, largest = covered.p95_error_fraction, covered.largest_error_fraction
        yield f"errors of the entries: 95th percentile {units.percent(p95, 1)}, largest {units.percent(largest, 1)}"
    if drift is not None:
        lowest, highest = units.signed_percent(float(np.nanmin(drift))), units.signed_percent(float(np.nanmax(drift)))
        yield f"the reference between the rows drifted from {lowest} to {highest} of its median"
    for origin in table.origins:
        yield (
            f"{units.count(origin.num_rows)} rows from {origin.file} (SHA-256 {units.short_sha(origin.sha256)}), "
            f"source {origin.source or 'not stated'}, licence {origin.licence or 'not stated'}"
        )
    if table.failed:
        first, why = next(iter(table.failed.items()))
        yield f"failed, without a latency: {units.count(len(table.failed))} layers, the first {first}: {why}"
    doubtful = [(spec, row.doubt) for spec, row in table.rows.items() if not row.is_trusted]
    if doubtful:
        yield f"{len(doubtful)} not to be trusted, first {doubtful[0][0]}: {doubtful[0][1]}"


def _operators(table: LatencyTable) -> list[Sequence[str]]:
    operators = Counter(spec.operator for spec in table.rows)
    rows: list[Sequence[str]] = [("operator", "probes", "fastest", "slowest")]
    for operator, number in sorted(operators.items()):
        times = [row.latency_us for spec, row in table.rows.items() if spec.operator == operator]
        rows.append((operator, str(number), units.latency(min(times)), units.latency(max(times))))
    return rows


def _surfaces(surfaces: Sequence[Surface]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("layer over its widths", "inputs", "outputs", "steps", "measured", "of", "95 % of errors", "largest")
    ]
    for surface in surfaces:
        covered = coverage([surface])
        assert covered is not None, "there is a surface"
        rows.append(
            (
                kernel_name(surface),
                width_range(surface.in_widths),
                width_range(surface.out_widths) or "same",
                _steps(surface),
                units.count(covered.num_measured),
                units.count(covered.num_entries),
                f"≤ {units.percent(covered.p95_error_fraction, 1)}",
                units.percent(covered.largest_error_fraction, 1),
            )
        )
    return rows


def _steps(surface: Surface) -> str:
    """The steps along both axes; a dash along one without."""
    return " × ".join(str(step) if step > 1 else "–" for step in surface.steps[: 2 if surface.out_widths else 1])
