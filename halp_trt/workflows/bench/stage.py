"""The verb ``bench`` as one call: engines found, judged, kept as baselines and written into a history."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from halp_trt.errors import HalpError, UsageError
from halp_trt.gate import REFUSED, BenchResult
from halp_trt.interrupts import interrupts_held_back
from halp_trt.store import append_history, check_writable, hold, read_history
from halp_trt.workflows.bench.baseline import BaselineFile
from halp_trt.workflows.bench.engines import Contender, Wish, check_names, find_engines, find_model
from halp_trt.workflows.bench.gate import Terms, bench
from halp_trt.workflows.bench.keep import kept

__all__ = ["BenchRequest", "run_bench"]


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

    What cannot be written once the engines are timed is told in the result, beside the answers.

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
        check_names(contenders)
    _check_files(request, contenders, file, target)
    terms = replace(terms, keeps=bool(request.save or request.updates or request.accept))
    with tempfile.TemporaryDirectory(prefix="halp-trt-") as folder:
        outcome = bench(contenders, terms, Path(folder), file, target)
        with interrupts_held_back():  # a baseline and the copies beside it belong together
            result = kept(outcome, target, file, updates=request.updates, accept=request.accept)
    if request.history is not None:
        try:
            append_history(request.history, result.engines)
        except HalpError as error:
            result = replace(result, unwritten=(*result.unwritten, str(error)))
    return result


def _check_files(
    request: BenchRequest, contenders: Sequence[Contender], file: BaselineFile | None, target: BaselineFile | None
) -> None:
    """Refuses, before anything is timed, files that are in the way of what will be written.

    Raises:
        ArtefactError: a file would replace an engine or a copy of one, or copies cannot be written.
        UsageError: the file of baselines has another engine of a name.
    """
    copies = [copy for one in (file, target) if one is not None for copy in one.copies]
    for path in (*request.changed, *request.outputs):
        check_writable(path, *(one.path for one in contenders), *copies)
    if target is not None:
        target.check_room(contenders)
        for one in contenders:
            target.check_free(one.name, [one.sha256] if one.sha256 else [])
    if file is not None and (request.updates or request.accept):
        file.check_room(contenders)
