"""The rule of the throughput gate: from the log-ratios of fresh processes to an answer.

One process gives one number, the logarithm of the new engine's latency over the baseline's. Samples inside a process
follow each other so closely (autocorrelation 0.8 to 0.98 on GPUs) that a test on them calls an engine slower than
itself in four of ten cases; processes are independent. Student's t over processes bounds the ratio on both sides.

The gate looks at the numbers after 4, 6, 8, 12, 16, 24 and 32 processes. Every look spends the same share of the error,
so that it holds whenever the gate stops: looks see the same processes, so that the share is larger than one in seven
(Pocock). If several engines are judged, *slower* is tested by Holm's procedure over them: the chance that any of the
sound ones is called slower stays below the error. *Within the limit* needs no such care, since the gate is green only
if every engine is. ``benchmarks/gate_simulation.py`` shows what the rule does on machines of several kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from halp_trt.errors import UsageError

__all__ = [
    "ANSWERS",
    "CANNOT_TELL",
    "FASTER",
    "LOOKS",
    "SAME",
    "SLOWER",
    "WITHIN",
    "Decision",
    "Evidence",
    "Interval",
    "Rule",
    "decide",
    "said",
    "stored_floor",
]

SLOWER = "slower"
"""The answer if the engine is slower by more than the limit."""
WITHIN = "within the limit"
"""The answer if it is not."""
CANNOT_TELL = "cannot tell"
"""The answer if the numbers allow neither."""
FASTER, SAME = "faster", "same"
"""Two of the words that say more about *within the limit*."""
ANSWERS = (SLOWER, CANNOT_TELL, WITHIN)
"""All answers, the worst first."""

LOOKS = (4, 6, 8, 12, 16, 24, 32)
"""The numbers of processes at which the gate looks."""
_SHARES = (
    (0.1, 0.267),
    (0.05, 0.235),
    (0.025, 0.214),
    (0.0125, 0.199),
    (0.00625, 0.188),
    (0.0025, 0.175),
    (0.001, 0.168),
)
"""For an error of the gate, the part of it that each of ``LOOKS`` may spend.

