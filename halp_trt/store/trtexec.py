"""The JSON that trtexec writes with ``--exportTimes`` and ``--exportProfile``, as TensorRT 7 to 11 have it.

It has no schema: a file is recognised by the keys of its first entries. Several arrays may follow each other in one
file, where a script let trtexec append to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError, UsageError, brief
from halp_trt.gate.trtexec import LayerProfile, LayerProfiles, QueryRun, QueryRuns, TimedLayer
from halp_trt.store.codec import decode
from halp_trt.store.json_text import parse_several, shown
from halp_trt.store.reading import JSON_BYTES

__all__ = ["is_profile_table", "profile_of_table", "read_trtexec"]

_HEAD_BYTES = 4096
_US = 1e3
"""Microseconds in one of the files' milliseconds."""
_MOST = 1e15
"""Greater numbers are none that a clock or a counter gives."""
_QUERY = b'"latencyMs"'
_LAYER = b'"averageMs"'
_STARTS = ("startH2dMs", "startInMs", "startComputeMs")
_ENDS = ("endComputeMs", "endD2hMs", "endOutMs")


def read_trtexec(path: str | Path, data: bytes) -> QueryRuns | LayerProfiles | None:
    """The queries or the layers in a file's bytes; None if trtexec did not write it.

    Raises:
        ArtefactError: trtexec wrote it, but it is cut off, or an entry lacks a time.
    """
    head = data[:_HEAD_BYTES].lstrip()
    if not head.startswith(b"[") or not (_QUERY in head or _LAYER in head):
        return None
    try:
        arrays = _arrays(data)
        if _QUERY in head:
            return QueryRuns(runs=tuple(_run(array) for array in arrays))
        return LayerProfiles(profiles=tuple(_profile(array) for array in arrays))
    except (ArtefactError, UsageError) as error:
        option = "--exportTimes" if _QUERY in head else "--exportProfile"
        raise ArtefactError(
            f"{path} looks like trtexec's {option} but is damaged ({brief(str(error))}); let trtexec write it again"
        ) from error


def is_profile_table(value: object) -> bool:
    """True if a value of JSON is a profile that was copied out of a log: names of columns, and rows of layers."""
    return isinstance(value, dict) and all(isinstance(value.get(key), list) for key in ("columns", "layers"))


def profile_of_table(value: Mapping[str, Any]) -> LayerProfiles:
    """The profile in a table of columns ``layer``, ``average_ms`` and, if it has that, ``median_ms``.

    Raises:
        ArtefactError: a column is missing, or a row lacks a time; the sentence has no path.
    """
    columns = value["columns"]
    entries = []
    for number, row in enumerate(value["layers"], start=1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ArtefactError(f"row {number} is {shown(row)}, expected a list of {len(columns)} cells")
        cells = dict(zip(map(str, columns), row, strict=True))
        names = {"name": "layer", "averageMs": "average_ms", "medianMs": "median_ms"}
        entries.append({new: cells[old] for new, old in names.items() if old in cells})
    num_runs = value.get("iterations", 0)
    try:
        return LayerProfiles(profiles=(_profile([{"count": num_runs}, *entries]),))
    except UsageError as error:
        raise ArtefactError(str(error)) from error


def _arrays(data: bytes) -> list[Sequence[Any]]:
    """The arrays that follow each other in a file."""
    if len(data) > JSON_BYTES:
        raise ArtefactError(f"it has {len(data):,} bytes, and at most {JSON_BYTES:,} are read")
    arrays = parse_several(data)
    for array in arrays:
        if not isinstance(array, list):
            raise ArtefactError(f"expected an array, found {shown(array)}")
    return arrays


def _run(array: Sequence[Any]) -> QueryRun:
    queries = [_entry(one, number) for number, one in enumerate(array, start=1)]
    starts = [key for key in _STARTS if all(key in one for one in queries)]
    ends = [key for key in _ENDS if all(key in one for one in queries)]
    seconds = None
    if queries and starts and ends:
        first = min(_number(one, key, 1) for one in queries for key in starts)
        last = max(_number(one, key, 1) for one in queries for key in ends)
        seconds = (last - first) / 1e3 if last > first else None
    has_compute = all("computeMs" in one for one in queries)
    return QueryRun(
        latencies_us=tuple(_US * _number(one, "latencyMs", number) for number, one in enumerate(queries, start=1)),
        computes_us=tuple(
            _US * _number(one, "computeMs", number) for number, one in enumerate(queries, start=1) if has_compute
        ),
        seconds=seconds,
    )


def _profile(array: Sequence[Any]) -> LayerProfile:
    num_runs, layers = 0, []
    for number, one in enumerate(array, start=1):
        entry = _entry(one, number)
        if "name" not in entry and "count" in entry:
            num_runs = max(0, int(_number(entry, "count", number)))
            continue
        layers.append(
            TimedLayer(
                name=decode(str, entry.get("name", "")),
                mean_us=_US * _number(entry, "averageMs", number),
                median_us=_US * _number(entry, "medianMs", number) if "medianMs" in entry else None,
            )
        )
    return LayerProfile(num_runs=num_runs, layers=tuple(layers))


def _entry(one: Any, number: int) -> Mapping[str, Any]:
    if not isinstance(one, dict):
        raise ArtefactError(f"entry {number} is {shown(one)}, expected an object")
    return one


def _number(entry: Mapping[str, Any], key: str, number: int) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MOST:
        raise ArtefactError(f"entry {number} has {key} {shown(value)}, expected a finite number")
    return float(value)
