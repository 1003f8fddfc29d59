"""The tiles and figures of a latency table's page."""

from __future__ import annotations

from collections.abc import Iterator

from halp_trt.latency import LatencyTable
from halp_trt.report import units
from halp_trt.report.coverage import coverage
from halp_trt.report.parts import Figure, Parts, Tile
from halp_trt.report.surface_plots import drift_figure, surface_figures
from halp_trt.texts import counted

__all__ = ["table_figures", "table_parts", "table_tiles"]

_MOST_SURFACES = 24


def table_parts(table: LatencyTable) -> Parts:
    """The parts of a table's page."""
    return Parts(tiles=list(table_tiles(table)), figures=list(table_figures(table)), with_text=True)


def table_tiles(table: LatencyTable) -> Iterator[Tile]:
    """The tiles of a table: rows measured, entries covered, and their errors."""
    yield Tile(label="Measured", value=units.count(len(table.rows)), detail="rows, each a layer at its widths")
    covered = coverage(table.refined_surfaces())
    if covered is None:
        return
    yield Tile(
        label="Covered",
        value=units.count(covered.num_entries),
        detail=f"entries of {counted(len(table.surfaces), 'layer')}",
    )
    yield Tile(
        label="Share measured",
        value=units.percent(covered.measured_fraction),
        detail=f"{units.count(covered.num_measured)} entries; the others are interpolated",
    )
    yield Tile(
        label="Error of the entries",
        value=units.percent(covered.p95_error_fraction, 1),
        detail=f"95th percentile; the largest {units.percent(covered.largest_error_fraction, 1)}",
    )


def table_figures(table: LatencyTable, most: int = _MOST_SURFACES) -> Iterator[Figure]:
    """The figures of a table: its ``most`` slowest surfaces, and the drift while its rows were measured."""
    more = len(table.surfaces) - most
    which = (
        f"The {counted(most, 'layer')} that {'takes' if most == 1 else 'take'} longest; {more} more are listed below. "
        if more > 0
        else ""
    )
    drawn = [
        (
            "Latency over both widths",
            f"{which}Dots are measured, with one standard deviation; lighter lines are interpolated, in the band of "
            "their error. A map without dots is measured everywhere. White lines are the steps of the staircase, where "
            "there is room for them.",
            "".join(surface_figures(table, most)),
        ),
        (
            "Drift of the machine's speed",
            "What the same small network took while each row was measured, against its median. A ring marks a row that "
            "is not to be trusted; it lies on the line at 0 where the row has no reference.",
            drift_figure(table),
        ),
    ]
    return (Figure(title=title, caption=caption, svg=svg) for title, caption, svg in drawn if svg)
