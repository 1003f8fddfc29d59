"""Timing on a GPU: events around graphs of many executions, two of them in flight, and doubts where doubts are due.

One sample is one launch: ``num_executions`` executions captured as one CUDA graph, between two events on one stream, so
that neither the host nor the half microsecond that events resolve counts. A fixed reference engine takes turns with
what is measured and shows drift. Nothing is copied while time is taken. How this relates to trtexec: docs/timing.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from halp_trt.errors import MeasurementError
from halp_trt.runtimes.conditions import Watch, watch
from halp_trt.runtimes.cuda import Cuda, Stream, open_cuda
from halp_trt.specs import Conditions, Measurement, Protocol
from halp_trt.timing import Launch, Sample, summarise, take_turns, warm_up

__all__ = ["PROTOCOL", "Bench", "Gpu", "GpuDevice", "doubts", "make_launch", "open_gpu"]

PROTOCOL = Protocol(
    method="gpu-events",
    num_samples=50,
    num_warmup=2,
    warmup_ms=200.0,
    num_executions=0,
    num_in_flight=2,
    uses_graph=True,
)
"""How latencies are taken on a GPU; the executions of one sample follow from how long one takes."""

_SAMPLE_US = 500.0
"""How long a sample is to last: a thousand times what events resolve."""
_MAX_EXECUTIONS = 128
_MAX_VARIATION = 0.025
_MAX_CLOCK_CHANGE = 0.02
_MAX_DRIFT = 0.03
_ENQUEUE_BOUND = 0.8
_ATTEMPTS = 3


class GpuDevice:
    """A GPU's stream as a :class:`halp_trt.timing.Device`.

    Attributes:
        stream: what the work is put on.
        num_in_flight: launches that it holds before the first is read.
    """

    def __init__(
        self,
        stream: Stream,
        watch: Watch,
        *,
        num_in_flight: int = PROTOCOL.num_in_flight,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Times work on ``stream``; ``clock_ns`` is the host's clock, for the time that starting a run takes."""
        self.stream = stream
        self.num_in_flight = num_in_flight
        self.watch = watch
        self._clock_ns = clock_ns
        self._events: list[tuple[Any, Any]] = []

    def start(self, run: Callable[[], object]) -> tuple[Any, Any, float]:
        """Puts a run on the stream, between two events."""
        begin, end = self._events.pop() if self._events else (self.stream.event(), self.stream.event())
        self.stream.record(begin)
        before = self._clock_ns()
        run()
        enqueue_us = (self._clock_ns() - before) / 1e3
        self.stream.record(end)
        return begin, end, enqueue_us

    def read(self, mark: tuple[Any, Any, float]) -> Sample:
        """Waits for a run's end and takes the time between its events."""
        begin, end, enqueue_us = mark
        self.stream.wait(end)
        elapsed_us = self.stream.elapsed_us(begin, end)
        self._events.append((begin, end))
        return Sample(elapsed_us=elapsed_us, enqueue_us=enqueue_us)

    def conditions(self) -> Conditions | None:
        """Clocks, temperature and power now."""
        return self.watch.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """This machine's GPU, opened.

    Attributes:
        cuda: its memory.
        device: the one stream that everything runs on, so that two engines never run at once.
    """

    cuda: Cuda
    device: GpuDevice


@cache
def open_gpu() -> Gpu:
    """The GPU of this process; the same one every time.

    Raises:
        RuntimeUnavailableError: there is none; the sentence says what is missing.
    """
    cuda = open_cuda()
    return Gpu(cuda=cuda, device=GpuDevice(cuda.stream(), watch(cuda.device().pci_bus_id)))


def make_launch(device: GpuDevice, enqueue: Callable[[], object], *, num_executions: int = 0) -> Launch:
    """A launch of as many executions as make a sample long enough, as one CUDA graph where that is possible.

    Args:
        device: what to launch on.
        enqueue: puts one execution on the device's stream.
        num_executions: how many; 0 takes what one execution lasts and fills ``500`` microseconds, up to 128.
    """
    plain = Launch(run=enqueue, device=device)
    plain()  # what is set up at the first execution must be there before a graph is captured
    if not num_executions:
        taken = take_turns({"one": plain}, num_rounds=5)["one"]
        one_us = min(sample.elapsed_us for sample in taken)
        num_executions = max(1, min(_MAX_EXECUTIONS, math.ceil(_SAMPLE_US / max(one_us, _SAMPLE_US / _MAX_EXECUTIONS))))

    def repeat() -> None:
        for _ in range(num_executions):
            enqueue()

    graph = _captured(device.stream, repeat)
    run = (enqueue if num_executions == 1 else repeat) if graph is None else _replay(graph, enqueue)
    return Launch(run=run, device=device, num_executions=num_executions, uses_graph=graph is not None)


