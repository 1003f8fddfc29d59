"""The log of a pruning run: JSON lines without a schema, one for each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError
from halp_trt.specs import Count, Microseconds, NonNegative
from halp_trt.store.codec import decode
from halp_trt.store.lines import read_lines, without_torn_end
from halp_trt.store.reading import LINES_BYTES, read_bytes

__all__ = ["read_steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _StepRow:
    """The keys that a line may have, and their types; the run's ledger says what they mean."""

    step: Count | None = None
    budget_us: Microseconds | None = None
    latency_us: Microseconds | None = None
    dense_us: Microseconds | None = None
    value: float | None = None
    bound: float | None = None
    gap: float | None = None
    num_channels: Count | None = None
    seconds: NonNegative | None = None
    removed_blocks: tuple[str, ...] | None = None
    measured_dense_us: Microseconds | None = None
    measured_us: Microseconds | None = None
    others: tuple[tuple[Microseconds, Microseconds, Microseconds], ...] | None = None
    loss: float | None = None
    resources: Mapping[str, NonNegative] | None = None
    candidates: tuple[tuple[str, float | None], ...] | None = None
    repaired_by: Count | None = None
    distance_before: NonNegative | None = None
    distance_after: NonNegative | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Others:
    """Keys of another version, or a user's own: plain values, to be shown."""

    keys: Mapping[str, str | bool | float | tuple[str | float, ...] | None]


def read_steps(path: str | Path) -> tuple[Mapping[str, Any], ...]:
    """The records of a log, in order; a torn last line, which an interrupted run may leave, is left out.

    Raises:
        ArtefactError: the file is missing, or a line is damaged.
    """
    lines, _ = without_torn_end(read_bytes(path, LINES_BYTES).split(b"\n"))
    return read_lines(path, lines, _record, advice="run prune again")


def _record(line: Any) -> Mapping[str, Any]:
    try:
        record = decode(dict, line)
        known = {key: value for key, value in record.items() if key in _StepRow.__dataclass_fields__}
        decode(_StepRow, known)
        decode(_Others, {"keys": {key: value for key, value in record.items() if key not in known}})
    except ArtefactError as error:
        words = str(error).replace(_StepRow.__name__, "the record").replace(_Others.__name__, "the record")
        raise type(error)(words) from error
    return record
