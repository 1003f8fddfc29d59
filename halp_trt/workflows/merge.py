"""Merging tables that were measured apart: halves of a network on two machines of a kind, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from halp_trt.errors import ArtefactError, TargetMismatchError, UsageError
from halp_trt.latency import LatencyTable, differences
from halp_trt.store import create_whole_table, hold, read_table
from halp_trt.workflows.measurer import speed_of

__all__ = ["merge_luts"]


def merge_luts(paths: Sequence[str | Path], out: str | Path) -> LatencyTable:
    """Writes one table with the rows and surfaces of several.

    All rows are normalised to the machine's speed in the first table that knows it. If several tables have measured a
    layer, the last row counts; among surfaces over the same widths the one with most rows counts, the last of several.
    Surfaces keep the rows that they were laid over.

    Args:
        paths: the tables' files, two or more.
        out: the file to write; none of ``paths`` is changed.

    Raises:
        UsageError: there are fewer than two tables.
        ArtefactError: a table is missing or damaged, or ``out`` exists already or cannot be written.
        TargetMismatchError: the tables are not of one target.
        InUseError: another process writes ``out``.
    """
    if len(paths) < 2:
        raise UsageError(f"merging takes two tables or more, got {len(paths)}")
    with hold(Path(out)):
        if Path(out).exists():
            raise ArtefactError(f"{out} exists already; choose another path")
        whole = _merged(paths)
        create_whole_table(out, whole)
    return whole


def _merged(paths: Sequence[str | Path]) -> LatencyTable:
    """The rows and surfaces of several tables in one."""
    tables = [read_table(path) for path in paths]
    whole = LatencyTable(target=tables[0].target, rows={})
    speed_us = next(filter(None, (speed_of(table.rows) for table in tables)), 0.0)
    for path, table in zip(paths, tables, strict=True):
        if differing := differences(table.target, whole.target):
            raise TargetMismatchError(
                f"{path} was measured for another target than {paths[0]} ({'; '.join(differing)}); leave it out"
            )
        known = {surface.key: len(surface.points) for surface in whole.surfaces}
        finer = [surface for surface in table.surfaces if len(surface.points) >= known.get(surface.key, 0)]
        whole = whole.with_rows({spec: row.at_speed(speed_us) for spec, row in table.rows.items()})
        whole = whole.with_surfaces(surface.at_speed(speed_us) for surface in finer)
        whole = replace(
            whole.with_failures(table.failed), origins=tuple(dict.fromkeys((*whole.origins, *table.origins)))
        )
    return whole