def _replay(graph: Callable[[], None], owner: object) -> Callable[[], None]:
    """A launch of the graph; it holds on to the memory that the graph only points to."""

    def run(_owner: object = owner) -> None:
        graph()

    return run


def _captured(stream: Stream, work: Callable[[], None]) -> Callable[[], None] | None:
    try:
        return stream.capture(work)
    except MeasurementError:  # the work waits for its own results, say
        return None


@dataclass(kw_only=True)
class Bench:
    """Measures one engine after the other on a GPU, each in turns with a reference that stays.

    Attributes:
        device: what everything runs on.
        protocol: how samples are taken.
        reference: the launch that stays, made with :func:`make_launch`.
        calm_us: the fastest median of the reference so far.
    """

    device: GpuDevice
    protocol: Protocol
    reference: Launch
    calm_us: float = math.inf

    def measure(self, enqueue: Callable[[], object]) -> Measurement:
        """Latency of what ``enqueue`` puts on the stream.

        A doubtful measurement is taken again, up to three times in all; the one that varies least is kept, with its
        doubt.
        """
        launch = make_launch(self.device, enqueue, num_executions=self.protocol.num_executions)
        done = replace(self.protocol, num_executions=launch.num_executions, uses_graph=launch.uses_graph)
        attempts: list[Measurement] = []
        while len(attempts) < _ATTEMPTS and not (attempts and attempts[-1].is_trusted):
            attempts.append(self._attempt(launch, done))
        return min(attempts, key=lambda taken: (bool(taken.doubt), taken.variation))

    def _attempt(self, launch: Launch, protocol: Protocol) -> Measurement:
        launches = {"reference": self.reference, "layer": launch}
        warm_up(launches, busy_us=protocol.warmup_ms * 1e3)
        before = self.device.conditions()
        samples = take_turns(launches, num_rounds=protocol.num_samples, num_warmup=protocol.num_warmup)
        after = self.device.conditions()
        reference_us = _median_us(samples["reference"])
        self.calm_us = min(self.calm_us, reference_us)
        taken = replace(
            summarise([sample.elapsed_us for sample in samples["layer"]], reference_us=reference_us),
            enqueue_us=float(np.median([sample.enqueue_us for sample in samples["layer"]])),
            before=before,
            after=after,
            protocol=protocol,
        )
        reasons = doubts(taken, calm_us=self.calm_us, is_confidential=self.device.watch.is_confidential)
        return replace(taken, doubt="; ".join(reasons))


def _median_us(samples: list[Sample]) -> float:
    return float(np.median([sample.elapsed_us for sample in samples]))


def doubts(taken: Measurement, *, calm_us: float, is_confidential: bool = False) -> list[str]:
    """Why a measurement is not to be trusted, in words; empty where it is.

    The limits: 2.5 % coefficient of variation and 0.8 of the latency for the host's enqueue time are trtexec's; a clock
    that moves by 2 % and a reference that is 3 % slower than at its best are ours.
    """
    reasons = []
    if taken.variation > _MAX_VARIATION:
        reasons.append(f"samples vary by {taken.variation:.1%}, above {_MAX_VARIATION:.1%}")
    if taken.reference_us > calm_us * (1 + _MAX_DRIFT):
        reasons.append(f"the reference was {taken.reference_us / calm_us - 1:.1%} slower than at its best")
    if taken.protocol and not taken.protocol.uses_graph and taken.enqueue_us > _ENQUEUE_BOUND * taken.latency_us:
        reasons.append("the host was timed, not the GPU: enqueueing takes as long as executing, and there is no graph")
    if is_confidential:
        reasons.append("events are not reliable under confidential computing")
    return reasons + _clock_doubts(taken.before, taken.after)


def _clock_doubts(before: Conditions | None, after: Conditions | None) -> list[str]:
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
