"""Comma-separated values as text: comments at the top, a heading, and rows that know their number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from halp_trt.errors import ArtefactError, brief
from halp_trt.store.json_text import shown

__all__ = ["CsvText", "csv_bytes", "parse_csv"]

_COMMENT = "#"
_ENDS = "\r\n"
_RIVALS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""Other characters that programs separate cells with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvText:
    """A table as it stands in a file.

    Attributes:
        comments: lines above the heading that begin with ``#``, without it.
        columns: names in the heading.
        rows: number of the line and its cells, as many as there are columns; lines are counted from 1, as editors do.
    """

    comments: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def parse_csv(data: bytes) -> CsvText:
    """The table in some bytes; empty lines are left out.

    Raises:
        ArtefactError: they are no UTF-8, a quoted cell has no end, there is no heading, a column stands there twice, or
            a row has another number of cells; the sentence names the row, and has no path.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"byte {error.start} is not UTF-8; save it as UTF-8") from error
    comments, start = _comments(text)
    reader = csv.reader(io.StringIO(text[start:], newline=""), strict=True)
    rows: list[tuple[int, tuple[str, ...]]] = []
    number = len(comments)
    try:
        for cells in reader:
            number = len(comments) + reader.line_num
            if cells:
                rows.append((number, tuple(cells)))
    except csv.Error as error:
        raise ArtefactError(f"row {number + 1} is no line of comma-separated values ({error})") from error
    if not rows:
        raise ArtefactError("it has no heading; expected the names of its columns in the first row")
    columns = _columns(*rows[0])
    for number, row in rows[1:]:
        if len(row) != len(columns):
            raise ArtefactError(f"row {number} has {len(row)} cells, and the heading has {len(columns)}")
    return CsvText(comments=comments, columns=columns, rows=tuple(rows[1:]))


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[str]], comments: Iterable[str] = ()) -> bytes:
    """A table as bytes: comments, the heading and the rows, each on a line of its own."""
    lines = [f"{_COMMENT} {comment}\n" for comment in comments]
    lines += [_line(columns), *map(_line, rows)]
    return "".join(lines).encode()


def _line(cells: Sequence[str]) -> str:
    """A row as one line; a cell with any kind of line end in it is quoted, which the writer does for its own alone."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=_ENDS).writerow(cells)
    return text.getvalue().removesuffix(_ENDS) + "\n"


def _comments(text: str) -> tuple[tuple[str, ...], int]:
    """The comments at the top, and the place behind them."""
    comments, start = list[str](), 0
    while text.startswith(_COMMENT, start):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end + 1
        comments.append(text[start + 1 : end].strip())
        start = end
    return tuple(comments), start


def _columns(number: int, cells: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in cells)
    if len(columns) == 1 and (rival := next((char for char in _RIVALS if char in columns[0]), "")):
        raise ArtefactError(f"row {number} separates its cells with {_RIVALS[rival]}; save it with commas")
    for column in columns:
        if not column or columns.count(column) > 1:
            what = f"the column {shown(brief(column))} twice" if column else "a column without a name"
            raise ArtefactError(f"row {number}, the heading, has {what}; name each column once")
    return columns
