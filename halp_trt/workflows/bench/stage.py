"""The verb ``bench`` as one call: engines found, judged, kept as baselines and written into a history."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from halp_trt.errors import UsageError
from halp_trt.gate import FASTER, REFUSED, SAME, BenchResult, EngineResult
from halp_trt.store import append_history, check_writable, hold, read_history
from halp_trt.workflows.bench.baseline import BaselineFile, Record
from halp_trt.workflows.bench.engines import Wish, find_engines, find_model
from halp_trt.workflows.bench.gate import Outcome, Terms, bench

__all__ = ["BenchRequest", "run_bench"]

_FEWEST_PROCESSES = 2
"""Processes of a baseline, at least: one says nothing of their scatter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """The wishes of a command line.

    Attributes:
        engines: engines, each ``PATH`` or ``NAME=PATH``.
        model: an ONNX model to build and judge, likewise; empty for none.
        num_builds: the number of times that it is built.
        wish: runtime, precision, batch and shapes.
        baseline: the file of baselines to compare with; None to time alone.
        save: the file of baselines to add the engines to; None for none.
        updates: whether engines that are the same or faster become the newest baselines.
        accept: the reason for accepting the engines whatever the answer; empty to accept none.
        history: the history to add the results to; None for none.
        outputs: further files that will be written.
    """

    engines: Sequence[str] = ()
    model: str = ""
    num_builds: int = 1
    wish: Wish = field(default_factory=Wish)
    baseline: Path | None = None
    save: Path | None = None
    updates: bool = False
    accept: str = ""
    history: Path | None = None
    outputs: Sequence[Path] = ()

    def check(self, terms: Terms) -> None:
        """Refuses, before anything is timed, wishes that contradict each other, and files that cannot be written.

        Raises:
            UsageError: the wishes make no sense together.
            ArtefactError: a file cannot be written.
        """
        if not self.engines and not self.model:
            raise UsageError("no engine is named; name a .plan, an .onnx or a run's folder, or a model with --onnx")
        if self.num_builds > 1 and not self.model:
            raise UsageError("--builds is for a model that is built here; name it with --onnx")
        if self.num_builds == 2:
            raise UsageError("two builds say too little about a third; give --builds 3 or more")
        if (self.updates or self.accept) and self.baseline is None:
            raise UsageError("--update and --accept change the file of --baseline; name it")
        if self.save is not None and self.save == self.baseline and (self.updates or self.accept):
            raise UsageError("--save and --update or --accept change the same file; give one of them")
        if unknown := sorted(set(terms.allowed) - REFUSED.keys()):
            raise UsageError(f"--allow knows {', '.join(REFUSED)}, not {unknown[0]!r}; choose one of them")
        for path in (*self.changed, *self.outputs):
            check_writable(path)
        kept = [path for path in (self.baseline, self.save) if path is not None]
        reports = [path for path in (self.history, *self.outputs) if path is not None]
        for index, path in enumerate(reports):
            check_writable(path, *kept, *reports[:index])
        if self.history is not None and self.history.exists():
            read_history(self.history)

    @property
    def changed(self) -> list[Path]:
        """The files that are read and written: baselines and history."""
        updated = self.baseline if self.updates or self.accept else None
        return [path for path in (updated, self.save, self.history) if path is not None]


def run_bench(request: BenchRequest, terms: Terms) -> BenchResult:
    """Judges engines, keeps baselines where that was asked for, and adds the results to the history.

    Raises:
        UsageError: the wishes make no sense, or engine and baseline cannot be compared.
        ArtefactError: a file is missing, damaged or cannot be written.
        InUseError: another process changes a file of baselines or the history.
        HalpError: an engine does not load or cannot be timed.
    """
    request.check(terms)
    with hold(*request.changed, *request.outputs):
        return _run(request, terms)


def _run(request: BenchRequest, terms: Terms) -> BenchResult:
    file = BaselineFile.read(request.baseline) if request.baseline else None
    target = BaselineFile.begin(request.save) if request.save else None
    contenders = list(find_engines(request.engines, request.wish))
    if request.model:
        contenders.append(find_model(request.model, request.num_builds, request.wish))
    for path in (*request.changed, *request.outputs):
        check_writable(path, *(one.path for one in contenders))
    with tempfile.TemporaryDirectory(prefix="halp-trt-") as folder:
        outcome = bench(contenders, terms, Path(folder), file)
        notes: list[str] = []
        accepted: set[str] = set()
        if target is not None:
            target.saved(_undisturbed(outcome))
            notes.append(f"saved to {target.path}")
        if file is not None and (request.updates or request.accept):
            note, accepted = _update(file, outcome, request)
            notes.append(note)
    engines = tuple(
        replace(one, accepted=request.accept) if one.name in accepted and request.accept else one
        for one in outcome.result.engines
    )
    result = replace(outcome.result, engines=engines, note="; ".join(notes))
    if request.history is not None:
        append_history(request.history, result.engines)
    return result


def _undisturbed(outcome: Outcome) -> dict[str, Record]:
    """The records that may become baselines.

    Raises:
        UsageError: other processes used the device while one was taken, or one has too few processes.
    """
    for name, record in outcome.records.items():
        if len(record.processes) < _FEWEST_PROCESSES:
            raise UsageError(
                f"the time was up after a single process of {name}, which makes no baseline; give --seconds more"
            )
        users = next((one.other_users for one in record.processes if one.other_users), "")
        if users:
            raise UsageError(
                f"{name} was timed while others used the device ({users}), which makes no baseline; wait for them "
                "to end"
            )
    return dict(outcome.records)


def _update(file: BaselineFile, outcome: Outcome, request: BenchRequest) -> tuple[str, set[str]]:
    """Makes engines the newest baselines: all if a reason was given, otherwise those that are the same or faster.

    The reason stays with those alone that need one; the others keep their oldest baseline.

    Returns:
        What became of the file, in words, and the names of the engines that the reason is for.
    """
    results = {one.name: one for one in outcome.result.engines}
    names = {name for name, one in results.items() if request.accept or _may_follow(one)}
    excused = {name for name in names if not _may_follow(results[name])}
    records = {name: replace(outcome.records[name], reason=request.accept if name in excused else "") for name in names}
    if request.accept:
        _undisturbed(outcome)
    if records:
        file.updated(records)
    left = sorted(results.keys() - names)
    kept = f"{', '.join(left)} kept its baseline: it is not the same or faster" if left else ""
    updated = f"{', '.join(sorted(names))} became the newest baseline in {file.path}" if names else ""
    return "; ".join(part for part in (updated, kept) if part), excused


def _may_follow(result: EngineResult) -> bool:
    """True if an engine is the same as every baseline of its name, or faster."""
    return all(one.said in (FASTER, SAME) for one in result.against)
