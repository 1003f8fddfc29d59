"""One engine on trial: its processes so far, and what they say about each of its baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from halp_trt.gate import (
    CANNOT_TELL,
    SLOWER,
    Against,
    Baseline,
    Decision,
    Difference,
    EngineResult,
    Evidence,
    ProcessTiming,
    Rule,
    Setup,
    floor_of,
    log_latency,
    said,
    stored_logs,
)
from halp_trt.workflows.bench.engines import Contender
from halp_trt.workflows.bench.worker import REFERENCE

__all__ = ["PRECISE", "Trial", "percent_of"]

PRECISE = 0.01
"""The half-width of the bounds, as a fraction, at which a baseline needs no further process."""


@dataclass(kw_only=True, eq=False)
class Trial:
    """An engine on trial. Processes are added to it; everything else follows from them.

    Attributes:
        builds: the engine, or several builds of one model; the processes take them in turn.
        setup: the circumstances.
        baselines: the baselines by name: ``newest``, ``oldest``; empty to time the engine alone.
        paired: paths of those baselines' engines that are here and load.
        missing: the reasons, in words, why others are not here or do not load, and why the newest one's ``reference``.
        reference: path of the reference.
        reference_sha256: its digest.
        suspects: for each baseline the differences between its circumstances and the present ones.
        processes: the timings, in order.
        settled: the decisions that were made, by baseline.
        disturbance: the reason why no answer would count, in words; empty if there is none.
        is_out_of_time: whether the time was up before it was over.
    """

    builds: tuple[Contender, ...]
    setup: Setup
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    paired: Mapping[str, Path] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    reference: Path | None = None
    reference_sha256: str = ""
    suspects: Mapping[str, Sequence[Difference]] = field(default_factory=dict)
    processes: list[ProcessTiming] = field(default_factory=list)
    settled: dict[str, Decision] = field(default_factory=dict)
    disturbance: str = ""
    is_out_of_time: bool = False

    @property
    def name(self) -> str:
        """The engine's name."""
        return self.builds[0].name

    @property
    def next_build(self) -> Contender:
        """The build for the next process."""
        return self.builds[len(self.processes) % len(self.builds)]

    @property
    def is_turned(self) -> bool:
        """True if the next process loads its engines in the reverse order: each build takes both orders in turn."""
        number, build = divmod(len(self.processes), len(self.builds))
        return bool((number + build) % 2)

    @property
    def is_over(self) -> bool:
        """True if no further process is needed: every baseline has its answer, or one is enough for *slower*."""
        if self.disturbance or any(one.answer == SLOWER for one in self.settled.values()):
            return True
        return bool(self.baselines) and self.settled.keys() == self.baselines.keys()

    def add(self, process: ProcessTiming) -> None:
        """Adds a process; other users of the device end the trial."""
        self.processes.append(process)
        if process.other_users:
            self.disturbance = f"other processes use the device ({process.other_users}); wait for them to end"

    def evidence(self) -> dict[str, Evidence]:
        """The numbers against every baseline without an answer, or with *within the limit*, so far."""
        return {name: self._against(name) for name in self.baselines if not self._is_slower(name)}

    def settle(self, decisions: Mapping[str, Decision], *, is_last: bool) -> None:
        """Keeps the first answer for every baseline; at the last look also that it cannot be told."""
        for name, decision in decisions.items():
            if name not in self.settled and (is_last or decision.answer != CANNOT_TELL):
                self.settled[name] = decision

    def known_fraction(self, rule: Rule) -> float | None:
        """Half the width of the bounds of the engine alone, over the reference, as a fraction; None without bounds."""
        bounds = Evidence(log_ratios=self._by_build(self._log_speeds())).interval(rule.error_of_look)
        return None if bounds.ends is None else math.expm1((bounds.high - bounds.low) / 2)

    def is_precise(self, rule: Rule) -> bool:
        """True if the engine alone, over the reference, is known well enough for a baseline."""
        known = self.known_fraction(rule)
        return known is not None and known <= PRECISE

    def middle_build(self) -> tuple[Contender, tuple[ProcessTiming, ...]]:
        """The build of median speed, and its processes."""
        if len(self.builds) == 1:
            return self.builds[0], tuple(self.processes)
        means = self._by_build(self._log_speeds())
        index = int(np.argsort(means)[(len(means) - 1) // 2])
        return self.builds[index], tuple(self.processes[index :: len(self.builds)])

    def present(self, rule: Rule) -> str:
        """The present knowledge, for a bar: the ratio with its bounds, or the latency."""
        if not self.baselines:
            return f"{self.name}: {np.median([one.engine.latency_us for one in self.processes]):,.0f} us"
        bounds = self._against(next(iter(self.baselines))).interval(rule.error_of_look)
        if bounds.ends is None:
            return f"{self.name}: {percent_of(bounds.middle)}"
        return f"{self.name}: {percent_of(bounds.middle)} ({percent_of(bounds.low)} to {percent_of(bounds.high)})"

    def result(self, rule: Rule) -> EngineResult:
        """The result so far."""
        contender, _ = self.middle_build()
        bounds = Evidence(log_ratios=[log_latency(one) for one in self.processes]).interval(0.025)
        low_us, high_us = bounds.ends or (None, None)
        return EngineResult(
            name=self.name,
            sha256=contender.sha256,
            started=self.processes[0].started,
            setup=self.setup,
            num_processes=len(self.processes),
            latency_us=math.exp(bounds.middle),
            low_us=low_us,
            high_us=high_us,
            limit_fraction=rule.limit_fraction,
            against=tuple(self._result_against(name, rule) for name in self.baselines),
            reason=self._why(rule),
            doubts=tuple(dict.fromkeys(one.engine.doubt for one in self.processes if one.engine.doubt)),
        )

    # ---- one baseline

    def _is_slower(self, name: str) -> bool:
        return name in self.settled and self.settled[name].answer == SLOWER

    def _reference_in(self, baseline: Baseline) -> str | None:
        """The name under which both sides were compared with the same reference; None if they were not."""
        is_same = bool(self.reference_sha256) and baseline.reference_sha256 == self.reference_sha256
        is_timed = is_same and bool(stored_logs(baseline.series, REFERENCE))
        return REFERENCE if is_timed and all(REFERENCE in one.log_ratios for one in self.processes) else None

    def _why_stored(self, name: str) -> str:
        """The reason why a baseline's engine did not take turns, and why no reference did; empty if it did."""
        if name in self.paired:
            return ""
        baseline = self.baselines[name]
        words = [self.missing.get(name, "")]
        if self._reference_in(baseline) is None:
            why = self.missing.get(REFERENCE, "") if baseline.reference_sha256 else "the record has none"
            words.append(f"no reference took turns with both ({why or 'that of the record is another one'})")
        return "; ".join(filter(None, words))

    def _against(self, name: str) -> Evidence:
        controls = [one.control for one in self.processes]
        if name in self.paired:
            return Evidence(
                log_ratios=self._by_build([one.log_ratios[name] for one in self.processes]), controls=controls
            )
        baseline = self.baselines[name]
        reference = self._reference_in(baseline)
        now = self._log_speeds() if reference else [log_latency(one) for one in self.processes]
        return Evidence(
            log_ratios=self._by_build(now),
            controls=controls,
            stored=stored_logs(baseline.series, reference),
            floor=floor_of(baseline.series, reference)[0],
        )

    def _result_against(self, name: str, rule: Rule) -> Against:
        evidence, decision = self._against(name), self.settled.get(name)
        bounds = decision.interval if decision else evidence.interval(rule.error_of_look)
        answer = decision.answer if decision and not self.disturbance else CANNOT_TELL
        baseline = self.baselines[name]
        suspects = [str(one) for one in self.suspects.get(name, ())]
        low, high = bounds.ends or (None, None)
        least = evidence.least_shown(rule)
        if name not in self.paired:
            suspects.append(f"bounds are wider: {floor_of(baseline.series, self._reference_in(baseline))[1]}")
        return Against(
            baseline=name,
            answer=answer,
            said=said(replace(decision, answer=answer), rule) if decision else CANNOT_TELL,
            ratio=math.exp(bounds.middle),
            low=low,
            high=high,
            is_paired=name in self.paired,
            is_by_reference=name in self.paired or self._reference_in(baseline) is not None,
            why_stored=self._why_stored(name),
            floor=evidence.floor,
            least_shown_fraction=least if math.isfinite(least) else None,
            suspects=tuple(suspects),
        )

    def _why(self, rule: Rule) -> str:
        """The reason why it cannot be told; empty if it can."""
        open_ones = [one for one in self.settled.values() if one.answer == CANNOT_TELL]
        if self.disturbance or not open_ones or any(one.answer == SLOWER for one in self.settled.values()):
            return self.disturbance
        if self.is_out_of_time:
            count = f"{len(self.processes)} process{'' if len(self.processes) == 1 else 'es'}"
            return f"the time was up after {count}; give --seconds more"
        if not all(one.is_steady for one in open_ones):
            return "the machine does not give one engine the same latency twice; leave it alone, or lock its clocks"
        return (
            f"{len(self.processes)} processes leave the limit between the bounds; take a quieter machine, lock its "
            "clocks, or set another limit"
        )

    # ---- processes

    def _log_speeds(self) -> list[float]:
        """For each process the engine's latency over the reference's, or alone without one, as logarithms."""
        return [one.log_ratios.get(REFERENCE, log_latency(one)) for one in self.processes]

    def _by_build(self, values: Sequence[float]) -> list[float]:
        """The unit of the statistics: processes of a single engine, otherwise the mean over each build's processes."""
        count = len(self.builds)
        if count == 1:
            return list(values)
        return [float(np.mean(values[index::count])) for index in range(count) if values[index::count]]


def percent_of(log_ratio: float) -> str:
    """A log-ratio as a signed change in percent."""
    return f"{100 * math.expm1(min(log_ratio, 700.0)):+.1f} %"
