"""The history of the throughput gate: JSON lines, one for each result, that grow with every run of the gate."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from halp_trt.gate import EngineResult, History
from halp_trt.store.codec import decode, encode
from halp_trt.store.lines import append_lines, line_of, read_lines, schema_in, without_torn_end
from halp_trt.store.reading import LINES_BYTES, read_bytes
from halp_trt.store.schema import schema_of, wrong_schema

__all__ = ["HISTORY_KIND", "append_history", "read_history"]

HISTORY_KIND = "history"


def append_history(path: str | Path, results: Sequence[EngineResult]) -> None:
    """Adds results to a history, or starts one; they are on the disk when it returns.

    Raises:
        ArtefactError: the file is something else, or cannot be written.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size:
        found = schema_in(read_bytes(path, LINES_BYTES).partition(b"\n")[0])
        if found != schema_of(HISTORY_KIND):
            raise wrong_schema(path, found, [HISTORY_KIND])
    lines = b"".join(line_of(encode(one)) for one in results)
    append_lines(path, lines, start=line_of({"schema": schema_of(HISTORY_KIND)}))


def read_history(path: str | Path) -> History:
    """A whole history; a torn last line, as a killed gate may leave it, is dropped with a warning.

    An empty file is a history that has not begun.

    Raises:
        ArtefactError: the file is missing, of another schema, or damaged before its last line.
    """
    data = read_bytes(path, LINES_BYTES)
    if not data:
        return History(results=())
    first, *lines = data.split(b"\n")
    if schema_in(first) != schema_of(HISTORY_KIND):
        raise wrong_schema(path, schema_in(first), [HISTORY_KIND])
    lines, is_torn = without_torn_end(lines)
    if is_torn:
        warnings.warn(f"{path}: dropped a torn last line", stacklevel=2)
    results = read_lines(path, lines, lambda line: decode(EngineResult, line), start=2, advice="remove the line")
    return History(results=results)
