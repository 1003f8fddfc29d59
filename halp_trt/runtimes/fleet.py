"""Several devices of one kind that measure one table: a runtime made of theirs, each of which measures shards of it.

Every device that takes part measures the same few anchors first. One whose anchors are off is named and measures
nothing more: units of a kind differ, by cooling, power supply or age, and a table at two speeds would be true of
neither.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from queue import SimpleQueue
from threading import Thread

from halp_trt.errors import (
    BuildError,
    HalpError,
    LinkError,
    MeasurementError,
    RuntimeUnavailableError,
    TargetMismatchError,
    UsageError,
)
from halp_trt.runtimes.anchors import Anchors
from halp_trt.runtimes.protocol import (
    DEFAULT_FOOTPRINT,
    BatchProber,
    BuildOptions,
    BuildResult,
    Compiler,
    Inspected,
    Prober,
    Runtime,
    Session,
    Unmeasured,
)
from halp_trt.runtimes.registry import traits_of
from halp_trt.runtimes.shards import Board, Shard
from halp_trt.specs import Footprint, Measurement, Target

__all__ = ["CompilerFleet", "Fleet", "FleetProber", "fleet_of"]

NUM_ANCHORS = 8
"""Probes that every device measures."""
NUM_PROBES = 48
"""Probes of a shard."""
MAX_OFF_FRACTION = 0.03
"""Largest distance of a device's anchors from the fleet's, in the median, at which its rows count."""
_MAX_LOSSES = 2
"""Losses of a device in one job after which it is asked no more."""
_PATIENCE, _LEAST_PATIENCE_SECONDS = 3.0, 60.0
"""A device waits for the anchors of others for so many times the time that its own took, and for so long at least."""

Row = Measurement | Unmeasured


@dataclass(kw_only=True)
class Fleet:
    """The devices as a :class:`halp_trt.runtimes.Runtime`: the first builds and runs engines, all of them measure.

    Attributes:
        runtimes: the runtime of every device, by the device's name.
        tell: called with a sentence about a device that is off or lost.
        left_out: devices that measure nothing more, and the reason.
    """

    runtimes: Mapping[str, Runtime]
    tell: Callable[[str], None]
    left_out: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runtimes:
            raise UsageError("a fleet needs at least one device; name it with --device")

    @property
    def name(self) -> str:
        """The name of all devices' runtime."""
        return self._first.name

    @property
    def suffix(self) -> str:
        """Suffix of its engine files."""
        return self._first.suffix

    @property
    def _first(self) -> Runtime:
        return next(iter(self.in_use.values()), next(iter(self.runtimes.values())))

    @property
    def in_use(self) -> Mapping[str, Runtime]:
        """The devices that are not left out."""
        return {name: runtime for name, runtime in self.runtimes.items() if name not in self.left_out}

    def target(self, precision: str, batch_size: int) -> Target:
        """The target that all devices are. They are asked at once, and those that do not answer are left out.

        Raises:
            TargetMismatchError: one is of another kind.
            LinkError: none answers.
        """
        found: dict[str, Target] = {}
        with ThreadPoolExecutor(len(self.runtimes)) as pool:
            asked = {name: pool.submit(one.target, precision, batch_size) for name, one in self.in_use.items()}
        for name, answer in asked.items():
            try:
                found[name] = answer.result()
            except (LinkError, RuntimeUnavailableError, OSError) as error:
                self.leave_out(name, str(error))
        if not found:
            raise LinkError(f"no device answers: {self.reasons()}; see halp-trt device hello")
        (first, target), *others = found.items()
        for name, other in others:
            if other != target:
                raise TargetMismatchError(
                    f"{first} is {target} and {name} is {other}; a table is of one kind of device, measure one for each"
                )
        return target

    def build(self, model: bytes, target: Target) -> bytes:
        """The first device's engine of a model."""
        return self._first.build(model, target)

    def load(self, engine: bytes, target: Target) -> Session:
        """An engine ready to run on the first device."""
        return self._first.load(engine, target)

    @contextlib.contextmanager
    def prober(self, target: Target) -> Iterator[FleetProber]:
        """A prober that measures on all devices that are not left out.

        Raises:
            LinkError: all are.
        """
        if not self.in_use:
            raise LinkError(f"no device is left: {self.reasons()}; mend them, and run it again with --resume")
        yield FleetProber(self, target)

    def leave_out(self, name: str, reason: str) -> None:
        """Has a device measure nothing more, and tells why."""
        self.left_out[name] = reason
        self.tell(f"{name} measures nothing more: {reason}")

    def reasons(self) -> str:
        """Why devices are left out, in words."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items())


class CompilerFleet(Fleet):
    """Devices whose runtime compiles ahead of time, as :class:`halp_trt.runtimes.Compiler`: the first one compiles."""

    def check(self, target: Target, options: BuildOptions) -> None:
        """Refuses what the first device cannot build."""
        self._compiler.check(target, options)

    def inspect(self, session: Session) -> Inspected:
        """The number formats in an engine of the first device."""
        return self._compiler.inspect(session)

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> BuildResult:
        """The first device's engine of a typed model."""
        return self._compiler.compile(model, target, options)

    @property
    def _compiler(self) -> Compiler:
        first = self._first
        assert isinstance(first, Compiler)
        return first


def fleet_of(runtimes: Mapping[str, Runtime], *, tell: Callable[[str], None]) -> Fleet:
    """The fleet of some devices' runtimes, which compiles if they do."""
    make = CompilerFleet if all(isinstance(one, Compiler) for one in runtimes.values()) else Fleet
    return make(runtimes=runtimes, tell=tell)


