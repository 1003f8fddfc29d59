"""A bench that measures engines on a GPU, each in turns with a fixed reference, and names doubts about a measurement.

The reference shows drift. docs/timing.md compares this with trtexec.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from halp_trt.device.gpu import GpuDevice, make_launch
from halp_trt.device.loop import Launch, take_turns, warm_up
from halp_trt.device.samples import Reading, Sample, Summary, summary_of

__all__ = ["METHOD", "ROUNDS", "GpuBench", "Rounds", "Taken", "doubts"]


class Rounds(NamedTuple):
    """The protocol by which samples are taken.

    Attributes:
        num_samples: number of timed rounds.
        num_warmup: number of untimed rounds before them.
        warmup_ms: time for which the GPU is kept busy before those.
        num_executions: number of executions in one sample; 0 fits it to the length of one execution.
    """

    num_samples: int = 50
    num_warmup: int = 2
    warmup_ms: float = 200.0
    num_executions: int = 0


METHOD = "gpu-events"
"""The name of this protocol."""

ROUNDS = Rounds()
"""The protocol for latencies on a GPU."""

_MAX_VARIATION = 0.025
"""Largest coefficient of variation without a doubt, as in trtexec."""
_MAX_CLOCK_CHANGE = 0.02
"""Largest relative change of a clock during the samples without a doubt."""
_MAX_DRIFT = 0.03
"""Largest slowdown of the reference against its best, as a fraction, without a doubt."""
_ENQUEUE_BOUND = 0.8
"""Largest enqueue time of the host, as a fraction of the latency, without a doubt, as in trtexec."""
_ATTEMPTS = 3
"""Most attempts at one measurement."""


class Taken(NamedTuple):
    """One measurement.

    Attributes:
        summary: latency and spread.
        enqueue_us: median time that the host takes to start one execution.
        before, after: the GPU's conditions on both sides of the samples; None if the system does not tell them.
        num_executions: number of executions in one sample.
        uses_graph: True if a sample is one launch of a CUDA graph.
        doubt: reasons, in words, not to trust it; empty if there are none.
    """

    summary: Summary
    enqueue_us: float = 0.0
    before: Reading | None = None
    after: Reading | None = None
    num_executions: int = 1
    uses_graph: bool = True
    doubt: str = ""


class GpuBench:
    """A bench that measures one engine after the other on a GPU, each in turns with a fixed reference.

    Attributes:
        device: the GPU's stream.
        rounds: protocol by which samples are taken.
        reference: launch of the reference, from :func:`halp_trt.device.gpu.make_launch`.
        calm_us: fastest median of the reference so far.
    """

    def __init__(self, device: GpuDevice, rounds: Rounds, reference: Launch) -> None:
        self.device, self.rounds, self.reference = device, rounds, reference
        self.calm_us = math.inf

    def measure(self, enqueue: Callable[[], object]) -> Taken:
        """The latency of the work that ``enqueue`` puts on the stream.

        A doubtful measurement is taken again, up to three attempts in all. The first without a doubt is kept; if all
        are doubtful, the one with the least variation.
        """
        launch = make_launch(self.device, enqueue, num_executions=self.rounds.num_executions)
        attempts: list[Taken] = []
        while len(attempts) < _ATTEMPTS and not (attempts and not attempts[-1].doubt):
            attempts.append(self._attempt(launch))
        return min(attempts, key=lambda taken: (bool(taken.doubt), taken.summary.variation))

    def _attempt(self, launch: Launch) -> Taken:
        launches = {"reference": self.reference, "layer": launch}
        warm_up(launches, busy_us=self.rounds.warmup_ms * 1e3)
        before = self.device.conditions()
        samples = take_turns(launches, num_rounds=self.rounds.num_samples, num_warmup=self.rounds.num_warmup)
        after = self.device.conditions()
        reference_us = _median_us(samples["reference"])
        self.calm_us = min(self.calm_us, reference_us)
        taken = Taken(
            summary=summary_of([sample.elapsed_us for sample in samples["layer"]], reference_us=reference_us),
            enqueue_us=float(np.median([sample.enqueue_us for sample in samples["layer"]])),
            before=before,
            after=after,
            num_executions=launch.num_executions,
            uses_graph=launch.uses_graph,
        )
        reasons = doubts(taken, calm_us=self.calm_us, is_confidential=self.device.watch.is_confidential)
        return taken._replace(doubt="; ".join(reasons))


def _median_us(samples: list[Sample]) -> float:
    return float(np.median([sample.elapsed_us for sample in samples]))


def doubts(taken: Taken, *, calm_us: float, is_confidential: bool = False) -> list[str]:
    """The reasons, in words, not to trust a measurement; empty if there are none.

    The limits on the coefficient of variation (2.5 %) and on the host's enqueue time (0.8 of the latency) are
    trtexec's. Those on a change of the clock (2 %) and on a slower reference (3 %) are ours.
    """
    summary, reasons = taken.summary, []
    if summary.variation > _MAX_VARIATION:
        reasons.append(f"samples vary by {summary.variation:.1%}, above {_MAX_VARIATION:.1%}")
    if summary.reference_us > calm_us * (1 + _MAX_DRIFT):
        reasons.append(f"the reference was {summary.reference_us / calm_us - 1:.1%} slower than at its best")
    if not taken.uses_graph and taken.enqueue_us > _ENQUEUE_BOUND * summary.latency_us:
        reasons.append("the host was timed, not the GPU: enqueueing takes as long as executing, and there is no graph")
    if is_confidential:
        reasons.append("events are not reliable under confidential computing")
    return reasons + _clock_doubts(taken.before, taken.after)


def _clock_doubts(before: Reading | None, after: Reading | None) -> list[str]:
    if before is None or after is None:
        return []
    clocks = {"core": (before.clock_mhz, after.clock_mhz), "memory": (before.memory_mhz, after.memory_mhz)}
    reasons = [
        f"the {name} clock went from {first:.0f} to {last:.0f} MHz, lock it"
        for name, (first, last) in clocks.items()
        if first and last and abs(last / first - 1) > _MAX_CLOCK_CHANGE
    ]
    slowed = dict.fromkeys((*before.slowed_by, *after.slowed_by))
    return reasons + ([f"the GPU was slowed by {' and '.join(slowed)}"] if slowed else [])
