"""The timing loop and the devices that it drives.

The loop asks a device to start a run, and later for the run's sample. The processor does both at once. On a GPU the
next run is started before the last one is read, so that it never waits for the host.
"""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from halp_trt.device.cores import waited_ns
from halp_trt.device.faults import MeasurementError
from halp_trt.device.samples import Reading, Sample

__all__ = [
    "MAX_ATTEMPTS",
    "Device",
    "Launch",
    "Processor",
    "TakesTurns",
    "as_launches",
    "involuntary_switches",
    "take_turns",
    "time_interleaved",
    "warm_up",
]

MAX_ATTEMPTS = 4
"""Most attempts at an interrupted sample."""

_LONG_NS = 50_000_000
"""Length from which on an interruption alone is no reason to repeat a run: a shared machine interrupts all of these."""
_TAKEN_FRACTION = 0.01
"""Share of a long run for which another thread may have had the core without the run being repeated."""

_MAX_WARMUP_ROUNDS = 64
"""Most rounds of warm-up between two looks at the time worked so far."""


class Device(Protocol):
    """A device that executes runs and times them.

    Attributes:
        num_in_flight: number of runs that may be started before the first of them is read.
    """

    num_in_flight: int

    def start(self, run: Callable[[], object]) -> Any:
        """Starts a run; returns the mark to read it by."""
        ...

    def read(self, mark: Any) -> Sample:
        """Waits for a started run; returns its sample."""
        ...

    def conditions(self) -> Reading | None:
        """Returns the present clocks, temperature and power; None if the system does not tell them."""
        ...


@runtime_checkable
class TakesTurns(Protocol):
    """A device that runs whole rounds by itself, because asking it for every run would take longer than the runs."""

    def take_turns(
        self, launches: Mapping[str, Launch], *, num_rounds: int, num_warmup: int, rotate: bool
    ) -> dict[str, list[Sample]]:
        """As :func:`take_turns`, for launches of this device alone."""
        ...


class Processor:
    """The processor as the simplest :class:`Device`: a run is over when it returns.

    Attributes:
        num_in_flight: 1, since the host and the device are the same.
        is_processor: True; other devices need not have it.
    """

    is_processor = True

    def __init__(
        self,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        interruptions: Callable[[], int] | None = None,
        waited: Callable[[], int | None] = waited_ns,
    ) -> None:
        """Makes the device.

        Args:
            clock_ns: monotonic nanoseconds.
            interruptions: a count that rises when the calling thread loses its core; the system's by default.
            waited: nanoseconds that the thread has waited for a core so far.
        """
        self.num_in_flight = 1
        self._clock_ns, self._interruptions, self._waited = clock_ns, interruptions or involuntary_switches, waited
        self._was_interrupted = False

    def start(self, run: Callable[[], object]) -> Sample:
        """Executes the run and returns its sample, less the time for which the thread waited for its core.

        How long it waited is asked only once the core was lost, since asking takes some microseconds.
        """
        waited = self._waited() if self._was_interrupted else None
        before = self._interruptions()
        start = self._clock_ns()
        run()
        elapsed = self._clock_ns() - start
        if self._interruptions() == before:
            return Sample(elapsed_us=elapsed / 1e3)
        self._was_interrupted = True
        taken = 0 if waited is None else min(elapsed, max(0, (self._waited() or waited) - waited))
        is_disturbed = elapsed < _LONG_NS or taken > _TAKEN_FRACTION * elapsed
        return Sample(elapsed_us=(elapsed - taken) / 1e3, is_disturbed=is_disturbed)

    def read(self, mark: Sample) -> Sample:
        """The sample itself."""
        return mark

    def moment(self) -> tuple[int, int]:
        """The time now, and how long the calling thread has waited for a core so far; nanoseconds."""
        return self._clock_ns(), self._waited() or 0

    def conditions(self) -> Reading | None:
        """Returns None: an interrupted run is timed again instead."""
        return None


@dataclass(frozen=True)
class Launch:
    """A run together with the device that times it; calling it runs once and waits.

    Attributes:
        run: function that starts the work.
        device: device that does the work.
        num_executions: number of executions in one run; samples are divided by it.
        uses_graph: True if a run is one launch of a CUDA graph.
    """

    run: Callable[[], object]
    device: Device
    num_executions: int = 1
    uses_graph: bool = False

    def __call__(self) -> None:
        """Runs once and waits for the end."""
        self.device.read(self.device.start(self.run))