class FleetProber:
    """Measures probes on all devices at once; a :class:`halp_trt.runtimes.protocol.ScatteredProber`."""

    def __init__(self, fleet: Fleet, target: Target) -> None:
        """Makes the prober; devices are asked when it measures."""
        self._fleet, self._target = fleet, target

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in one probe; raises as :meth:`measure_scattered`.

        Raises:
            MeasurementError: its device gave none.
        """
        (row,) = (row for rows in self.measure_scattered([probe], DEFAULT_FOOTPRINT) for row in rows.values())
        if isinstance(row, Unmeasured):
            raise MeasurementError(row.reason)
        return row

    def measure_scattered(self, probes: Iterable[bytes], footprint: Footprint) -> Iterator[dict[int, Row]]:
        """Latencies of the probes' layers by the probes' numbers, in groups, as they become known.

        Raises:
            BuildError, MeasurementError: two devices, or the only one, cannot measure a probe.
            LinkError: all devices are lost.
        """
        job = _Job(self._fleet, self._target, footprint, probes)
        threads = [Thread(target=job.work, args=(name,), daemon=True) for name in self._fleet.in_use]
        num_working = len(threads)
        for thread in threads:
            thread.start()
        try:
            while num_working:
                event = job.events.get()
                if event is None:
                    num_working -= 1
                elif isinstance(event, BaseException):
                    raise event
                elif isinstance(event, str):
                    self._fleet.tell(event)
                elif isinstance(event, _Left):
                    self._fleet.leave_out(event.name, event.reason)
                else:
                    yield event
            if not job.board.is_done:
                if job.board.refusal:
                    raise MeasurementError(f"no device can measure a probe ({job.board.refusal})")
                raise LinkError(
                    f"all devices are lost: {self._fleet.reasons()}; every measured layer is saved, run it again with "
                    "--resume"
                )
        finally:
            job.board.stop()
            job.anchors.stop()


@dataclass(frozen=True, kw_only=True)
class _Left:
    """A device that takes no more part."""

    name: str
    reason: str


class _Job:
    """One table's probes, and what the devices' threads share while they measure them."""

    def __init__(self, fleet: Fleet, target: Target, footprint: Footprint, probes: Iterable[bytes]) -> None:
        self._fleet, self._target, self._footprint = fleet, target, footprint
        self.board = Board(probes, fleet.in_use, num_probes=NUM_PROBES)
        self.events: SimpleQueue[dict[int, Row] | BaseException | str | _Left | None] = SimpleQueue()
        self._names = list(fleet.in_use)
        self._anchors = self.board.first(NUM_ANCHORS) if len(self._names) > 1 else {}
        self.anchors = Anchors(self._names, has_one_speed=traits_of(target.runtime).has_one_speed)

    def work(self, name: str) -> None:
        """Measures with one device until nothing is left to do, or it is lost or off."""
        try:
            reason = self._work(name)
            if reason:
                self.events.put(_Left(name=name, reason=reason))
        except BaseException as error:
            self.events.put(error)
        finally:
            self.anchors.leave(name)
            self.board.leave(name)
            self.events.put(None)

    def _work(self, name: str) -> str:
        """Measures until nothing is left; the reason why the device takes no more part, if there is one."""
        reason = ""
        for _ in range(_MAX_LOSSES):
            try:
                with self._fleet.runtimes[name].prober(self._target) as prober:
                    return self._with(name, prober)
            except (LinkError, OSError) as error:
                reason = f"it was lost ({error})"
        return reason

    def _with(self, name: str, prober: Prober) -> str:
        if self._anchors and not self.anchors.has(name):
            started = time.monotonic()
            rows: dict[int, Row] = {}
            for some in _measured(prober, self._anchors, self._footprint):
                rows |= some
            off = self.anchors.off_by(name, rows, patience=self._patience(time.monotonic() - started))
            if abs(off) > MAX_OFF_FRACTION:
                way = "slower" if off > 0 else "faster"
                return f"it is {100 * abs(off):.0f} % {way} than the others; look at its clocks, power mode and cooling"
            self._publish(None, rows)
        while (shard := self.board.take(name)) is not None:
            try:
                for rows in _measured(prober, shard.probes, self._footprint):
                    self._publish(shard, rows)
            except (BuildError, MeasurementError) as error:
                self._refused(name, shard, error)
            finally:
                self.board.give_back(name, shard)
        return ""

    @staticmethod
    def _patience(own_seconds: float) -> float:
        return max(_LEAST_PATIENCE_SECONDS, _PATIENCE * own_seconds)

    def _publish(self, shard: Shard | None, rows: Mapping[int, Row]) -> None:
        fresh = self.board.report(shard, rows)
        if fresh:
            self.events.put({number: rows[number] for number in fresh})

    def _refused(self, name: str, shard: Shard, error: HalpError) -> None:
        """Lets another device try what this one cannot measure; what two cannot measure ends the job."""
        if shard.refusals or len(self._fleet.in_use) < 2:
            raise error
        self.events.put(f"{name} could not measure a probe ({error}); another device tries")
        self.board.give_back(name, shard, str(error))


def _measured(prober: Prober, probes: Mapping[int, bytes], footprint: Footprint) -> Iterator[dict[int, Row]]:
    """The rows of probes by number, as they become known; those that another device has done meanwhile are left out."""
    wanted = dict(probes)
    if isinstance(prober, BatchProber):
        numbers = iter(wanted)
        for rows in prober.measure_all(wanted.values(), footprint):
            yield dict(zip(islice(numbers, len(rows)), rows, strict=True))
        return
    for number, probe in wanted.items():
        if number in probes:
            yield {number: prober.measure(probe)}
