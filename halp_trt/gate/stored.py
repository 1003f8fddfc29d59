"""Baselines that are known from their record alone: how far processes of another hour may lie off.

Processes that follow each other share the hour: temperature, neighbours, the clock's mood. What a record says is
therefore less certain than its processes show, unless it was taken at several times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

from halp_trt.errors import ArtefactError
from halp_trt.gate.record import ProcessTiming, Series
from halp_trt.gate.rule import stored_floor

__all__ = ["floor_of", "log_latency", "stored_logs"]

_APART = timedelta(hours=1)
"""The least time between two series that count as two."""
_FEWEST_TIMES = 3
"""Times at which a baseline must have been taken for its own spread to say how far another hour lies off."""
_FLOOR_ALONE = 0.03
"""The share that another hour may lie off where no reference shows the machine's speed."""


def stored_logs(series: Sequence[Series], reference: str | None) -> list[float]:
    """For each recorded process the log-ratio of the engine to the reference, or the logarithm of its latency.

    Args:
        series: the record.
        reference: the reference's name in the record; None without one.
    """
    processes = [process for one in series for process in one.processes]
    if reference is None:
        return [log_latency(process) for process in processes]
    return [process.log_ratios[reference] for process in processes if reference in process.log_ratios]


def log_latency(process: ProcessTiming) -> float:
    """The logarithm of an engine's median latency in microseconds."""
    return math.log(max(process.engine.latency_us, 1e-3))


def floor_of(series: Sequence[Series], reference: str | None) -> tuple[float, str]:
    """The share by which bounds against a record are widened, and the reason in words.

    Raises:
        ArtefactError: a date in the record is none.
    """
    if reference is None:
        return _FLOOR_ALONE, "no reference shows the machine's speed at both times"
    times = [group for group in _times(series) if stored_logs(group, reference)]
    floor = stored_floor([stored_logs(group, reference) for group in times])
    if len(times) < _FEWEST_TIMES:
        words = "twice" if len(times) == 2 else "once"
        return floor, f"the baseline was timed {words} only; save it at {_FEWEST_TIMES} times, an hour apart"
    return floor, "another hour may differ from those of the record"


def _times(series: Sequence[Series]) -> list[list[Series]]:
    """The series by the time they were taken: those less than an hour apart belong together."""
    groups: list[list[Series]] = []
    ordered = sorted(series, key=lambda one: _date(one.started))
    for one in ordered:
        if groups and _date(one.started) - _date(groups[-1][0].started) < _APART:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _date(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise ArtefactError(f"the record names the time {text!r}, which is no date; save the baseline again") from error
    if found.tzinfo is None:
        raise ArtefactError(f"the record names the time {text!r} without its zone; save the baseline again")
    return found
