"""The metrics of a run's trainings: JSON lines without a schema, one for each epoch and pruning step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from halp_trt.errors import ArtefactError
from halp_trt.specs import TrainingRow
from halp_trt.store.codec import decode, encode
from halp_trt.store.files import append_text, write_text
from halp_trt.store.json_text import parse_json
from halp_trt.store.lines import is_json
from halp_trt.store.reading import LINES_BYTES, read_bytes
from halp_trt.store.schema import damaged

__all__ = ["append_metrics", "read_metrics", "write_metrics"]


def append_metrics(path: str | Path, row: TrainingRow) -> None:
    """Adds a row to the metrics, or starts them.

    Raises:
        ArtefactError: the file cannot be written.
    """
    append_text(path, _line(row))


def write_metrics(path: str | Path, rows: Sequence[TrainingRow]) -> None:
    """Replaces the metrics.

    Raises:
        ArtefactError: the file cannot be written.
    """
    write_text(path, "".join(_line(row) for row in rows))


def _line(row: TrainingRow) -> str:
    return json.dumps(encode(row), allow_nan=False) + "\n"


def read_metrics(path: str | Path) -> tuple[TrainingRow, ...]:
    """The rows of a run's metrics, in order; a torn last line, which an interrupted run may leave, is left out.

    Raises:
        ArtefactError: the file is missing, or a line is damaged.
    """
    lines = read_bytes(path, LINES_BYTES).split(b"\n")
    while lines and not is_json(lines[-1]):
        if lines.pop():
            break
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(decode(TrainingRow, parse_json(line)))
        except ArtefactError as error:
            raise damaged(path, error, "remove the line", number) from error
    return tuple(rows)
