"""Files of JSON lines that grow: a schema in the first line, whole lines alone, one process after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from halp_trt.errors import ArtefactError
from halp_trt.store.files import file_error
from halp_trt.store.json_text import parse_json
from halp_trt.store.locks import wait_for
from halp_trt.store.places import real_place
from halp_trt.store.schema import damaged
from halp_trt.store.temporary import write_durably

__all__ = ["append_lines", "is_json", "line_of", "parse_line", "read_lines", "schema_in", "without_torn_end"]

_Value = TypeVar("_Value")


def append_lines(path: str | Path, data: bytes, *, start: bytes | None = None) -> None:
    """Adds lines to a file; they are on the disk when it returns. A torn last line is cut off first.

    Processes that add to one file at the same time wait for each other, so that none writes into another's lines.

    Args:
        path: the file.
        data: whole lines.
        start: lines that a file without any begins with, which is then made if it is missing; None refuses that.

    Raises:
        ArtefactError: the file is missing or cannot be written.
    """
    path = Path(path)
    try:
        place = real_place(path)
        if start is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | (os.O_CREAT if start is not None else 0)
        with open(os.open(place, flags, 0o666), "r+b") as file:
            wait_for(file.fileno())
            end, sound = file.seek(0, os.SEEK_END), _sound_length(file)
            if file.seek(sound) < end:
                file.truncate()
            write_durably(file, data if sound else (start or b"") + data)
    except OSError as error:
        raise file_error(path, "write", error) from error


def schema_in(line: bytes) -> str | None:
    """The schema named in a file's first line; None where it names none."""
    header = parse_line(line)
    schema = header.get("schema") if isinstance(header, dict) else None
    return schema if isinstance(schema, str) else None


def line_of(value: object) -> bytes:
    """A value as one line."""
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def parse_line(line: bytes) -> Any:
    """The value in a line; None where it is no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def is_json(line: bytes) -> bool:
    """True if a line is whole JSON."""
    return parse_line(line) is not None


def without_torn_end(lines: Sequence[bytes]) -> tuple[list[bytes], bool]:
    """The lines of a file without the one that an interrupted process may leave at its end; True if there was one."""
    whole, is_torn = list(lines), False
    while whole and not is_torn and not is_json(whole[-1]):
        is_torn = bool(whole.pop())
    return whole, is_torn


def read_lines(
    path: str | Path, lines: Sequence[bytes], convert: Callable[[Any], _Value], *, start: int = 1, advice: str
) -> tuple[_Value, ...]:
    """The values of lines, in order.

    Args:
        path: the file that they are of, for the error.
        lines: the lines.
        convert: makes a value of a line's JSON.
        start: the number of the first line.
        advice: what to do about a damaged line.

    Raises:
        ArtefactError: a line is damaged.
    """
    values = []
    for number, line in enumerate(lines, start=start):
        try:
            values.append(convert(parse_json(line)))
        except ArtefactError as error:
            raise damaged(path, error, advice, number) from error
    return tuple(values)


def _sound_length(file: IO[bytes]) -> int:
    """The number of bytes of a file that are whole lines."""
    end = file.seek(0, os.SEEK_END)
    start, tail = end, b""
    while start > 0 and tail.count(b"\n") < 2:
        start = max(0, start - (1 << 16))
        file.seek(start)
        tail = file.read(end - start)
    whole = tail.rfind(b"\n") + 1
    last = tail.rfind(b"\n", 0, max(whole - 1, 0)) + 1
    return start + (whole if is_json(tail[last:whole]) else last)
