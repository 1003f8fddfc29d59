"""Made-up machines for the throughput gate: what processes would measure, and many gates judged at once.

Noise inside a process is a piece of a real trace, with its spikes, steps and autocorrelation. Every engine takes a
piece of its own, which is harsher than engines in turns, whose noise is partly the same. Processes differ by an effect
of their own on each engine, and by a drift that all engines share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from halp_trt.gate.rule import LOOKS, Rule

__all__ = [
    "NUM_PARTS",
    "NUM_ROUNDS",
    "STEADY",
    "UNSTEADY",
    "Machine",
    "Noise",
    "Numbers",
    "judge",
    "made_up_trace",
    "means",
    "read_traces",
    "simulate",
    "steadiness",
    "stored_series",
]

Array = npt.NDArray[np.float64]
Middle = Callable[..., Any]

NUM_PARTS, NUM_ROUNDS = 10, 20
"""Parts of a process, and samples of each engine in a part."""
_NEW, _BASELINE, _REFERENCE = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A kind of machine; all sizes are standard deviations or means of log-latencies.

    Attributes:
        process: effect of a process on one engine.
        drift: difference of two processes, and change inside one, that all engines share.
        tails: degrees of freedom of the processes' effects; 0 for normal ones.
        common: noise of a part that all engines share.
        burst_share, burst: chance that a part of one engine is disturbed, and by how much on the mean.
        neighbour_share, neighbour, neighbour_new: chance that a part is disturbed by another program, by how much the
            baseline's engine and the reference are slower then, and by how much the new engine is.
    """

    process: float
    drift: float
    tails: int = 0
    common: float = 0.0
    burst_share: float = 0.0
    burst: float = 0.0
    neighbour_share: float = 0.0
    neighbour: float = 0.0
    neighbour_new: float = 0.0


STEADY = {
    "locked": Machine(process=0.002, drift=0.002),
    "jetson": Machine(process=0.005, drift=0.01),
    "shared host": Machine(process=0.01, drift=0.03),
    "very noisy": Machine(process=0.02, drift=0.03),
}
"""Machines on which engines that take turns are disturbed alike."""

