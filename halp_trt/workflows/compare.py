"""A comparison of engines: they take turns on the device, in parts, until the ratios of their latencies are known.

Runs that follow each other are alike: on GPUs and on shared machines the autocorrelation of neighbouring samples is 0.6
to 0.98, so that the spread of one part's samples understates the error several times. A part therefore counts as one
value, the ratio of the medians in it, and the standard error is that of the mean over parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from types import MappingProxyType

import numpy as np

from halp_trt.errors import UsageError
from halp_trt.runtimes import Array, Session
from halp_trt.runtimes.gpu_timing import PROTOCOL as GPU_PROTOCOL
from halp_trt.runtimes.gpu_timing import doubts
from halp_trt.specs import Measurement, TimingProtocol
from halp_trt.timing import (
    SHORTEST_US,
    Launch,
    Processor,
    Sample,
    as_launches,
    conditions_of,
    contention,
    pin_to_one_core,
    summarise,
    take_turns,
)

__all__ = ["Certainty", "Comparison", "compare", "compare_runs", "num_orders_of"]

_TRIAL_ROUNDS = 3
"""Rounds by which the duration of a round is found."""
_TRIAL_WARMUP = 2
"""Untimed rounds before them."""
_MIN_WARMUP = 3
"""Untimed rounds of a part, at least."""
_WARMUP_SHARE = 4
"""A quarter of a part is spent on warm-up, so that clocks have risen before the first sample counts."""
_MOST_FOR_ALL_ORDERS = 4
"""Engines up to which parts take every order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certainty:
    """The wanted precision of latency ratios, and the time that may be spent on it.

    Attributes:
        error_fraction: largest acceptable standard error of a ratio, as a share of it.
        min_parts, max_parts: parts to take; fewer than ``min_parts`` only where the time is up.
        part_seconds: duration of a part; shorter where ``max_seconds`` would not hold ``min_parts`` of them.
        max_seconds: time after which no other part is begun.
        min_rounds, max_rounds: rounds in a part, each of which runs every engine once. The upper limit matters to
            engines of microseconds alone: their speed drifts within seconds, so that more rounds tell nothing new.
    """

    error_fraction: float = 0.003
    min_parts: int = 5
    max_parts: int = 15
    part_seconds: float = 1.2
    max_seconds: float = 30.0
    min_rounds: int = 3
    max_rounds: int = 2_500

    def __post_init__(self) -> None:
        counts = (1, self.min_parts, self.max_parts), (1, self.min_rounds, self.max_rounds)
        if any(list(count) != sorted(count) for count in counts):
            raise UsageError(f"parts and rounds are at least one, and at most no fewer than at least, got {self}")
        limits = (self.error_fraction, self.part_seconds, self.max_seconds)
        if not (math.isfinite(self.part_seconds) and all(limit >= 0 for limit in limits)):
            raise UsageError(f"seconds and errors must be finite and not negative, got {self}")

    @classmethod
    def lasting(cls, seconds: float) -> Certainty:
        """Ten parts that last about ``seconds`` together, from 20 to 5,000 rounds, whatever the ratios' errors are."""
        parts = 10
        return cls(
            error_fraction=0.0,
            min_parts=parts,
            max_parts=parts,
            part_seconds=seconds / parts,
            max_seconds=math.inf,
            min_rounds=2,
            max_rounds=500,
        )

    def num_rounds(self, round_us: float) -> int:
        """Number of rounds in a part, if one takes ``round_us``."""
        seconds = min(self.part_seconds, self.max_seconds / self.min_parts)
        return int(min(self.max_rounds, max(self.min_rounds, seconds * 1e6 / max(round_us, 1.0))))

    def is_reached(self, *, num_parts: int, error: float, seconds: float) -> bool:
        """True if no part is to follow ``num_parts`` that took ``seconds`` and left ``error`` as the worst error."""
        if num_parts >= self.max_parts or seconds >= self.max_seconds:
            return True
        return num_parts >= self.min_parts and error <= self.error_fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Latencies of engines that took turns, and their ratios to the latency of one of them.

    Attributes:
        base: the engine that the others are compared with.
        measurements: the latency of every engine over all parts.
        part_medians_us: the median latency of every engine, part by part.
    """

    base: str
    measurements: Mapping[str, Measurement]
    part_medians_us: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        for name in ("measurements", "part_medians_us"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def part_ratios(self) -> Mapping[str, tuple[float, ...]]:
        """For every other engine its median latency over the base's, part by part."""
        base = self.part_medians_us[self.base]
        others = {name: medians for name, medians in self.part_medians_us.items() if name != self.base}
        return {
            name: tuple(us / base_us for us, base_us in zip(us_s, base, strict=True)) for name, us_s in others.items()
        }

    def robust_log_ratio(self, name: str) -> float:
        """The logarithm of an engine's ratio that a disturbance of few parts leaves alone.

        It is the mean over the orders in which the engines take turns of the median over an order's parts.
        """
        return float(np.median(self._blocks(name), axis=0).mean())

    def alternate_change(self, name: str) -> float:
        """The same logarithm from every second block of parts, less that from the blocks between.

        It is 0 where nothing disturbs one engine more than the other. A block has every order of the engines once.
        """
        blocks = self._blocks(name).mean(axis=1)
        return float(np.median(blocks[1::2]) - np.median(blocks[::2])) if len(blocks) > 1 else 0.0

    def _blocks(self, name: str) -> Array:
        """The logarithms of an engine's ratios, a row for each block of parts and a column for each order."""
        logs, num_orders = np.log(self.part_ratios[name]), num_orders_of(len(self.part_medians_us))
        return logs[: max(1, len(logs) // num_orders) * num_orders].reshape(-1, min(num_orders, len(logs)))

    def ratio_of(self, name: str) -> float:
        """An engine's latency over the base's: the geometric mean over parts; 1 for the base itself."""
        return 1.0 if name == self.base else math.exp(float(np.mean(np.log(self.part_ratios[name]))))

    def error_of(self, name: str) -> float:
        """Standard error of an engine's ratio, as a share of it; infinite after a single part."""
        return 0.0 if name == self.base else _standard_error(self.part_ratios[name])

    @property
    def ratio(self) -> float:
        """Latency of the one other engine over the base's.

        Raises:
            UsageError: there is not exactly one other.
        """
        return self.ratio_of(self._other())

    @property
    def ratio_error_fraction(self) -> float:
        """Standard error of :attr:`ratio`, as a share of it.

        Raises:
            UsageError: there is not exactly one other engine.
        """
        return self.error_of(self._other())

    @property
    def worst_error_fraction(self) -> float:
        """The largest standard error of all ratios; 0 where an engine was timed alone."""
        return max(map(self.error_of, self.part_ratios), default=0.0)

    def _other(self) -> str:
        if len(self.part_ratios) != 1:
            raise UsageError(f"{len(self.part_ratios)} engines are compared with {self.base!r}; say whose ratio")
        (name,) = self.part_ratios
        return name


def compare(
    engines: Mapping[str, Session],
    inputs: Mapping[str, Array],
    *,
    until: Certainty,
    base: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Times engines in turns, with the calling thread kept on one core, until their ratios are known well enough.

    The rounds of a part follow from the first few runs. Measurements on a GPU carry its conditions before and after,
    and a doubt where these or the spread give cause; those on this machine's processor a doubt where other work had
    the core.

    Args:
        engines: the loaded engines by name; a single one is timed alone.
        inputs: inputs of all engines.
        until: the precision at which to stop.
        base: the name of the engine that the others are compared with; None for the first.
        clock: monotonic seconds, for the time that is spent.

    Raises:
        UsageError: there are no engines, or none of them is the base.
        RuntimeUnavailableError: an engine computes on this machine, and cannot be timed.
    """
    return compare_runs(
        {name: session.bind(inputs) for name, session in engines.items()}, until=until, base=base, clock=clock
    )


def compare_runs(
    runs: Mapping[str, Callable[[], object]],
    *,
    until: Certainty,
    base: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Comparison:
    """Times the calls that ``Session.bind`` gave for some engines; the arguments are those of :func:`compare`.

    Raises:
        UsageError: as :func:`compare`.
    """
    base = next(iter(runs), "") if base is None else base
    if base not in runs:
        raise UsageError(f"no engine {base!r} to compare with; choose one of {', '.join(runs) or 'at least one'}")
    processor = Processor()
    launches = as_launches(runs, processor)
    with pin_to_one_core() as core:
        num_rounds = until.num_rounds(_round_us(launches))
        num_warmup = max(_MIN_WARMUP, num_rounds // _WARMUP_SHARE)
        take_turns(launches, num_rounds=0, num_warmup=num_warmup)
        before = {name: conditions_of(launch.device.conditions()) for name, launch in launches.items()}
        samples, part_medians_us = _take_parts(launches, base, num_rounds, until, clock)
    rows = {}
    for name, launch in launches.items():
        row = replace(summarise([sample.elapsed_us for sample in samples[name]]), before=before[name])
        if getattr(launch.device, "is_processor", False):
            rows[name] = replace(row, doubt=contention(core if launch.device is processor else None, samples[name]))
        else:
            rows[name] = _timed_on_gpu(row, launch, samples[name], num_warmup)
    return Comparison(base=base, measurements=rows, part_medians_us=part_medians_us)


def _round_us(launches: Mapping[str, Launch]) -> float:
    """Duration of one round, by a few trial rounds."""
    trial = take_turns(launches, num_rounds=_TRIAL_ROUNDS, num_warmup=_TRIAL_WARMUP)
    return sum(_median_us(samples) * launches[name].num_executions for name, samples in trial.items())


def _take_parts(
    launches: Mapping[str, Launch], base: str, num_rounds: int, until: Certainty, clock: Callable[[], float]
) -> tuple[dict[str, list[Sample]], dict[str, tuple[float, ...]]]:
    """All samples of every engine, and its median latency, part by part."""
    samples: dict[str, list[Sample]] = {name: [] for name in launches}
    medians_us: dict[str, list[float]] = {name: [] for name in launches}
    orders, num_parts, started = _orders(list(launches)), 0, clock()
    while True:
        shift, index = divmod(num_parts, len(orders))
        order = orders[index]
        order = [*order[shift % len(order) :], *order[: shift % len(order)]]  # none is the first of every part
        part = take_turns({name: launches[name] for name in order}, num_rounds=num_rounds)
        num_parts += 1
        for name, taken in part.items():
            samples[name] += taken
            medians_us[name].append(_median_us(taken))
        known = np.array(medians_us[base])
        others = (np.array(medians_us[name]) / known for name in launches if name != base)
        error = max(map(_standard_error, others), default=0.0)
        if until.is_reached(num_parts=num_parts, error=error, seconds=clock() - started):
            return samples, {name: tuple(found) for name, found in medians_us.items()}


def num_orders_of(num_engines: int) -> int:
    """The number of orders in which so many engines take turns."""
    return len(_orders([str(number) for number in range(num_engines)]))


def _orders(names: list[str]) -> list[list[str]]:
    """The orders in which engines take turns, part by part: each follows every other equally often.

    An engine finds the caches as the one before it left them. Rounds go round a circle, in which each has always the
    same predecessor, so that every circle of up to four engines is an order; of more a circle and its reverse.
    """
    first, *rest = names
    if len(names) <= _MOST_FOR_ALL_ORDERS:
        return [[first, *order] for order in permutations(rest)]
    return [names, [first, *reversed(rest)]]


def _median_us(samples: Sequence[Sample]) -> float:
    return max(SHORTEST_US, float(np.median([sample.elapsed_us for sample in samples])))


def _standard_error(ratios: Sequence[float] | Array) -> float:
    """Standard error of the geometric mean of some ratios, as a share of it; infinite for one ratio."""
    return math.inf if len(ratios) < 2 else float(np.log(ratios).std(ddof=1)) / math.sqrt(len(ratios))


def _timed_on_gpu(row: Measurement, launch: Launch, samples: Sequence[Sample], num_warmup: int) -> Measurement:
    """A row with the fields of a GPU: conditions after, time to enqueue, kind of launch, and doubts."""
    taken = replace(
        row,
        after=conditions_of(launch.device.conditions()),
        enqueue_us=float(np.median([sample.enqueue_us for sample in samples])),
        protocol=TimingProtocol(
            method=GPU_PROTOCOL.method,
            num_samples=row.num_samples,
            num_warmup=num_warmup,
            num_executions=launch.num_executions,
            num_in_flight=launch.device.num_in_flight,
            uses_graph=launch.uses_graph,
        ),
    )
    return replace(taken, doubt="; ".join(doubts(taken, calm_us=math.inf)))
