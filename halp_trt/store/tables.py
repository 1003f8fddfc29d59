"""Latency tables: JSON lines, the target first, that grow row by row and survive a kill."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.latency import LatencyTable, Origin, Region, Surface
from halp_trt.latency.cells import Cell
from halp_trt.specs import LayerSpec, Length, Measurement, NonNegative, Size, Target
from halp_trt.store.codec import decode, encode
from halp_trt.store.files import create_bytes, write_bytes
from halp_trt.store.json_text import parse_json
from halp_trt.store.lines import append_lines, is_json, line_of, schema_in
from halp_trt.store.reading import LINES_BYTES, read_bytes
from halp_trt.store.schema import damaged, schema_of, wrong_schema
from halp_trt.texts import counted

__all__ = [
    "TABLE_KIND",
    "append_rows",
    "append_surfaces",
    "check_new_table",
    "create_table",
    "create_whole_table",
    "read_table",
    "write_table",
]

TABLE_KIND = "latency-table"
_MOST_ENTRIES = 1 << 23
"""Pairs of widths that one surface covers, at most: each becomes some numbers in memory."""


def create_table(path: str | Path, target: Target, *, may_exist: bool = False) -> None:
    """Starts an empty latency table; with ``may_exist`` one that is there is left as it is.

    One of the processes that start it at the same moment does.

    Raises:
        ArtefactError: there is a file already, or it cannot be written.
    """
    if not create_bytes(path, _header(target)) and not may_exist:
        raise _is_there(path)


def check_new_table(path: str | Path) -> None:
    """Makes sure, before any work, that a table can be started at a path.

    Raises:
        ArtefactError: there is a file already.
    """
    if Path(path).exists():
        raise _is_there(path)


def _is_there(path: str | Path) -> ArtefactError:
    return ArtefactError(f"{path} exists already; continue it with --resume or choose another path")


def create_whole_table(path: str | Path, table: LatencyTable) -> None:
    """Writes a whole table to a path where nothing is.

    Raises:
        ArtefactError: there is a file already, or it cannot be written.
    """
    if not create_bytes(path, _lines(table)):
        raise ArtefactError(f"{path} exists already; choose another path")


def write_table(path: str | Path, table: LatencyTable) -> None:
    """Writes a whole table in place of what is there.

    Raises:
        ArtefactError: the file cannot be written.
    """
    write_bytes(path, _lines(table))


def _lines(table: LatencyTable) -> bytes:
    """A whole table as it stands in a file.

    A surface rests on the rows before it in the file. If it rests on other measurements than the table's own (of the
    layer in a network of another size, say), these stand before the surface, and the table's own follow.
    """
    written = dict(table.rows)
    failures = (_failure(*failure) for failure in table.failed.items())
    lines = [_header(table.target, table.origins), *(_row(*row) for row in written.items()), *failures]
    for surface in table.surfaces:
        others = {spec: row for spec, row in surface.rows.items() if written.get(spec) != row}
        written |= others
        lines += [*(_row(*row) for row in others.items()), _surface(surface)]
    lines += [_row(spec, row) for spec, row in table.rows.items() if written[spec] != row]
    return b"".join(lines)


def append_surfaces(path: str | Path, surfaces: Iterable[Surface]) -> None:
    """Adds surfaces to a table, as :func:`append_rows` adds rows; the table must have the rows they rest on.

    Raises:
        ArtefactError: the file is missing or cannot be written.
    """
    append_lines(path, b"".join(_surface(surface) for surface in surfaces))


def append_rows(path: str | Path, rows: Iterable[tuple[LayerSpec, Measurement]]) -> None:
    """Adds rows to a table; they are on the disk when it returns. A torn last line is cut off first.

    Processes adding to one table at the same time wait for each other, so none writes into another's rows.

    Raises:
        ArtefactError: the file is missing or cannot be written.
    """
    append_lines(path, b"".join(_row(spec, measurement) for spec, measurement in rows))


def read_table(path: str | Path) -> LatencyTable:
    """A whole latency table; a spec's last row wins.

    A torn last line, as a killed ``build-lut`` may leave it, is dropped with a warning; so is a surface without rows.

    Raises:
        ArtefactError: the file is missing, of another schema, has no header, or is damaged before its last line.
    """
    lines = read_bytes(path, LINES_BYTES).split(b"\n")
    torn = lines.pop()
    if not torn and len(lines) > 1 and not is_json(lines[-1]):
        torn = lines.pop()
    if not lines and schema_in(torn) == schema_of(TABLE_KIND):
        raise ArtefactError(f"{path} is cut off in its first line, which holds the target; build the table again")
    if not lines or schema_in(lines[0]) != schema_of(TABLE_KIND):
        raise wrong_schema(path, schema_in(lines[0] if lines else torn), [TABLE_KIND])
    if torn:
        warnings.warn(f"{path}: dropped a torn last line; its probe is measured again on --resume", stacklevel=2)
    rows: dict[LayerSpec, Measurement] = {}
    failed: dict[LayerSpec, str] = {}
    surfaces: dict[object, Surface] = {}
    lines_left_out: dict[object, int] = {}
    for index, line in enumerate(lines):
        try:
            row = decode(dict, parse_json(line))
            if index == 0:
                target = decode(Target, row.get("target"))
                origins = decode(tuple[Origin, ...], row.get("origins", []))
            elif "failure" in row:
                failed[decode(LayerSpec, row.get("spec"))] = decode(str, row["failure"])
            elif "surface" in row:
                stored = decode(_StoredSurface, row["surface"])
                surface = stored.over(rows)
                lines_left_out.pop(stored.key, None)
                if surface is None:
                    lines_left_out[stored.key] = index + 1
                else:
                    surfaces[surface.key] = surface
            else:
                spec = decode(LayerSpec, row.get("spec"))
                rows[spec] = decode(Measurement, row.get("measurement"))
        except ArtefactError as error:
            raise damaged(path, error, "remove the line or build it again", index + 1) from error
    if lines_left_out:
        warnings.warn(
            f"{path}: left out {counted(len(lines_left_out), 'surface')} with some of the rows missing, the first "
            f"in line {min(lines_left_out.values())}; build-lut --resume measures those and lays them again",
            stacklevel=2,
        )
    return LatencyTable(
        target=target, rows=rows, surfaces=tuple(surfaces.values()), failed=failed, origins=tuple(origins)
    )


def _header(target: Target, origins: tuple[Origin, ...] = ()) -> bytes:
    made = {"origins": encode(origins)} if origins else {}
    return line_of({"schema": schema_of(TABLE_KIND), "target": encode(target), **made})


def _row(spec: LayerSpec, measurement: Measurement) -> bytes:
    return line_of({"spec": encode(spec), "measurement": encode(measurement)})


def _failure(spec: LayerSpec, why: str) -> bytes:
    return line_of({"spec": encode(spec), "failure": why})


def _surface(surface: Surface) -> bytes:
    """The line of a surface: its cells and the positions of its points; their latencies are rows."""
    return line_of(
        {
            "surface": {
                "spec": encode(surface.spec),
                "in_widths": list(surface.in_widths),
                "out_widths": list(surface.out_widths),
                "steps": list(surface.steps),
                "waves": [list(wave) for wave in surface.waves],
                "points": [list(point) for point in surface.points],
                "cells": [[*cell.low, *cell.high, cell.error_fraction] for cell in surface.cells],
            }
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredSurface:
    """A surface as stored in one line: cells by the positions of their corners and their error, points by position."""

    spec: LayerSpec
    in_widths: tuple[Size, ...]
    out_widths: tuple[Size, ...]
    steps: tuple[Size, Size]
    waves: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    points: tuple[tuple[Length, Length], ...]
    cells: tuple[tuple[Length, Length, Length, Length, NonNegative], ...]

    def __post_init__(self) -> None:
        num_entries = len(self.in_widths) * max(1, len(self.out_widths))
        if not 0 < num_entries <= _MOST_ENTRIES:
            raise UsageError(f"a surface has {num_entries:,} pairs of widths, expected 1 to {_MOST_ENTRIES:,}")

    @property
    def key(self) -> object:
        """The layer and widths it is laid over; a later surface with the same key takes its place."""
        return self.spec, self.in_widths, self.out_widths

    def over(self, rows: Mapping[LayerSpec, Measurement]) -> Surface | None:
        """The surface over the rows before it; None if some of its rows are missing.

        Raises:
            ArtefactError: the line states no valid surface.
        """
        try:
            region = Region(spec=self.spec, in_widths=self.in_widths, out_widths=self.out_widths)
            specs = {point: region.spec_at(point) for point in self.points}
            if not rows.keys() >= set(specs.values()):
                return None
            return Surface(
                spec=self.spec,
                in_widths=self.in_widths,
                out_widths=self.out_widths,
                steps=self.steps,
                points={point: rows[spec] for point, spec in specs.items()},
                cells=tuple(Cell(low=(a, b), high=(c, d), error_fraction=error) for a, b, c, d, error in self.cells),
                waves=self.waves,
            )
        except (IndexError, UsageError) as error:
            raise ArtefactError(f"it is no surface ({error})") from error
