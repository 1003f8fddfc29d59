"""The gate: engines and their baselines take turns in fresh processes, and after each look the rule is asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from halp_trt.errors import ArtefactError
from halp_trt.gate import Baseline, BenchResult, Rule, check_comparable, decide
from halp_trt.runtimes import get_runtime, traits_of
from halp_trt.store import sha256_file
from halp_trt.workflows.bench.baseline import BaselineFile, Record
from halp_trt.workflows.bench.engines import Contender
from halp_trt.workflows.bench.process import TimeIsUpError, factory_of, run_process
from halp_trt.workflows.bench.trial import Trial
from halp_trt.workflows.bench.worker import ENGINE, REFERENCE, Findings, Job

__all__ = ["Outcome", "Terms", "bench"]

_PROCESS_SECONDS = 1.0
"""Time for timing in one process."""


def _silent(done: int, total: int, note: str) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of a gate.

    Attributes:
        rule: its limits.
        seconds: time for the whole of it, though models are built and one process of every engine is run in any case,
            and two where it may become a baseline; None for as long as it takes.
        started: the moment from which the time counts, of ``time.monotonic``; None for that of the call.
        process_seconds: time for timing in each process.
        allowed: facts that may differ from the baseline's: names of ``halp_trt.gate.REFUSED``.
        keeps: whether the engines may become baselines.
        progress: called with processes run, processes until the next look, and what is known.
    """

    rule: Rule = field(default_factory=Rule)
    seconds: float | None = None
    started: float | None = None
    process_seconds: float = _PROCESS_SECONDS
    allowed: Collection[str] = ()
    keeps: bool = False
    progress: Callable[[int, int, str], None] = _silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of a gate.

    Attributes:
        result: the answers.
        records: the engines as they could become baselines, by name.
    """

    result: BenchResult
    records: Mapping[str, Record]


class _Clock:
    """The time of the gate: how much is left, and whether another process fits in."""

    def __init__(self, terms: Terms) -> None:
        self._seconds, self._longest = terms.seconds, 0.0
        self._started = time.monotonic() if terms.started is None else terms.started

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def run(self, job: Job, *, is_needed: bool = True) -> Findings:
        """Does a job in a fresh process.

        Args:
            job: the work.
            is_needed: whether it is done even if the time is up: without it there would be no answer at all.

        Raises:
            TimeIsUpError: the time is up, or would be.
        """
        left = None if self._seconds is None or is_needed else self._seconds - self.spent
        if left is not None and left <= self._longest:
            raise TimeIsUpError("the time is up")
        before = self.spent
        found = run_process(job, left)
        if job.seconds:
            self._longest = max(self._longest, self.spent - before)
        return found


def bench(
    contenders: Sequence[Contender],
    terms: Terms,
    folder: Path,
    baselines: BaselineFile | None = None,
    kept_in: BaselineFile | None = None,
) -> Outcome:
    """Judges engines against their baselines, or times them where there are none.

    Args:
        contenders: the engines, or models to build engines of.
        terms: limits and time.
        folder: a folder for what is built, which must live as long as the outcome's records.
        baselines: the baselines to compare with; None to time the engines alone.
        kept_in: the file that the engines will be added to, whose references they take turns with; None for none.

    Raises:
        UsageError: a baseline is missing or cannot be compared, or an engine cannot be added to ``kept_in``.
        HalpError: an engine does not load or cannot be timed.
    """
    clock = _Clock(terms)
    trials = []
    for one in contenders:
        trials.append(_opened(one, baselines, kept_in, terms, clock, folder))
        if kept_in is not None:
            kept_in.check_free(one.name, [build.sha256 for build in trials[-1].builds], trials[-1].setup.target)
    _run_looks(trials, terms, clock)
    result = BenchResult(engines=tuple(one.result(terms.rule) for one in trials), seconds=round(clock.spent, 1))
    return Outcome(result=result, records={one.name: _record_of(one, terms.rule) for one in trials})


# ---- opening -------------------------------------------------------------------------------------------------------


def _job(contender: Contender, engines: Mapping[str, Path], seconds: float = 0.0) -> Job:
    return Job(
        runtime=contender.runtime,
        make=factory_of(contender.runtime),
        traits=traits_of(contender.runtime) if factory_of(contender.runtime) else None,
        precision=contender.precision,
        batch=contender.batch,
        optimization_level=contender.optimization_level,
        shapes=contender.shapes,
        engines={name: str(path) for name, path in engines.items()},
        seconds=seconds,
    )


def _opened(
    named: Contender,
    file: BaselineFile | None,
    kept_in: BaselineFile | None,
    terms: Terms,
    clock: _Clock,
    folder: Path,
) -> Trial:
    """An engine that loads, with those of its baselines that load; nothing is timed yet.

    Raises:
        UsageError: there is no baseline of its name, or it cannot be compared with this engine.
        HalpError: it does not load.
    """
    kept = file.of(named.name) if file else {}
    copies, missing = _copies(file, kept) if file else ({}, {})
    if file is None and kept_in is not None and named.name in kept_in.baselines.engines:
        found_there, _ = _copies(kept_in, kept_in.of(named.name))
        copies = {name: path for name, path in found_there.items() if name == REFERENCE}
    builds = _built(named, folder, clock) if named.num_builds else (named,)
    contender = builds[0]
    found = clock.run(_job(contender, {ENGINE: contender.path, **copies}))
    assert found.setup is not None, "a worker without an error has found it"
    setup = replace(
        found.setup,
        formats=contender.formats,
        onnx_sha256=contender.onnx_sha256,
        timing_cache_sha256=contender.timing_cache_sha256,
        process_seconds=terms.process_seconds,
    )
    suspects = {name: check_comparable(one.setup, setup, terms.allowed) for name, one in kept.items()}
    loaded = {name: path for name, path in copies.items() if name not in found.not_loaded}
    reference = loaded.pop(REFERENCE, None) or _make_reference(contender, folder, clock)
    return Trial(
        builds=builds,
        setup=setup,
        baselines=kept,
        paired=loaded,
        missing={**missing, **found.not_loaded},
        reference=reference,
        reference_sha256=sha256_file(reference),
        suspects=suspects,
    )


def _built(model: Contender, folder: Path, clock: _Clock) -> tuple[Contender, ...]:
    """Engines of one model, each built in a fresh process."""
    builds = []
    for number in range(model.num_builds):
        path = folder / f"{model.name.replace('/', '-')}-{number}{get_runtime(model.runtime).suffix}"
        clock.run(replace(_job(model, {ENGINE: path}), build=str(model.path)))
        builds.append(replace(model, path=path, sha256=sha256_file(path), num_bytes=path.stat().st_size, num_builds=0))
    return tuple(builds)


def _copies(file: BaselineFile, kept: Mapping[str, Baseline]) -> tuple[dict[str, Path], dict[str, str]]:
    """The copies of the baselines' engines and of the newest one's reference, and why others cannot be used."""
    named = {name: (one.file, one.sha256) for name, one in kept.items()}
    named[REFERENCE] = (kept["newest"].reference_file, kept["newest"].reference_sha256)
    paths: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name, (copy, sha256) in named.items():
        try:
            paths[name] = file.copy_of(copy, sha256)
        except ArtefactError as error:
            missing[name] = str(error)
    return paths, missing


def _make_reference(contender: Contender, folder: Path, clock: _Clock) -> Path:
    """The reference of a runtime, built once."""
    path = folder / f"{contender.runtime}-reference{get_runtime(contender.runtime).suffix}"
    if not path.exists():
        clock.run(replace(_job(contender, {ENGINE: contender.path, REFERENCE: path}), make_reference=True))
    return path


# ---- looks ---------------------------------------------------------------------------------------------------------


def _run_looks(trials: Sequence[Trial], terms: Terms, clock: _Clock) -> None:
    """Runs processes until every engine has its answer, the last look is over or the time is up.

    One process of every engine is run in any case, two where it may become a baseline.
    """
    rule = terms.rule
    for index in range(len(rule.looks)):
        try:
            for trial in _turns(trials, index, rule):
                _run_once(trial, trials, index, terms, clock)
        except TimeIsUpError:
            _look(trials, rule, is_last=True)
            for trial in trials:
                trial.is_out_of_time = True
            return
        _look(trials, rule, is_last=index == len(rule.looks) - 1)


def _num_until(trial: Trial, index: int, rule: Rule) -> int:
    """The number of processes of an engine at a look: of several builds each has its share, at least one."""
    if len(trial.builds) == 1:
        return rule.looks[index]
    return len(trial.builds) * max(1, rule.looks[index] // rule.looks[0])


def _turns(trials: Sequence[Trial], index: int, rule: Rule) -> Iterator[Trial]:
    """The engines in turn, each until it has the processes of a look."""
    while waiting := [
        one for one in trials if not _is_done(one, rule) and len(one.processes) < _num_until(one, index, rule)
    ]:
        yield from waiting


def _is_done(trial: Trial, rule: Rule) -> bool:
    is_saved_enough = not trial.baselines and len(trial.processes) >= rule.looks[0] and trial.is_precise(rule)
    return trial.is_over or is_saved_enough


def _run_once(trial: Trial, trials: Sequence[Trial], index: int, terms: Terms, clock: _Clock) -> None:
    build = trial.next_build
    engines = {ENGINE: build.path, **trial.paired}
    if trial.reference is not None:
        engines[REFERENCE] = trial.reference
    if trial.is_turned:  # where an engine lies in memory depends on what was loaded before it
        engines = dict(reversed(engines.items()))
    num_needed = 2 if terms.keeps or not trial.baselines else 1
    found = clock.run(_job(build, engines, terms.process_seconds), is_needed=len(trial.processes) < num_needed)
    assert found.timing is not None, "a job with time for timing has a timing"
    trial.add(found.timing)
    done = sum(len(one.processes) for one in trials)
    to_come = sum(
        max(0, _num_until(one, index, terms.rule) - len(one.processes))
        for one in trials
        if not _is_done(one, terms.rule)
    )
    terms.progress(done, done + to_come, trial.present(terms.rule))


def _look(trials: Sequence[Trial], rule: Rule, *, is_last: bool) -> None:
    """Asks the rule about all engines together, since Holm's procedure is over all of them."""
    asked = {(one.name, name): found for one in trials for name, found in one.evidence().items()}
    keys = {f"{index}": key for index, key in enumerate(asked)}
    decisions = decide({text: asked[key] for text, key in keys.items()}, rule)
    for trial in trials:
        own = {keys[text][1]: found for text, found in decisions.items() if keys[text][0] == trial.name}
        trial.settle(own, is_last=is_last)


def _record_of(trial: Trial, rule: Rule) -> Record:
    contender, processes = trial.middle_build()
    return Record(
        contender=contender,
        setup=trial.setup,
        processes=processes,
        reference=trial.reference,
        known_fraction=trial.known_fraction(rule),
    )
