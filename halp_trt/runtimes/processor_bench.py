"""Timing single layers on a processor, whatever runtime executes them."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halp_trt.specs import Measurement, Protocol
from halp_trt.timing import MAX_ATTEMPTS, Processor, summarise, time_interleaved

__all__ = [
    "ROUNDS",
    "SETTLED",
    "ProcessorBench",
    "RoundBench",
    "Rounds",
    "Seat",
    "at_speed",
    "batches",
    "processor_name",
]

ROUNDS = "rounds"
"""Protocol of a runtime whose own code is small: layers take turns, so that each finds its weights as cold as a network
does that has as much memory to go through between two uses of them."""
SETTLED = "interleaved-reference-settled"
"""Protocol of one whose own code is large, such as eager PyTorch: the layer runs once, untimed, before it is timed.

A network calls the same few functions again and again. Right after a reference that called others they are cold, and
sums of such layers were twice their network; settled ones were within about 10 %.
"""

_DISTURBED = 1.3
"""How much slower than at its best the reference may run before a layer is measured again."""
_MAX_ATTEMPTS = 5

# ---- rounds ---------------------------------------------------------------------------------------------------------

_FEWEST_ROUNDS = 10
_ROUNDS_IN_A_SWEEP = 4
_SECONDS_A_LAYER, _MOST_SECONDS = 0.03, 1.5
"""How long rounds go on at least: for every layer of a batch, and in all."""
_CLOSE_ENOUGH = 0.015
"""A median whose standard error is below this share of it needs no more samples."""
_STEADY_SHARE = 0.9
"""So many layers of a batch must be there before it ends early."""
_MAX_SEATS = 64
_TARE_EVERY = 12
"""Layers between two runs of the reference and two weighings of what a call costs."""
_NEAR = 3
"""Runs of the reference whose median is the machine's speed at the moment."""
_FEWEST_WEIGHINGS = 8
"""So many come first."""
_DIRT_BYTES = 1 << 20
"""Read before a call is weighed: after a kernel too, the code that starts the next one has left the near caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One layer that takes part in the rounds.

    Attributes:
        run: executes it once.
        prepare: leaves the caches as the layer before it would: its input just written.
        num_bytes: its weights.
        num_shared_bytes: its inputs and outputs, in memory that all layers share.
    """

    run: Callable[[], object]
    prepare: Callable[[], object]
    num_bytes: int
    num_shared_bytes: int = 0


@dataclass(kw_only=True)
class Rounds:
    """What rounds have shown so far.

    Attributes:
        num_seats: layers in each.
        samples: of every layer.
        speeds: for every sample how long the reference took just before.
        reference: of the reference network.
        tares: of a chain of one small operator and of a chain of two.
    """

    num_seats: int
    samples: list[list[float]] = field(init=False)
    speeds: list[list[float]] = field(init=False)
    reference: list[float] = field(default_factory=list)
    tares: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def __post_init__(self) -> None:
        self.samples = [[] for _ in range(self.num_seats)]
        self.speeds = [[] for _ in range(self.num_seats)]

    def part(self, indices: Sequence[int]) -> Rounds:
        """The same, of some of the layers: what is added there is added here."""
        rounds = Rounds(num_seats=0, reference=self.reference, tares=self.tares)
        rounds.samples = [self.samples[index] for index in indices]
        rounds.speeds = [self.speeds[index] for index in indices]
        return rounds

    @property
    def overhead_us(self) -> float:
        """What one call costs."""
        one, two = (float(np.median(chain)) for chain in self.tares)
        return max(2 * one - two, 0.0)

    @property
    def reference_us(self) -> float:
        """How long the reference took."""
        return float(np.median(self.reference))

    def measurements(self, footprint_bytes: int) -> list[Measurement]:
        """The latency of every layer, at the speed that the machine had most of the time."""
        overhead_us, reference_us = self.overhead_us, self.reference_us
        rows = []
        for samples, speeds in zip(self.samples, self.speeds, strict=True):
            steady = [us * reference_us / speed for us, speed in zip(samples, speeds, strict=True)]
            row = summarise(steady, overhead_us=overhead_us, reference_us=reference_us)
            rows.append(replace(row, footprint_bytes=footprint_bytes))
        return rows


