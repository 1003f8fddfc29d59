"""The values of the gate: timings of fresh processes, baselines, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated

from halp_trt.errors import UsageError
from halp_trt.gate.rule import ANSWERS, WITHIN
from halp_trt.gate.setup import Setup
from halp_trt.specs import Bounds, Count, Distance, Measurement, Microseconds, NonNegative

__all__ = [
    "Against",
    "Baseline",
    "Baselines",
    "BenchResult",
    "EngineResult",
    "History",
    "Kept",
    "ProcessTiming",
    "Series",
]

LogRatio = Annotated[float, Bounds(least=-300.0, most=300.0)]
"""The logarithm of a ratio of latencies, whose exponential is a number."""
_MOST_BOUND = 1e100
"""The largest bound that a file holds; what is beyond it says that nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessTiming:
    """The timings of one fresh process, in which engines took turns.

    Attributes:
        started: date and time of its start, in UTC, as ISO 8601.
        boot: identifier of the machine's start; it changes when the machine is started anew.
        engine, reference: latency of the engine, and of the fixed network that shows the machine's speed.
        log_ratios: logarithm of the engine's latency over that of another which took turns with it, by the other's
            name: ``reference``, ``newest`` or ``oldest`` (a baseline's engine).
        control: log-ratio of the engine to the one that it is compared with (the first of ``newest``, ``oldest``,
            ``reference`` that took turns), from every second part of the process, less that from the parts between.
        other_users: other processes that used the device, in words; empty if there were none, or if nothing tells.
    """

    started: str
    boot: str
    engine: Measurement
    reference: Measurement | None = None
    log_ratios: Mapping[str, LogRatio] = field(default_factory=dict)
    control: LogRatio = 0.0
    other_users: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_ratios", MappingProxyType(dict(self.log_ratios)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Processes that followed each other.

    Attributes:
        processes: their timings, in order.
    """

    processes: tuple[ProcessTiming, ...]

    def __post_init__(self) -> None:
        if not self.processes:
            raise UsageError("a series of timings has at least one process")

    @property
    def started(self) -> str:
        """The start of the first process."""
        return self.processes[0].started


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One engine as a baseline.

    Attributes:
        sha256, num_bytes: digest and size of the engine.
        setup: the circumstances of its timings.
        series: its timings, one series for each time that it was saved.
        file, reference_file: paths of the copies of the engine and of the reference, relative to the baseline's file;
            empty where no copy was kept.
        reference_sha256: digest of the reference.
        reason: the reason for accepting it although it was slower; empty if it was not.
        version: version of halp-trt that took the timings.
    """

    sha256: str
    num_bytes: Count
    setup: Setup
    series: tuple[Series, ...]
    file: str = ""
    reference_file: str = ""
    reference_sha256: str = ""
    reason: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        if not self.series:
            raise UsageError("a baseline has at least one series of timings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The baselines of one engine's name.

    Attributes:
        newest: the last one.
        oldest: the first one since a slowdown was accepted; None if it is the newest. It keeps ten slowdowns of 2 %
            from passing one by one.
    """

    newest: Baseline
    oldest: Baseline | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """A file of baselines.

    Attributes:
        engines: the baselines by the engine's name.
    """

    engines: Mapping[str, Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "engines", MappingProxyType(dict(self.engines)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """An engine against one baseline.

    Attributes:
        baseline: ``newest`` or ``oldest``.
        answer: one of ``halp_trt.gate.rule.ANSWERS``.
        said: the answer in words, such as ``faster``.
        ratio, low, high: the engine's latency over the baseline's and its bounds, each of which errs by the look's
            share of the error; both bounds are None where nothing is known of them, as from a single process.
        is_paired: whether the baseline's engine took turns with it; otherwise its record was compared.
        is_by_reference: whether that was through a reference that took turns with both; otherwise the latency in the
            record was compared as it is.
        why_stored: the reason why the record was compared, and why not through a reference where that is so; empty if
            the baseline's engine took turns.
        floor: fraction by which the bounds are widened.
        least_shown_fraction: the least slowdown that these processes call slower in nine of ten cases; None if there
            is none, 0 if it is unknown.
        suspects: differences between the baseline's circumstances and the present ones, in words.
    """

    baseline: str
    answer: str
    said: str
    ratio: Distance
    low: Distance | None
    high: Distance | None
    is_paired: bool = True
    is_by_reference: bool = True
    why_stored: str = ""
    floor: NonNegative = 0.0
    least_shown_fraction: Distance | None = 0.0
    suspects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.answer not in ANSWERS:
            raise UsageError(f"an answer is one of {', '.join(ANSWERS)}, got {self.answer!r}")
        for name, bound in zip(("low", "high"), _known(self.low, self.high), strict=True):
            object.__setattr__(self, name, bound)
        if self.least_shown_fraction is not None and not self.least_shown_fraction < _MOST_BOUND:
            object.__setattr__(self, "least_shown_fraction", None)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Both bounds; None where nothing is known of them."""
        return None if self.low is None or self.high is None else (self.low, self.high)


def _known(low: float | None, high: float | None) -> tuple[float, float] | tuple[None, None]:
    """Two bounds as they are, or twice None where they are none that a latency or a ratio can have."""
    if low is None or high is None or not 0 < low <= high < _MOST_BOUND:
        return None, None
    return low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """The result of one engine.

    Attributes:
        name: the engine's name.
        sha256: its digest.
        started: date and time of the first process, in UTC, as ISO 8601.
        setup: the circumstances.
        num_processes: fresh processes that were run.
        latency_us, low_us, high_us: mean over processes of the median latency, and its 95 % bounds; both are None
            where nothing is known of them, as from a single process.
        limit_fraction: the largest accepted slowdown.
        against: the comparisons; empty without a baseline.
        reason: the reason why it cannot be told, in words; empty if it can.
        doubts: reasons not to trust a process's timings, in words, each once.
        accepted: the reason for which it was accepted as the new baseline whatever the answer; empty if it was not.
    """

    name: str
    sha256: str
    started: str
    setup: Setup
    num_processes: Count
    latency_us: Microseconds
    low_us: NonNegative | None
    high_us: NonNegative | None
    limit_fraction: NonNegative = 0.0
    against: tuple[Against, ...] = ()
    reason: str = ""
    doubts: tuple[str, ...] = ()
    accepted: str = ""

    def __post_init__(self) -> None:
        is_alone = self.num_processes < 2
        known = (None, None) if is_alone else _known(self.low_us, self.high_us)
        for name, bound in zip(("low_us", "high_us"), known, strict=True):
            object.__setattr__(self, name, bound)

    @property
    def bounds_us(self) -> tuple[float, float] | None:
        """Both bounds of the latency; None where nothing is known of them."""
        return None if self.low_us is None or self.high_us is None else (self.low_us, self.high_us)

    @property
    def answer(self) -> str:
        """The worst answer of all comparisons; *within the limit* without any."""
        return min((one.answer for one in self.against), key=ANSWERS.index, default=WITHIN)

    @property
    def worst(self) -> Against | None:
        """The comparison that decides: the worst answer, of several the greatest ratio; None without a baseline."""
        return min(self.against, key=lambda one: (ANSWERS.index(one.answer), -one.ratio), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """The result of a gate.

    Attributes:
        engines: the engines' results.
        seconds: time that it took.
        note: what became of the baseline's file, in words.
        unwritten: what could not be written although the engines were timed, in words, with the reasons.
    """

    engines: tuple[EngineResult, ...]
    seconds: NonNegative = 0.0
    note: str = ""
    unwritten: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The worst answer of all engines that were not accepted."""
        return min((one.answer for one in self.engines if not one.accepted), key=ANSWERS.index, default=WITHIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The results of gates over time.

    Attributes:
        results: the results, in order.
    """

    results: tuple[EngineResult, ...]
