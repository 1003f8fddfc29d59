"""A GPU as a device of the loop: events around graphs of many executions, two of them in flight.

One sample is one launch: ``num_executions`` executions captured as one CUDA graph, between two events on one stream.
Neither the host nor the events' resolution of half a microsecond then counts. Nothing is copied while time is taken.
docs/timing.md compares this with trtexec.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from halp_trt.device.conditions import Watch, watch
from halp_trt.device.cuda import Cuda, Stream, open_cuda
from halp_trt.device.faults import MeasurementError
from halp_trt.device.loop import Launch, take_turns
from halp_trt.device.samples import Reading, Sample

__all__ = ["NUM_IN_FLIGHT", "Gpu", "GpuDevice", "make_launch", "open_gpu"]

NUM_IN_FLIGHT = 2
"""Launches that a GPU holds at once, so that it never waits for the host."""

_SAMPLE_US = 500.0
"""Length to which a sample is filled with executions: a thousand times the resolution of events."""
_MAX_EXECUTIONS = 128
"""Most executions in one sample."""


class GpuDevice:
    """A GPU's stream as a :class:`halp_trt.device.loop.Device`.

    Attributes:
        stream: the stream that work is put on.
        num_in_flight: number of launches on it before the first is read.
        watch: source of the GPU's conditions.
    """

    def __init__(
        self,
        stream: Stream,
        watch: Watch,
        *,
        num_in_flight: int = NUM_IN_FLIGHT,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Times work on ``stream``; ``clock_ns`` is the host's clock, for the enqueue time of a run."""
        self.stream = stream
        self.num_in_flight = num_in_flight
        self.watch = watch
        self._clock_ns = clock_ns
        self._events: list[tuple[Any, Any]] = []

    def start(self, run: Callable[[], object]) -> tuple[Any, Any, float]:
        """Puts a run on the stream, between two events; returns the events and the enqueue time as its mark."""
        begin, end = self._events.pop() if self._events else (self.stream.event(), self.stream.event())
        self.stream.record(begin)
        before = self._clock_ns()
        run()
        enqueue_us = (self._clock_ns() - before) / 1e3
        self.stream.record(end)
        return begin, end, enqueue_us

    def read(self, mark: tuple[Any, Any, float]) -> Sample:
        """Waits for a run's end and returns the time between its events."""
        begin, end, enqueue_us = mark
        self.stream.wait(end)
        elapsed_us = self.stream.elapsed_us(begin, end)
        self._events.append((begin, end))
        return Sample(elapsed_us=elapsed_us, enqueue_us=enqueue_us)

    def conditions(self) -> Reading | None:
        """The present clocks, temperature and power."""
        return self.watch.read()


class Gpu(NamedTuple):
    """This machine's GPU, opened.

    Attributes:
        cuda: its memory.
        device: its one stream for all work, so that two engines never run at once.
    """

    cuda: Cuda
    device: GpuDevice


@lru_cache(maxsize=None)
def open_gpu() -> Gpu:
    """The GPU of this process; every call returns the same one.

    Raises:
        RuntimeUnavailableError: there is no GPU; the message says what is missing.
    """
    cuda = open_cuda()
    return Gpu(cuda=cuda, device=GpuDevice(cuda.stream(), watch(cuda.device().pci_bus_id)))


def make_launch(device: GpuDevice, enqueue: Callable[[], object], *, num_executions: int = 0) -> Launch:
    """A launch of enough executions for a long sample, as one CUDA graph if the work can be captured.

    Args:
        device: the device to launch on.
        enqueue: function that puts one execution on the device's stream.
        num_executions: number of executions; 0 times one and fills 500 microseconds with it, up to 128 executions.
    """
    plain = Launch(run=enqueue, device=device)
    plain()  # what is set up at the first execution must be there before a graph is captured
    if not num_executions:
        samples = take_turns({"one": plain}, num_rounds=5)["one"]
        one_us = min(sample.elapsed_us for sample in samples)
        num_executions = max(1, min(_MAX_EXECUTIONS, math.ceil(_SAMPLE_US / max(one_us, _SAMPLE_US / _MAX_EXECUTIONS))))

    def repeat() -> None:
        for _ in range(num_executions):
            enqueue()

    graph = _captured(device.stream, repeat)
    run = (enqueue if num_executions == 1 else repeat) if graph is None else _replay(graph, enqueue)
    return Launch(run=run, device=device, num_executions=num_executions, uses_graph=graph is not None)


def _replay(graph: Callable[[], None], owner: object) -> Callable[[], None]:
    """A function that launches the graph; it keeps ``owner`` alive, whose memory the graph points to."""

    def run(_owner: object = owner) -> None:
        graph()

    return run


def _captured(stream: Stream, work: Callable[[], None]) -> Callable[[], None] | None:
    """The work as one graph; None if it cannot be captured."""
    try:
        return stream.capture(work)
    except MeasurementError:  # the work waits for its own results, say
        return None