def take_turns(
    launches: Mapping[str, Launch], *, num_rounds: int, num_warmup: int = 0, rotate: bool = True
) -> dict[str, list[Sample]]:
    """Times several runs in turn, so that a drift of the machine's speed affects all of them alike.

    A disturbed sample is taken again, up to ``MAX_ATTEMPTS`` attempts in all; the last attempt counts in any case.

    Args:
        launches: launches to time, by name; those of different devices never overlap.
        num_rounds: number of timed rounds; each starts every run once.
        num_warmup: number of untimed rounds before them.
        rotate: True if each round starts one run later than the last, so that no run always follows the same other.

    Returns:
        The samples of every name, each of one execution, in the order they were read.
    """
    elsewhere = _taker_of(launches)
    if elsewhere is not None:
        return elsewhere.take_turns(launches, num_rounds=num_rounds, num_warmup=num_warmup, rotate=rotate)
    turns = list(launches.items())
    samples: dict[str, list[Sample]] = {name: [] for name in launches}
    pending: deque[tuple[str, bool, int, Any]] = deque()

    def start(name: str, is_timed: bool, attempt: int) -> None:
        launch = launches[name]
        pending.append((name, is_timed, attempt, launch.device.start(launch.run)))

    def read() -> None:
        name, is_timed, attempt, mark = pending.popleft()
        sample = launches[name].device.read(mark)
        if not is_timed:
            return
        if sample.is_disturbed and attempt < MAX_ATTEMPTS:
            start(name, is_timed, attempt + 1)
        else:
            samples[name].append(_per_execution(sample, launches[name].num_executions))

    for index in range(-num_warmup, num_rounds):
        shift = index % len(turns) if rotate else 0
        for name, launch in turns[shift:] + turns[:shift]:
            while pending and launches[pending[-1][0]].device is not launch.device:
                read()
            start(name, index >= 0, 1)
            while len(pending) >= launch.device.num_in_flight:
                read()
    while pending:
        read()
    return samples


def _taker_of(launches: Mapping[str, Launch]) -> TakesTurns | None:
    """The one device of all launches, if it takes turns by itself."""
    devices = {id(launch.device): launch.device for launch in launches.values()}
    device: Any = next(iter(devices.values()), None)
    return device if len(devices) == 1 and isinstance(device, TakesTurns) else None


def _per_execution(sample: Sample, num_executions: int) -> Sample:
    """The sample of one execution."""
    if num_executions == 1:
        return sample
    return sample._replace(elapsed_us=sample.elapsed_us / num_executions, enqueue_us=sample.enqueue_us / num_executions)


def warm_up(launches: Mapping[str, Launch], *, busy_us: float) -> int:
    """Runs all launches in turn until the device has worked for ``busy_us``: clocks rise with work, not with runs.

    Returns:
        The number of rounds.

    Raises:
        MeasurementError: the device's clock stands still.
    """
    total_us, num_rounds, batch = 0.0, 0, 1
    while total_us < busy_us:
        for name, samples in take_turns(launches, num_rounds=batch).items():
            total_us += sum(sample.elapsed_us for sample in samples) * launches[name].num_executions
        num_rounds += batch
        batch = min(2 * batch, _MAX_WARMUP_ROUNDS)
        if not total_us:
            raise MeasurementError(f"{num_rounds} rounds of warm-up took no time; check the device's clock")
    return num_rounds


def as_launches(runs: Mapping[str, Callable[[], object]], processor: Processor | None = None) -> dict[str, Launch]:
    """The launch of every call: a :class:`Launch` keeps its device, other calls are timed by the processor."""
    device = processor or Processor()
    return {name: call if isinstance(call, Launch) else Launch(run=call, device=device) for name, call in runs.items()}


def time_interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int,
    num_warmup: int = 0,
    rotate: bool = True,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    interruptions: Callable[[], int] | None = None,
) -> dict[str, list[float]]:
    """Times several calls in turn, as :func:`take_turns`; a :class:`Launch` by its device, others by the processor.

    Args:
        runs: calls to time, by name.
        num_rounds: number of timed rounds; each calls every run once.
        num_warmup: number of untimed rounds before them.
        rotate: True if each round starts one run later than the last.
        clock_ns: the processor's clock in nanoseconds, monotonic.
        interruptions: function that counts how often the thread lost its core; the system's count by default.

    Returns:
        The samples of every name in microseconds, in the order taken.
    """
    launches = as_launches(runs, Processor(clock_ns, interruptions))
    samples = take_turns(launches, num_rounds=num_rounds, num_warmup=num_warmup, rotate=rotate)
    return {name: [sample.elapsed_us for sample in taken] for name, taken in samples.items()}


def involuntary_switches() -> int:
    """Number of times that the kernel took the core from the calling thread; always 0 if the system does not tell."""
    who = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if who is None else int(resource.getrusage(who).ru_nivcsw)