``python benchmarks/gate_simulation.py --shares`` computes them. The parts shrink with the error, for rare errors at
several looks seldom coincide.
"""
_LEAST_LIMIT = 0.01
"""The least limit, as a fraction, by which steadiness is judged: a gate may have none."""
_LEAST_FLOOR = 0.01
"""The least floor, as a fraction, of a comparison with a record."""
_LARGEST = 200.0
"""The largest logarithm of a bound that a number, and a file, can hold; beyond it nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The limits of a gate.

    Attributes:
        limit_fraction: largest accepted slowdown, as a fraction of the baseline's latency.
        error: chance to call an engine slower that is exactly at the limit; the same chance holds for *within*.
        looks: numbers of processes at which the gate looks.
    """

    limit_fraction: float = 0.03
    error: float = 0.05
    looks: tuple[int, ...] = LOOKS

    def __post_init__(self) -> None:
        if not (math.isfinite(self.limit_fraction) and self.limit_fraction >= 0):
            raise UsageError(f"the largest slowdown is a share of at least 0, got {self.limit_fraction:.2%}")
        looks = list(self.looks)
        if not 0 < self.error < 0.5 or not looks or looks != sorted(set(looks)) or looks[0] < 2:
            raise UsageError(f"a rule has an error below a half and rising looks from 2 on, got {self}")

    @property
    def log_limit(self) -> float:
        """The limit as a log-ratio."""
        return math.log1p(self.limit_fraction)

    @property
    def error_of_look(self) -> float:
        """The error of each look."""
        return self.spent(self.error)

    def spent(self, error: float) -> float:
        """The error that each look may make for all of them together to make ``error`` at most.

        Source: S. J. Pocock, "Group sequential methods in the design and analysis of clinical trials", 1977. Differs
        from it in that the numbers come from Student's t. Other looks than ours share the error equally (Bonferroni).
        """
        parts = [part for known, part in _SHARES if known <= error] if self.looks == LOOKS else []
        return error * max(parts, default=1 / len(self.looks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Two one-sided bounds of a log-ratio, each of which errs by the error it was made for.

    Attributes:
        low, high: the bounds; infinite where nothing is known.
        middle: the estimate between them.
    """

    low: float
    middle: float
    high: float

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both bounds without the logarithm; None where nothing is known, as from a single process."""
        return (math.exp(self.low), math.exp(self.high)) if max(-self.low, self.high) <= _LARGEST else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The numbers of an engine so far.

    Attributes:
        log_ratios: for each process the log-ratio of the new engine to the baseline's engine, or to the reference
            where the baseline is known from its record alone.
        controls: for each process the same log-ratio from every second part of the process, less that from the parts
            between: 0 where the machine does not disturb one engine more than the other. An engine is called slower
            only if these are small beside its slowdown.
        stored: log-ratios of the baseline's engine to the reference, from its record; None if both took turns here.
        floor: fraction by which the bounds are widened, for what processes of one hour do not show: that of
            :func:`stored_floor` where the baseline is known from its record alone.
    """

    log_ratios: Sequence[float]
    controls: Sequence[float] = ()
    stored: Sequence[float] | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.log_ratios, *self.controls, *(self.stored or ()), self.floor)
        if not all(map(math.isfinite, numbers)) or self.floor < 0:
            raise UsageError("log-ratios are finite, and a floor is at least 0: a latency is missing or not positive")

    def interval(self, error: float) -> Interval:
        """The bounds of the ratio's logarithm, either of which is wrong with a chance of ``error``."""
        middle, deviation, freedom = self._estimate()
        if math.isinf(deviation):
            return Interval(low=-math.inf, middle=middle, high=math.inf)
        reach = self._log_floor + deviation * _quantile(1 - error, freedom)
        return Interval(low=middle - reach, middle=middle, high=middle + reach)

    def p_value(self, log_limit: float) -> float:
        """The chance of numbers such as these, or worse, if the engine were exactly at the limit."""
        middle, deviation, freedom = self._estimate()
        excess = middle - self._log_floor - log_limit
        if math.isinf(deviation):
            return 1.0
        if deviation == 0.0:
            return 0.0 if excess > 0 else 1.0
        return _tail(excess / deviation, freedom)

    def least_shown(self, rule: Rule) -> float:
        """The least slowdown, as a fraction, that so many processes this noisy call slower in nine of ten cases."""
        _, deviation, freedom = self._estimate()
        if math.isinf(deviation):
            return math.inf
        reach = deviation * (_quantile(1 - rule.error_of_look, freedom) + _quantile(0.9, freedom))
        log_ratio = rule.log_limit + self._log_floor + reach
        return math.expm1(log_ratio) if log_ratio < _LARGEST else math.inf

    def is_steady(self, rule: Rule) -> bool:
        """True if the ratio is the same all through a process, within half the limit or half the slowdown.

        What disturbs one engine more than the other for a while makes it slower on the mean, in every process alike:
        Student's t cannot see that, alternate parts of a process do. Their root mean square counts.
        """
        if len(self.controls) < 2:
            return not self.controls
        largest = max(self._estimate()[0], rule.log_limit, math.log1p(_LEAST_LIMIT)) / 2
        return math.sqrt(sum(control**2 for control in self.controls) / len(self.controls)) <= largest

    @property
    def _log_floor(self) -> float:
        return math.log1p(self.floor)

    def _estimate(self) -> tuple[float, float, float]:
        """The mean, its standard error and the degrees of freedom: Student's, or Welch's beside stored numbers."""
        mean, variance = _mean_and_variance(self.log_ratios)
        if self.stored is None:
            return mean, math.sqrt(variance), len(self.log_ratios) - 1
        stored_mean, stored_variance = _mean_and_variance(self.stored)
        total = variance + stored_variance
        if math.isinf(total) or total == 0.0:
            return mean - stored_mean, math.sqrt(total), 1
        parts = ((variance / total, len(self.log_ratios)), (stored_variance / total, len(self.stored)))
        freedom = 1 / sum(part**2 / (number - 1) for part, number in parts)
        return mean - stored_mean, math.sqrt(total), freedom


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer about one engine.

    Attributes:
        answer: one of ``ANSWERS``.
        interval: the bounds of the log-ratio at the look's error.
        is_steady: False if the ratio was not the same all through a process.
    """

    answer: str
    interval: Interval
    is_steady: bool = True


def decide(evidence: Mapping[str, Evidence], rule: Rule) -> dict[str, Decision]:
    """The answer about every engine at one look.

    An engine is *slower* if Holm's procedure rejects that it is within the limit, and *within the limit* if the upper
    bound of its ratio is. Otherwise the gate cannot tell; on a machine that is not steady no engine is called slower.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    rejected = _holm({name: one.p_value(rule.log_limit) for name, one in evidence.items()}, rule)
    decisions = {}
    for name, one in evidence.items():
        interval = one.interval(rule.error_of_look)
        is_steady = one.is_steady(rule)
        answer = CANNOT_TELL
        if interval.high <= rule.log_limit:
            answer = WITHIN
        elif name in rejected and is_steady:
            answer = SLOWER
        decisions[name] = Decision(answer=answer, interval=interval, is_steady=is_steady)
    return decisions


def said(decision: Decision, rule: Rule) -> str:
    """The answer in words, which say more where the bounds do: faster, same, or slower within the limit."""
    low, high = decision.interval.low, decision.interval.high
    if decision.answer != WITHIN:
        return decision.answer
    if high < 0:
        return FASTER
    if low > 0:
        return f"slower, {WITHIN}"
    return SAME if low >= -rule.log_limit else WITHIN


def stored_floor(series: Sequence[Sequence[float]]) -> float:
    """The floor for a baseline that is known from its record alone: 1 %, or more where its series differ more.

    The present hour's own effect on the ratio shows in none of its processes. The standard deviation of the series'
    means, once and a half, covers it where there are three of them.

    Args:
        series: for each time that the baseline was timed, its log-ratios to the reference.
    """
    means = [float(np.mean(one)) for one in series if len(one)]
    return _LEAST_FLOOR if len(means) < 3 else max(_LEAST_FLOOR, 1.5 * float(np.std(means, ddof=1)))


def _holm(p_values: Mapping[str, float], rule: Rule) -> set[str]:
    """The names whose hypotheses Holm's procedure rejects; its chance of any wrong rejection is the rule's error.

    It may look again and again: an engine that is slower at one look stays so if its numbers do.
    """
    rejected: set[str] = set()
    for name in sorted(p_values, key=lambda name: p_values[name]):
        if p_values[name] > rule.spent(rule.error / (len(p_values) - len(rejected))):
            break
        rejected.add(name)
    return rejected


def _mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    """The mean of some numbers and the variance of that mean, infinite for fewer than two."""
    if len(values) < 2:
        return (values[0] if values else 0.0), math.inf
    rest = np.asarray(values) - values[0]  # exactly 0 for equal numbers, whose mean is then the number itself
    return values[0] + float(np.mean(rest)), float(np.var(rest, ddof=1)) / len(values)


def _quantile(share: float, freedom: float) -> float:
    """The quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def _tail(value: float, freedom: float) -> float:
    """The chance that Student's t exceeds a value."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -value))