UNSTEADY = {
    "parts differ by 5 %": Machine(process=0.01, drift=0.03, common=0.05),
    "parts differ by 10 %": Machine(process=0.01, drift=0.03, common=0.1),
    "drift of 20 % in a process": Machine(process=0.01, drift=0.2),
    "heavy tails": Machine(process=0.01, drift=0.03, tails=2),
    "bursts on one engine": Machine(process=0.01, drift=0.03, burst_share=0.1, burst=0.1),
    "a neighbour in 30 % of parts": Machine(
        process=0.01, drift=0.03, neighbour_share=0.3, neighbour=0.1, neighbour_new=0.25
    ),
    "a neighbour in 60 % of parts": Machine(
        process=0.01, drift=0.03, neighbour_share=0.6, neighbour=0.1, neighbour_new=0.2
    ),
}
"""Machines on which something else happens. The neighbours slow the new engine down more than the baseline's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Traces of log-latencies, and the medians of all their pieces of a part's length.

    Attributes:
        traces: log-latencies of consecutive samples, each with a median of 0.
        medians: for each trace the medians of its pieces, by the piece's first sample.
    """

    traces: tuple[Array, ...]
    medians: tuple[Array, ...]

    @classmethod
    def of(cls, traces: Sequence[Array]) -> Noise:
        """The noise of some traces of latencies."""
        logs = tuple(np.log(trace / np.median(trace)) for trace in traces)
        windows = (np.lib.stride_tricks.sliding_window_view(log, NUM_ROUNDS) for log in logs)
        return cls(traces=logs, medians=tuple(np.median(window, axis=1) for window in windows))

    def processes(self, random: np.random.Generator, num_gates: int, num_processes: int) -> Array:
        """The medians of parts, by gate, process, engine and part; a gate keeps to one trace."""
        taken = np.empty((num_gates, num_processes, 3, NUM_PARTS))
        of_gate = np.arange(num_gates) % len(self.medians)
        for index, medians in enumerate(self.medians):
            shape = (int((of_gate == index).sum()), num_processes, 3, 1)
            first = random.integers(0, len(medians) - NUM_ROUNDS * (NUM_PARTS - 1), shape)
            taken[of_gate == index] = medians[first + NUM_ROUNDS * np.arange(NUM_PARTS)]
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers that processes would give, by gate and process, if both engines were equally fast.

    Attributes:
        log_ratios: new engine to baseline's.
        controls: the same from every second part, less that from the parts between.
        own_controls: the baseline's latency in every second part to its own in the parts between.
        new, baseline: new and baseline's engine to the reference.
        levels: latency of the new engine alone.
    """

    log_ratios: Array
    controls: Array
    own_controls: Array
    new: Array
    baseline: Array
    levels: Array


def read_traces(folder: Path) -> list[Array]:
    """The latencies of every trace that trtexec wrote into a folder; empty if there is none."""
    paths = sorted(folder.glob("*.timing.json"))
    return [np.array([row["computeMs"] for row in json.loads(path.read_text(encoding="utf-8"))]) for path in paths]


def made_up_trace(seed: int = 0, length: int = 4000, correlation: float = 0.95, spread: float = 0.005) -> Array:
    """Latencies of a first-order autoregressive process, for where there are no real ones."""
    from scipy.signal import lfilter

    steps = np.random.default_rng(seed).normal(0.0, spread * np.sqrt(1 - correlation**2), length)
    return np.asarray(np.exp(lfilter([1.0], [1.0, -correlation], steps)))


def simulate(
    machine: Machine,
    noise: Noise,
    *,
    seed: int,
    num_gates: int,
    num_processes: int = 32,
    session: float = 0.0,
    middle: Middle = np.mean,
) -> Numbers:
    """The numbers of many gates on one machine.

    Args:
        machine: the machine.
        noise: the noise inside processes.
        seed: start of the random numbers.
        num_gates: number of gates.
        num_processes: number of processes of each.
        session: standard deviation of an effect on each engine that lasts for the whole gate.
        middle: makes one number of a process's parts: ``numpy.mean`` or ``numpy.median``.
    """
    random = np.random.default_rng(seed)
    parts = noise.processes(random, num_gates, num_processes)
    draw = random.standard_normal if not machine.tails else lambda size: random.standard_t(machine.tails, size)
    parts += machine.process * draw(parts.shape[:3])[..., None]
    parts += session * random.standard_normal((num_gates, 1, 3, 1))
    ramp = np.linspace(-0.5, 0.5, NUM_PARTS)
    of_processes, of_parts = (num_gates, num_processes, 1, 1), (num_gates, num_processes, 1, NUM_PARTS)
    parts += machine.drift * (np.sqrt(0.5) * random.standard_normal(of_processes))
    parts += machine.drift * random.standard_normal(of_processes) * ramp
    if machine.common:
        parts += machine.common * random.standard_normal(of_parts)
    if machine.burst_share:
        parts += (random.random(parts.shape) < machine.burst_share) * random.exponential(machine.burst, parts.shape)
    if machine.neighbour_share:
        effects = np.full((3, 1), machine.neighbour)
        effects[_NEW] = machine.neighbour_new
        parts += (random.random(of_parts) < machine.neighbour_share) * effects
    new, baseline, reference = parts[:, :, _NEW], parts[:, :, _BASELINE], parts[:, :, _REFERENCE]
    return Numbers(
        log_ratios=np.asarray(middle(new - baseline, axis=-1)),
        controls=_alternate(new - baseline, middle),
        own_controls=_alternate(baseline, middle),
        new=np.asarray(middle(new - reference, axis=-1)),
        baseline=np.asarray(middle(baseline - reference, axis=-1)),
        levels=np.asarray(middle(new, axis=-1)),
    )


def stored_series(
    machine: Machine, noise: Noise, *, seed: int, num_gates: int, num_series: int, num_processes: int, session: float
) -> Array:
    """The log-ratios of baselines to the reference, by gate, series and process; a series has an effect of its own."""
    taken = [
        simulate(
            machine, noise, seed=seed + index, num_gates=num_gates, num_processes=num_processes, session=session
        ).baseline
        for index in range(num_series)
    ]
    return np.stack(taken, axis=1)


def means(log_ratios: Array, looks: Sequence[int]) -> tuple[Array, Array]:
    """The mean of the first processes at every look, and its standard error."""
    numbers = np.array(looks)
    mean = np.cumsum(log_ratios, 1)[:, numbers - 1] / numbers
    squares = np.cumsum(log_ratios**2, 1)[:, numbers - 1] / numbers
    return mean, np.sqrt(np.maximum(squares - mean**2, 0.0) / (numbers - 1))


def judge(
    log_ratios: Array, looks: Sequence[int], spent: Array | float, is_steady: Array | bool = True
) -> tuple[Array, Array, Array]:
    """For every gate whether it is red, whether it is green, and its number of processes.

    These are the answers of :func:`halp_trt.gate.rule.decide` about one engine, for many gates at once.

    Args:
        log_ratios: the numbers of all processes, by gate.
        looks: numbers of processes at which the gates look.
        spent: the error of each look.
        is_steady: for each gate and look whether the engine may be called slower.
    """
    mean, deviation = means(log_ratios, looks)
    reach = deviation * stdtrit(np.array(looks) - 1, 1 - np.asarray(spent))
    green = mean + reach <= Rule().log_limit
    red = (mean - reach > Rule().log_limit) & is_steady
    is_last = red | green
    is_last[:, -1] = True
    last, gates = is_last.argmax(1), np.arange(len(mean))
    return red[gates, last], green[gates, last], np.array(looks)[last]


def steadiness(numbers: Numbers, ratio: float) -> Array:
    """For each gate and look of the rule whether the engine, slower by a ratio, may be called slower."""
    squares = np.cumsum(numbers.controls**2, 1)[:, np.array(LOOKS) - 1] / np.array(LOOKS)
    slowdown = np.maximum(means(numbers.log_ratios + np.log(ratio), LOOKS)[0], Rule().log_limit)
    return np.asarray(np.sqrt(squares) <= slowdown / 2)


def _alternate(parts: Array, middle: Middle) -> Array:
    """Every second part less the part beside it, in the middle; either comes first in turn, so that drifts cancel."""
    pairs = parts[..., : NUM_PARTS // 2 * 2].reshape(*parts.shape[:-1], NUM_PARTS // 2, 2)
    signs = np.where(np.arange(NUM_PARTS // 2) % 2, -1.0, 1.0)
    return np.asarray(middle((pairs[..., 1] - pairs[..., 0]) * signs, axis=-1))
