"""Tables that were measured apart, brought together: halves of a network by two machines of a kind, say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.latency import LatencyTable, check_target
from halp_trt.store import read_table, save
from halp_trt.workflows.measurer import speed_of

__all__ = ["merge_luts"]


def merge_luts(paths: Sequence[str | Path], out: str | Path) -> LatencyTable:
    """Writes one table with the rows and surfaces of several.

    Rows are given for the machine's speed in the first table. Of a layer that several have measured the last row
    counts; of surfaces over the same widths the one that rests on most rows, the last of several.

    Args:
        paths: the tables' files, two or more.
        out: the file to write; none of ``paths`` is changed.

    Raises:
        UsageError: there are fewer than two tables.
        ArtefactError: a table is missing or damaged, or ``out`` exists already or cannot be written.
        TargetMismatchError: the tables are not of one target.
    """
    if len(paths) < 2:
        raise UsageError(f"merging takes two tables or more, got {len(paths)}")
    if Path(out).exists():
        raise ArtefactError(f"{out} exists already; choose another path")
    whole, *others = map(read_table, paths)
    speed_us = speed_of(whole.rows)
    for other in others:
        check_target(other, whole.target)
        whole = whole.with_rows({spec: row.at_speed(speed_us) for spec, row in other.rows.items()})
        known = {surface.key: len(surface.points) for surface in whole.surfaces}
        whole = whole.with_surfaces(s for s in other.surfaces if len(s.points) >= known.get(s.key, 0))
    save(whole, out)
    return read_table(out)
