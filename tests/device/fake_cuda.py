"""A GPU made of numbers: memory that holds bytes, streams that work in order, and two clocks of their own.

Work is done when it is waited for, never before, so that a forgotten wait shows. The host's clock advances when it
enqueues, the GPU's when it works; a kernel starts when it was enqueued and the one before it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from halp_trt.device.conditions import Watch
from halp_trt.device.cuda import CudaDevice
from halp_trt.device.samples import Reading
from halp_trt.errors import MeasurementError

Work = tuple[float, Callable[[], None]]


def nothing() -> None:
    """No effect."""


@dataclass
class FakeEvent:
    at_us: float | None = None


@dataclass(eq=False)
class FakeStream:
    """As :class:`halp_trt.device.cuda.Stream`."""

    cuda: FakeCuda
    handle: int
    queue: list[tuple[float, float, Callable[[float], None]]] = field(default_factory=list)
    now_us: float = 0.0
    idle_us: float = 0.0
    capturing: list[Work] | None = None

    def event(self) -> FakeEvent:
        return FakeEvent()

    def record(self, event: FakeEvent) -> None:
        event.at_us = None
        self._put(0.0, lambda now: setattr(event, "at_us", now))

    def wait(self, event: Any = None) -> None:
        while self.queue and (event is None or event.at_us is None):
            put_us, duration_us, effect = self.queue.pop(0)
            start = max(self.now_us, put_us)
            if duration_us:
                self.idle_us += start - self.now_us
            self.now_us = start + duration_us
            effect(self.now_us)
        assert event is None or event.at_us is not None, "waited for an event that was never recorded"
        self.cuda.host_us = max(self.cuda.host_us, self.now_us if event is None else event.at_us)

    def elapsed_us(self, begin: FakeEvent, end: FakeEvent) -> float:
        assert begin.at_us is not None, "read before it was waited for"
        assert end.at_us is not None, "read before it was waited for"
        return end.at_us - begin.at_us

    def capture(self, enqueue: Callable[[], object]) -> Callable[[], None] | None:
        if not self.cuda.has_graphs:
            return None
        self.capturing = []
        try:
            enqueue()
        finally:
            work, self.capturing = self.capturing, None

        def launch() -> None:
            self.cuda.host_us += self.cuda.enqueue_us
            for duration_us, effect in work:
                self._put(duration_us, lambda _, effect=effect: effect())

        self.cuda.num_graphs += 1
        return launch

    def kernel(self, duration_us: float, effect: Callable[[], None] = nothing) -> None:
        """Enqueues one kernel."""
        if self.capturing is not None:
            if self.cuda.refuses_capture:
                raise MeasurementError("operation not permitted when stream is capturing")
            self.capturing.append((duration_us, effect))
            return
        self.cuda.host_us += self.cuda.enqueue_us
        self._put(duration_us, lambda _: effect())

    def _put(self, duration_us: float, effect: Callable[[float], None]) -> None:
        assert self.capturing is None, "an event was recorded while capturing"
        self.queue.append((self.cuda.host_us, duration_us, effect))


@dataclass
class FakeCuda:
    """As :class:`halp_trt.device.cuda.Cuda`."""

    has_graphs: bool = True
    refuses_capture: bool = False
    enqueue_us: float = 2.0
    name: str = "a fake"
    host_us: float = 0.0
    num_graphs: int = 0
    memory: dict[int, bytearray] = field(default_factory=dict)
    streams: dict[int, FakeStream] = field(default_factory=dict)
    next_address: int = 4096

    def clock_ns(self) -> int:
        return round(self.host_us * 1000)

    def device(self) -> CudaDevice:
        return CudaDevice(name="Fake V", compute_capability="7.0", num_bytes=1 << 30, driver="12.4")

    def stream(self) -> FakeStream:
        handle = 100 + len(self.streams)
        self.streams[handle] = FakeStream(self, handle)
        return self.streams[handle]

    def malloc(self, num_bytes: int) -> int:
        address = self.next_address
        self.next_address += (-(-num_bytes // 256) + 1) * 256
        self.memory[address] = bytearray(num_bytes)
        return address

    def free(self, address: int) -> None:
        del self.memory[address]

    def copy_in(self, address: int, values: np.ndarray) -> None:
        assert values.flags.c_contiguous
        assert values.nbytes <= len(self.memory[address])
        self.memory[address][: values.nbytes] = values.tobytes()

    def copy_out(self, values: np.ndarray, address: int) -> None:
        values[...] = np.frombuffer(self.memory[address], values.dtype)[: values.size].reshape(values.shape)


def scripted_watch(states: Iterable[Reading | None], *, is_confidential: bool = False) -> Watch:
    """Conditions in the order given; the last one stays."""
    script: Iterator[Reading | None] = iter(states)
    last: list[Reading | None] = [None]

    def read() -> Reading | None:
        last[0] = next(script, last[0])
        return last[0]

    return Watch(source="a script", read=read, is_confidential=is_confidential)


QUIET = scripted_watch([])