@dataclass(kw_only=True)
class RoundBench:
    """Measures layers by the protocol ``rounds``.

    A round runs every layer of a batch once, each after its input was written as the layer before it would. Whether a
    layer's weights are still in the caches depends on how much else is touched before they are used again; in a network
    that is the network. So a round holds about as many layers as fill a given footprint, and memory is read to make up
    what is missing; a batch of more layers is cut into groups, which take turns in sweeps of a few rounds. What calling
    the runtime costs is weighed in the same rounds: twice a chain of one small operator less a chain of two. A
    reference network runs twice now and then; the second run, which finds its weights near, shows how fast the machine
    is at the moment: samples are scaled to what it mostly is. A batch met by a slow moment is measured again.

    Machines that are shared run faster and slower by the second, so rounds go on for a while, and then until the
    medians are known well enough or there are ``protocol.num_samples``.

    Attributes:
        protocol: at most how many samples, and how many untimed rounds before them.
        reference: a small network of several kinds of layers.
        settle: an empty network, run untimed before everything that is timed.
        chains: one small operator, and two of them in a row.
        calm_us: for every footprint the fastest median of the reference so far.
    """

    protocol: Protocol
    reference: Callable[[], object]
    settle: Callable[[], object]
    chains: tuple[Callable[[], object], Callable[[], object]]
    processor: Processor = field(default_factory=Processor)
    calm_us: dict[int, float] = field(default_factory=dict)
    _since_weighing: int = 0
    _filler: npt.NDArray[np.float32] = field(default_factory=lambda: np.ones(_DIRT_BYTES // 4, np.float32))

    def measure(self, seats: Sequence[Seat], footprint_bytes: int) -> list[Measurement]:
        """Latency of every layer of a batch.

        Args:
            seats: the layers.
            footprint_bytes: how much memory is touched between two runs of a layer.
        """
        best, calmest = self._measure(seats, footprint_bytes)
        for attempt in range(1, _MAX_ATTEMPTS):
            calm_us = self.calm_us[footprint_bytes] = min(self.calm_us.get(footprint_bytes, math.inf), calmest)
            if calmest <= _DISTURBED * calm_us:
                break
            time.sleep(0.1 * attempt)
            again, reference_us = self._measure(seats, footprint_bytes)
            if reference_us < calmest:
                best, calmest = again, reference_us
        return best

    def _measure(self, seats: Sequence[Seat], footprint_bytes: int) -> tuple[list[Measurement], float]:
        taken = Rounds(num_seats=len(seats))
        groups = list(_groups(seats, footprint_bytes))
        end, number = time.monotonic() + min(_MOST_SECONDS, _SECONDS_A_LAYER * len(seats)), 0
        while number < self.protocol.num_samples:
            for group in groups:
                some = [seats[index] for index in group]
                for _ in range(self.protocol.num_warmup if not number else len(groups) > 1):
                    self.round(some, footprint_bytes, Rounds(num_seats=len(some)))
                for _ in range(min(_ROUNDS_IN_A_SWEEP, self.protocol.num_samples - number)):
                    self.round(some, footprint_bytes, taken.part(group))
            number = len(taken.samples[0])
            is_long = number >= _FEWEST_ROUNDS and time.monotonic() >= end
            if is_long and _are_steady(taken.samples):
                break
        return taken.measurements(footprint_bytes), taken.reference_us

    def round(self, seats: Sequence[Seat], footprint_bytes: int, taken: Rounds) -> None:
        """Runs every layer once and adds its sample to ``taken``."""
        self._fill(footprint_bytes - _footprint(seats)).max(initial=0.0)
        for seat, samples, speeds in zip(seats, taken.samples, taken.speeds, strict=True):
            self._since_weighing += 1
            if self._since_weighing >= _TARE_EVERY or len(taken.reference) < _FEWEST_WEIGHINGS:
                self._since_weighing = 0
                taken.reference.append(self._sample(self.reference, self.reference))
                for chain, weighed in zip(self.chains, taken.tares, strict=True):
                    weighed.append(self._sample(chain, self._dirty))
            speeds.append(float(np.median(taken.reference[-_NEAR:])))
            samples.append(self._sample(seat.run, seat.prepare))

    def _sample(self, run: Callable[[], object], prepare: Callable[[], object]) -> float:
        """Microseconds of one run; taken again where the kernel took the core away."""
        for _ in range(MAX_ATTEMPTS):
            prepare()
            self.settle()
            sample = self.processor.start(run)
            if not sample.is_disturbed:
                break
        return sample.elapsed_us

    def _dirty(self) -> None:
        self._filler[: _DIRT_BYTES // 4].max()

    def _fill(self, num_bytes: int) -> npt.NDArray[np.float32]:
        """Memory to read in every round."""
        needed = max(num_bytes, 0) // 4
        if needed > self._filler.size:
            self._filler = np.ones(needed, np.float32)  # zeros would all be one page, and touch nothing
        return self._filler[:needed]


def batches(seats: Iterable[Seat]) -> Iterator[list[Seat]]:
    """Cuts a stream of layers into batches that can be held open at once."""
    waiting = iter(seats)
    while batch := list(islice(waiting, _MAX_SEATS)):
        yield batch


def _groups(seats: Sequence[Seat], footprint_bytes: int) -> Iterator[list[int]]:
    """Cuts a batch into stretches that fill a footprint."""
    group: list[int] = []
    for index in range(len(seats)):
        group.append(index)
        if _footprint([seats[member] for member in group]) >= footprint_bytes:
            yield group
            group = []
    if group:
        yield group


def _footprint(seats: Sequence[Seat]) -> int:
    """Bytes that a round touches: every layer's weights, and the memory they share."""
    return sum(seat.num_bytes for seat in seats) + max((seat.num_shared_bytes for seat in seats), default=0)


def _are_steady(samples: Sequence[Sequence[float]]) -> bool:
    """Whether the medians of most layers are known to ``_CLOSE_ENOUGH``; a normal's spread from p10 and p90."""
    p10, median, p90 = np.percentile(np.asarray(samples), [10, 50, 90], axis=1)
    standard_error = 1.2533 * (p90 - p10) / 2.563 / math.sqrt(len(samples[0]))
    return float(np.mean(standard_error <= _CLOSE_ENOUGH * median)) >= _STEADY_SHARE


# ---- one layer at a time --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class ProcessorBench:
    """Measures layers by the protocol ``interleaved-reference-settled``.

    One sample runs a reference network twice, the layer untimed, an empty network, and the layer. The first reference
    run takes the layer's weights out of the nearest caches, as the rest of a network does. The second finds its own
    there and shows how fast the machine is at the moment: layers met by a slow moment are measured again. The empty
    network is what calling the runtime costs; its median is taken off.

    Attributes:
        protocol: how many samples, and by which method.
        reference, empty: the two networks, ready to run.
        calm_us: the fastest median of the reference so far.
    """

    protocol: Protocol
    reference: Callable[[], None]
    empty: Callable[[], None]
    calm_us: float = math.inf

    def measure(self, layer: Callable[[], None]) -> Measurement:
        """Latency of one layer."""
        best = self._sample(layer)
        for attempt in range(1, _MAX_ATTEMPTS):
            self.calm_us = min(self.calm_us, best.reference_us)
            if best.reference_us <= _DISTURBED * self.calm_us:
                break
            time.sleep(0.1 * attempt)
            best = min(best, self._sample(layer), key=lambda measurement: measurement.reference_us)
        return best

    def _sample(self, layer: Callable[[], None]) -> Measurement:
        runs = {"evict": self.reference, "reference": self.reference, "settle": layer, "empty": self.empty}
        samples = time_interleaved(
            {**runs, "layer": layer},
            num_rounds=self.protocol.num_samples,
            num_warmup=self.protocol.num_warmup,
            rotate=False,
        )
        return summarise(
            samples["layer"],
            overhead_us=float(np.median(samples["empty"])),
            reference_us=float(np.median(samples["reference"])),
        )


def at_speed(row: Measurement, reference_us: float) -> Measurement:
    """A row as the machine would show it at the speed at which the reference takes so long; its own reference stays."""
    if not (row.reference_us and reference_us):
        return row
    factor = reference_us / row.reference_us
    return replace(row, latency_us=row.latency_us * factor, p10_us=row.p10_us * factor, p90_us=row.p90_us * factor)


def processor_name() -> str:
    """The processor's model as the system reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
