"""Latency tables from and to comma-separated values that others measured, or read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError, TargetMismatchError, UsageError
from halp_trt.latency import LatencyTable, Origin, differences
from halp_trt.specs import PRECISIONS, LayerSpec, Measurement, Target, TimingProtocol
from halp_trt.store import CSV_FORMS, CsvRows, create_csv, create_whole_table, hold, read_csv, read_table

__all__ = ["Named", "export_table", "import_tables"]

IMPORTED = TimingProtocol(method="others", num_samples=1, num_warmup=0, num_threads=1)
"""The protocol of rows that somebody else measured in a way that their file does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Facts about a file of latencies that it does not tell itself.

    Attributes:
        fields: fields of its target by name, as far as they are given.
        batch_size: the batch size whose rows are taken; None for the only one.
        source, licence: the place it is from, and the licence it is under.
    """

    fields: Mapping[str, Any]
    batch_size: int | None = None
    source: str = ""
    licence: str = ""


def import_tables(paths: Sequence[str | Path], out: str | Path, named: Named) -> LatencyTable:
    """Writes one table with the latencies in files of one target; of a layer in several rows the last one counts.

    Args:
        paths: files of comma-separated values, in either of ``halp_trt.store.CSV_FORMS``.
        out: the table's file, which must not be there.
        named: the facts that the files do not tell.

    Raises:
        ArtefactError: a file cannot be read, or a cell is none that its column can have.
        UsageError: the target is not told whole, or told otherwise than a file tells it; or no row has a latency.
        TargetMismatchError: the files are of different targets.
        InUseError: another process writes ``out``.
    """
    with hold(Path(out)):
        if Path(out).exists():
            raise ArtefactError(f"{out} exists already; choose another path")
        whole: LatencyTable | None = None
        for path in paths:
            part = _table(path, read_csv(path), named)
            if whole is not None and (differing := differences(part.target, whole.target)):
                raise TargetMismatchError(
                    f"{path} is of another target than {paths[0]} ({'; '.join(differing)}); import it on its own"
                )
            whole = part if whole is None else _joined(whole, part)
        if whole is None:
            raise UsageError("no file to import was named; name one or more")
        create_whole_table(out, whole)
    return whole


def _joined(whole: LatencyTable, part: LatencyTable) -> LatencyTable:
    origins = tuple(dict.fromkeys((*whole.origins, *part.origins)))
    return replace(whole.with_rows(part.rows).with_failures(part.failed), origins=origins)


def _table(path: str | Path, found: CsvRows, named: Named) -> LatencyTable:
    """The table of one file."""
    batch_size = _batch_size(path, found, named)
    target = _target(path, found.target, named, batch_size)
    rows: dict[LayerSpec, Measurement] = {}
    failed: dict[LayerSpec, str] = {}
    for batch, spec, row in found.rows:
        if batch not in (None, batch_size):
            continue
        if isinstance(row, str):
            failed[spec] = row
        else:
            rows[spec] = row
    if not rows:
        raise UsageError(f"{path} has no latency of batch size {batch_size}, only {len(failed)} failures; name another")
    failed = {spec: why for spec, why in failed.items() if spec not in rows}
    own = Origin(
        file=found.file,
        sha256=found.sha256,
        source=named.source,
        licence=named.licence,
        num_rows=len(rows),
        num_failures=len(failed),
    )
    return LatencyTable(target=target, rows=rows, failed=failed, origins=found.origins or (own,))


def _batch_size(path: str | Path, found: CsvRows, named: Named) -> int:
    """The batch size whose rows are taken."""
    sizes = sorted({batch for batch, _, _ in found.rows if batch is not None})
    if found.target is not None and not sizes:
        sizes = [found.target.batch_size]
    if named.batch_size is not None:
        if sizes and named.batch_size not in sizes:
            raise UsageError(f"{path} has no row of batch size {named.batch_size}; it has {', '.join(map(str, sizes))}")
        return named.batch_size
    if len(sizes) != 1:
        told = f"has rows of batch sizes {', '.join(map(str, sizes))}" if sizes else "tells no batch size"
        raise UsageError(f"{path} {told}; choose one with --batch, a table is of one")
    return sizes[0]


def _target(path: str | Path, told: Target | None, named: Named, batch_size: int) -> Target:
    """The target of a file: told by itself, or by the caller."""
    if told is None:
        missing = [name for name in ("device", "precision") if not named.fields.get(name)]
        if missing:
            option = f"--{missing[0]}"
            raise UsageError(f"{path} does not tell its {missing[0]}; name it with {option}")
        told = Target(
            **{"runtime": "tensorrt", "runtime_version": "unknown", **named.fields},
            batch_size=batch_size,
            protocol=IMPORTED,
        )
    for name, value in named.fields.items():
        if getattr(told, name) != value:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{path} is of {name} {getattr(told, name)!r}, not {value!r}; leave {option} out")
    if told.precision not in PRECISIONS:
        raise UsageError(f"{path}: no precision {told.precision!r}; choose one of {', '.join(PRECISIONS)}")
    return told


def export_table(paths: Sequence[str | Path], out: str | Path, form: str) -> list[LatencyTable]:
    """Writes the rows and failures of tables as comma-separated values, and returns the tables.

    Surfaces are left out: they are laid over rows, and rows are exported.

    Raises:
        ArtefactError: a table is missing or damaged, ``out`` exists already or cannot be written, or the form has no
            columns for a layer.
        UsageError: the form holds one table, and several are named.
        TargetMismatchError: the tables differ in more than their batch size.
        InUseError: another process writes ``out``.
    """
    if len(paths) > 1 and not CSV_FORMS[form].has_batches:
        raise UsageError(f"a file of the form {form} holds one table, got {len(paths)}; export each to its own file")
    tables = [read_table(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if differing := differences(replace(table.target, batch_size=tables[0].target.batch_size), tables[0].target):
            raise TargetMismatchError(
                f"{path} is of another target than {paths[0]} ({'; '.join(differing)}); export it on its own"
            )
    with hold(Path(out)):
        create_csv(out, tables, form)
    return tables
