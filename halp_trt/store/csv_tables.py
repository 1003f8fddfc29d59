"""Latency tables as comma-separated values, in two forms: a plain one with our own columns, and single convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from halp_trt.errors import ArtefactError
from halp_trt.latency import LatencyTable, Origin
from halp_trt.specs import LayerSpec, Measurement, Target
from halp_trt.store.codec import decode, encode
from halp_trt.store.csv_convolutions import CONVOLUTION_COLUMNS, convolution_cells, read_convolution
from halp_trt.store.csv_numbers import whole_number
from halp_trt.store.csv_plain import PLAIN_COLUMNS, USUAL_COLUMNS, plain_cells, read_plain
from halp_trt.store.csv_text import CsvText, csv_bytes, parse_csv
from halp_trt.store.files import create_bytes
from halp_trt.store.json_text import parse_json
from halp_trt.store.lines import line_of
from halp_trt.store.reading import LINES_BYTES, read_bytes, sha256_bytes

__all__ = ["CSV_FORMS", "CsvForm", "CsvRows", "create_csv", "read_csv"]

Found = Measurement | str
"""A latency or, where a layer has none, what stands in its place."""
_BATCH = "batch"
_NEEDED = ("operator", "in_channels", "out_channels", "latency_us")
_TARGET, _ORIGINS = "target ", "origins "
"""Beginnings of the comments that hold a table's header as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvRows:
    """The latencies in a file.

    Attributes:
        file: its name. sha256: its digest.
        target: the target that it names; None where it names none.
        origins: the files that it says its rows are from.
        rows: the batch size where the form has one, else None, with layer and latency, in the file's order.
    """

    file: str
    sha256: str
    target: Target | None
    origins: tuple[Origin, ...]
    rows: tuple[tuple[int | None, LayerSpec, Found], ...]


def read_csv(path: str | Path) -> CsvRows:
    """The latencies in a file of either form.

    Raises:
        ArtefactError: it cannot be read, its columns are of neither form, or a cell is none that its column can have;
            the sentence names the row.
    """
    data = read_bytes(path, LINES_BYTES)
    try:
        text = parse_csv(data)
        form = _form_of(text.columns)
        target, origins = _header_in(text.comments)
        rows = tuple(_rows(text, form))
    except ArtefactError as error:
        raise ArtefactError(
            f"{path} is no table of latencies that can be imported: {error}; mend it, docs/tables.md has both forms"
        ) from error
    return CsvRows(file=Path(path).name, sha256=sha256_bytes(data), target=target, origins=origins, rows=rows)


def _form_of(columns: Sequence[str]) -> CsvForm:
    """The form with these columns.

    Raises:
        ArtefactError: there is none.
    """
    name = max(CSV_FORMS, key=lambda name: len({*columns} & {*CSV_FORMS[name].needed, *CSV_FORMS[name].others}))
    form = CSV_FORMS[name]
    missing = [column for column in form.needed if column not in columns]
    unknown = [column for column in columns if column not in (*form.needed, *form.others)]
    if missing or unknown:
        found = f"the column {missing[0]!r} is missing" if missing else f"the column {unknown[0]!r} is none of its own"
        raise ArtefactError(
            f"by its heading it is of the form {name!r}, but {found}; expected {', '.join(form.needed)}"
            + (f", and as one likes {', '.join(form.others[:6])} ..." if form.others else "")
        )
    return form


def _header_in(comments: Iterable[str]) -> tuple[Target | None, tuple[Origin, ...]]:
    """The target and the origins that comments state."""
    target, origins = None, tuple[Origin, ...]()
    for number, comment in enumerate(comments, start=1):
        try:
            if comment.startswith(_TARGET + "{"):
                target = decode(Target, parse_json(comment.removeprefix(_TARGET).encode()))
            elif comment.startswith(_ORIGINS + "["):
                origins = decode(tuple[Origin, ...], parse_json(comment.removeprefix(_ORIGINS).encode()))
        except ArtefactError as error:
            raise ArtefactError(f"row {number}: {error}") from error
    return target, origins


def _rows(text: CsvText, form: CsvForm) -> Iterable[tuple[int | None, LayerSpec, Found]]:
    for number, cells in text.rows:
        row = dict(zip(text.columns, cells, strict=True))
        try:
            batch = whole_number(_BATCH, row[_BATCH]) if _BATCH in row else None
            yield batch, *form.read(row)
        except ArtefactError as error:
            raise ArtefactError(f"row {number}: {error}") from error


def create_csv(path: str | Path, tables: Sequence[LatencyTable], form: str) -> None:
    """Writes the rows and failures of tables to a path where nothing is, in a form.

    Raises:
        ArtefactError: there is a file already, it cannot be written, or the form has no columns for a layer.
    """
    if not create_bytes(path, CSV_FORMS[form].write(tables)):
        raise ArtefactError(f"{path} exists already; choose another path")


def _found(table: LatencyTable) -> list[tuple[LayerSpec, Found]]:
    return [*table.rows.items(), *table.failed.items()]


def _plain(tables: Sequence[LatencyTable]) -> bytes:
    """One table without its surfaces; its header stands in comments, and columns that say nothing are left out."""
    (table,) = tables
    comments = [_TARGET + line_of(encode(table.target)).decode().strip()]
    comments += [_ORIGINS + line_of(encode(table.origins)).decode().strip()] if table.origins else []
    rows = [plain_cells(spec, found) for spec, found in _found(table)]
    always = (*_NEEDED, *USUAL_COLUMNS)
    kept = [at for at, name in enumerate(PLAIN_COLUMNS) if name in always or any(row[at] for row in rows)]
    columns = [PLAIN_COLUMNS[at] for at in kept]
    return csv_bytes(columns, ([row[at] for at in kept] for row in rows), comments)


def _convolutions(tables: Sequence[LatencyTable]) -> bytes:
    """Tables of one or several batch sizes, sorted."""
    rows = [
        convolution_cells(spec, found, table.target.batch_size) for table in tables for spec, found in _found(table)
    ]
    return csv_bytes(CONVOLUTION_COLUMNS, sorted(rows, key=_order))


def _order(cells: Sequence[str]) -> tuple[object, ...]:
    """The place of a row: by its kind, then by its numbers, the latency left out."""
    return (cells[0], *map(int, cells[1:-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvForm:
    """A form of these files.

    Attributes:
        needed: columns that a file must have. others: columns that it may have.
        read: the function that reads a row's layer and latency.
        write: the function that makes a file of tables.
        has_batches: whether a file may hold several batch sizes.
    """

    needed: tuple[str, ...]
    others: tuple[str, ...]
    read: Callable[[Mapping[str, str]], tuple[LayerSpec, Found]]
    write: Callable[[Sequence[LatencyTable]], bytes]
    has_batches: bool


CSV_FORMS: dict[str, CsvForm] = {
    "plain": CsvForm(
        needed=_NEEDED,
        others=tuple(column for column in PLAIN_COLUMNS if column not in _NEEDED),
        read=read_plain,
        write=_plain,
        has_batches=False,
    ),
    "convolutions": CsvForm(
        needed=CONVOLUTION_COLUMNS, others=(), read=read_convolution, write=_convolutions, has_batches=True
    ),
}
"""The forms by name. A form of your own is one more row."""
