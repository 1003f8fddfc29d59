"""Engines that were timed as baselines: which of them may become one, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from halp_trt.errors import HalpError, UsageError
from halp_trt.gate import FASTER, SAME, BenchResult, EngineResult
from halp_trt.workflows.bench.baseline import BaselineFile, Record
from halp_trt.workflows.bench.gate import Outcome
from halp_trt.workflows.bench.trial import PRECISE

__all__ = ["kept", "widths"]

_FEWEST_PROCESSES = 2
"""Processes of a baseline, at least: one says nothing of their scatter."""
_WIDEST = 1.0
"""Half the width of bounds, as a fraction, from which on they say nothing that is worth a number."""


def kept(
    outcome: Outcome, target: BaselineFile | None, file: BaselineFile | None, *, updates: bool, accept: str
) -> BenchResult:
    """The result, with what became of the files of baselines; what could not be kept is told beside it.

    Args:
        outcome: the outcome of the gate.
        target: the file of baselines to add the engines to; None for none.
        file: the file of baselines that they were compared with; None for none.
        updates: whether engines that are the same or faster become the newest ones in ``file``.
        accept: the reason for which all do; empty for none.
    """
    notes: list[str] = []
    unwritten: list[str] = []
    accepted: set[str] = set()
    if target is not None:
        try:
            target.saved(_undisturbed(outcome.records))
            notes.append(f"saved to {target.path}: {widths(outcome.records)}")
        except HalpError as error:
            unwritten.append(f"nothing was saved to {target.path}: {error}")
    if file is not None and (updates or accept):
        try:
            note, accepted = _update(file, outcome, accept)
            notes.append(note)
        except HalpError as error:
            unwritten.append(f"{file.path} stays as it was: {error}")
    engines = tuple(replace(one, accepted=accept) if one.name in accepted else one for one in outcome.result.engines)
    return replace(outcome.result, engines=engines, note="; ".join(notes), unwritten=tuple(unwritten))


def _undisturbed(records: Mapping[str, Record]) -> dict[str, Record]:
    """The records, which may become baselines.

    Raises:
        UsageError: other processes used the device while one was taken, or one has too few processes.
    """
    for name, record in records.items():
        users = next((one.other_users for one in record.processes if one.other_users), "")
        if users:
            raise UsageError(
                f"{name} was timed while others used the device ({users}), which makes no baseline; wait for them "
                "to end"
            )
        if len(record.processes) < _FEWEST_PROCESSES:
            raise UsageError(
                f"the time was up after a single process of {name}, which makes no baseline; give --seconds more"
            )
    return dict(records)


def widths(records: Mapping[str, Record]) -> str:
    """The widths of the bounds that records know their engines by, in words, and what to do about wide ones."""
    parts, is_wide = [], False
    for name, record in records.items():
        known, number = record.known_fraction, len(record.processes)
        is_wide |= known is None or known > PRECISE
        width = f"to {100 * known:.1f} %" if known is not None and known < _WIDEST else "to no useful width"
        parts.append(f"{name} is known {width} after {number} processes")
    if is_wide:
        parts.append(
            f"a record should be known to {100 * PRECISE:g} %, in case the engine's copy does not run one day: give "
            "--seconds more, leave the machine alone, or save again, which adds a series"
        )
    return "; ".join(parts)


def _update(file: BaselineFile, outcome: Outcome, accept: str) -> tuple[str, set[str]]:
    """Makes engines the newest baselines: all if a reason was given, otherwise those that are the same or faster.

    The reason stays with those alone that need one; the others keep their oldest baseline.

    Returns:
        What became of the file, in words, and the names of the engines that the reason is for.

    Raises:
        UsageError: as :func:`_undisturbed`.
        ArtefactError: the file cannot be written.
    """
    results = {one.name: one for one in outcome.result.engines}
    names = sorted(name for name, one in results.items() if accept or _may_follow(one))
    excused = {name for name in names if not _may_follow(results[name])}
    records = {name: replace(outcome.records[name], reason=accept if name in excused else "") for name in names}
    if records:
        file.updated(_undisturbed(records))
    again = [name for name in names if name not in excused and file.is_newest(records[name])]
    new = [name for name in names if name not in again]
    left = sorted(results.keys() - set(names))
    parts = [f"{', '.join(new)} became the newest baseline in {file.path}"] if new else []
    parts += [f"{', '.join(again)} is the newest in {file.path} already, and got a further series"] if again else []
    parts += [f"{', '.join(left)} kept its baseline: it is not the same or faster"] if left else []
    return "; ".join(parts), excused


def _may_follow(result: EngineResult) -> bool:
    """True if an engine is the same as every baseline of its name, or faster."""
    return all(one.said in (FASTER, SAME) for one in result.against)
