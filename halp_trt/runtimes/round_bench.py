"""Timing layers in turns, in networks made of them, by the runtime's own profiler."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from halp_trt.specs import Footprint, Measurement
from halp_trt.specs import Protocol as TimingProtocol
from halp_trt.timing import Processor, summarise

__all__ = ["ROUNDS", "Layer", "ProbeNetwork", "Profile", "RoundBench", "Turns", "at_speed", "batches"]

ROUNDS = "profiled-arena"
"""Protocol: layers take turns in networks of nothing but probes, with memory as an arena has it, and are profiled."""

_ROUNDS_OF_A_PASS = 20
_FEWEST_ROUNDS = 10
_SECONDS_A_LAYER, _MOST_SECONDS = 0.03, 1.5
"""A pass ends after so long for every layer of a batch, or in all, once it has its fewest rounds."""
_CLOSE_ENOUGH = 0.015
"""A median whose standard error is below this share of it needs no more samples."""
_DOUBTFUL = 0.05
"""And above this share it is not to be trusted."""
_STEADY_SHARE = 0.9
"""So many layers of a batch must be known well enough before it ends early."""
_MAX_LAYERS = 64
_UNCHARGED_BYTES = 16e6
"""Where a network touches so much memory between two runs of a kernel, the runtime takes as long between two kernels as
its profiler charges: by engines of 0.2 to 25 ms against the sums of their kernels."""
_DISTURBED = 1.3
"""How much slower than at its best the reference may run before a batch is measured again."""
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the profiler saw of a probe network.

    Attributes:
        samples_us: of every layer in every run; [layers, runs].
        num_kernels: of every layer; [layers].
    """

    samples_us: npt.NDArray[np.float64]
    num_kernels: npt.NDArray[np.int64]


class ProbeNetwork(Protocol):
    """Layers that a runtime executes one after the other, each on memory as it finds it inside a network.

    Attributes:
        num_bytes: of the layers' weights.
    """

    num_bytes: int

    def run(self) -> object:
        """Executes every layer once."""
        ...

    def finish(self) -> Profile:
        """What was seen of all runs; there are none after it."""
        ...


T = TypeVar("T")


class Layer(Protocol):
    """Something to be measured."""

    @property
    def num_bytes(self) -> int:
        """Of its weights."""
        ...


@dataclass(kw_only=True)
class RoundBench:
    """Measures layers by the protocol ``profiled-arena``.

    A round runs every layer of a batch once. Whether a layer's weights are still in the caches depends on how much else
    is touched before they are used again; in a network that is the network. So a probe network holds about as many
    layers as have the weights of a given footprint, and memory is read to make up what is missing; a batch of more
    layers is cut into several networks, which take turns. Each runs untimed first, so that nothing but itself lies
    between two runs.

    The profiler charges every kernel for work of its own. An engine is charged for each kernel too, by the runtime,
    whose code has left the near caches where a network touches much memory. So the profiler's charge is taken off in
    full where nothing else is touched, less the more there is, and not at all from 16 MB on.

    A reference network, run twice before every run of the layers, shows in its second run how fast the machine is: a
    batch met by a slow moment is measured again, and what stays slow or wavering is marked with a doubt.

    Attributes:
        protocol: at most how many samples, and how many untimed rounds before them.
        open_network: makes a probe network of some layers, which write to an arena of so many bytes.
        reference: a small network of several kinds of layers.
        charge_us: what the profiler charges a kernel.
        calm_us: for every footprint the fastest median of the reference so far.
    """

    protocol: TimingProtocol
    open_network: Callable[[Sequence[Any], int], ProbeNetwork]
    reference: Callable[[], object]
    charge_us: float = 0.0
    processor: Processor = field(default_factory=Processor)
    calm_us: dict[Footprint, float] = field(default_factory=dict)

    def measure(self, layers: Sequence[Layer], footprint: Footprint) -> list[Measurement]:
        """Latency of every layer of a batch.

        Args:
            layers: what to measure.
            footprint: the memory of the network that they are part of.
        """
        best = self._measure(layers, footprint)
        for attempt in range(1, _MAX_ATTEMPTS):
            if self._slowness(best, footprint) <= _DISTURBED:
                return best
            time.sleep(0.1 * attempt)
            best = min(best, self._measure(layers, footprint), key=lambda rows: rows[0].reference_us)
        slowness = self._slowness(best, footprint)
        if slowness <= _DISTURBED:
            return best
        doubt = f"the machine ran {slowness:.1f} times slower than before"
        return [replace(row, doubt=row.doubt or doubt) for row in best]

    def tare_us(self, footprint: Footprint) -> float:
        """What is taken off for each kernel of a layer, in a network of such a footprint."""
        return self.charge_us * max(0.0, 1 - footprint.num_bytes / _UNCHARGED_BYTES)

    def _slowness(self, rows: Sequence[Measurement], footprint: Footprint) -> float:
        """What the reference took, over its least so far."""
        taken_us = rows[0].reference_us
        self.calm_us[footprint] = min(self.calm_us.get(footprint, math.inf), taken_us)
        return taken_us / self.calm_us[footprint]

    def _measure(self, layers: Sequence[Layer], footprint: Footprint) -> list[Measurement]:
        turns = Turns(self, layers, footprint)
        while True:
            end = time.monotonic() + min(_MOST_SECONDS, _SECONDS_A_LAYER * len(layers))
            for number in range(min(_ROUNDS_OF_A_PASS, self.protocol.num_samples - turns.num_rounds)):
                if number >= _FEWEST_ROUNDS and time.monotonic() >= end:
                    break
                turns.round()
            rows = turns.rows()
            if turns.num_rounds >= self.protocol.num_samples or _are_steady(rows):
                return [replace(row, doubt=_doubt(row)) for row in rows]


class Turns:
    """Layers that take turns on a bench, round by round.

    Attributes:
        num_rounds: timed so far.
    """

    def __init__(self, bench: RoundBench, layers: Sequence[Layer], footprint: Footprint) -> None:
        """Nothing is executed before the first round is asked for.

        Args:
            bench: how.
            layers: what.
            footprint: the memory of the network that they are part of.
        """
        self.num_rounds = 0
        self._bench, self._footprint = bench, footprint
        self._groups = list(_groups(layers, footprint.weight_bytes))
        self._layers = layers
        self._networks: list[ProbeNetwork] = []
        self._num_runs, self._timed = 0, list[int]()
        self._reference_us: list[float] = []
        self._samples_us: list[list[float]] = [[] for _ in layers]
        self._num_kernels = [1] * len(layers)
        self._filler = np.ones(1, np.float32)

    def round(self) -> None:
        """Runs every layer once, timed; at first, and after ``rows``, some rounds go before that are not."""
        if not self._networks:
            self._networks = [
                self._bench.open_network([self._layers[index] for index in group], self._footprint.arena_bytes)
                for group in self._groups
            ]
            self._num_runs, self._timed = 0, []
            for _ in range(self._bench.protocol.num_warmup):
                self._run_all()
        self._reference_us += self._run_all()
        self._timed.append(self._num_runs - 1)
        self.num_rounds += 1

    def _run_all(self) -> list[float]:
        """Runs every network twice, the second time to be timed; gives what the reference took before each."""
        taken_us = []
        for network in self._networks:
            self._bench.reference()
            taken_us.append(self._bench.processor.start(self._bench.reference).elapsed_us)
            network.run()
            self._fill(self._footprint.weight_bytes - network.num_bytes).max(initial=0.0)
            network.run()
        self._num_runs += 2
        return taken_us

    def _fill(self, num_bytes: int) -> npt.NDArray[np.float32]:
        """Memory to read in every round."""
        needed = max(num_bytes, 0) // 4
        if needed > self._filler.size:
            self._filler = np.ones(needed, np.float32)  # zeros would all be one page, and touch nothing
        return self._filler[:needed]

    def rows(self) -> list[Measurement]:
        """The latency of every layer, by all rounds so far."""
        for group, network in zip(self._groups, self._networks, strict=True):
            profile = network.finish()
            for index, samples_us, num in zip(group, profile.samples_us, profile.num_kernels, strict=True):
                self._samples_us[index] += samples_us[self._timed].tolist()
                self._num_kernels[index] = int(num)
        self._networks = []
        tare_us, reference_us = self._bench.tare_us(self._footprint), float(np.median(self._reference_us))
        return [
            self._row(samples_us, num * tare_us, reference_us)
            for samples_us, num in zip(self._samples_us, self._num_kernels, strict=True)
        ]

    def _row(self, samples_us: Sequence[float], overhead_us: float, reference_us: float) -> Measurement:
        """The middle half's mean stands for the median, which the ticks of the profiler's clock would round."""
        row = summarise(samples_us, overhead_us=overhead_us, reference_us=reference_us)
        quarter = len(samples_us) // 4
        middle_us = float(np.mean(sorted(samples_us)[quarter : len(samples_us) - quarter])) - overhead_us
        latency_us = min(max(middle_us, row.p10_us), row.p90_us)
        return replace(row, latency_us=latency_us, footprint_bytes=self._footprint.num_bytes)


def at_speed(row: Measurement, reference_us: float) -> Measurement:
    """A row as the machine would show it at the speed at which the reference takes so long; its own reference stays."""
    if not (row.reference_us and reference_us):
        return row
    factor = reference_us / row.reference_us
    return replace(row, latency_us=row.latency_us * factor, p10_us=row.p10_us * factor, p90_us=row.p90_us * factor)


def batches(layers: Iterable[T]) -> Iterator[list[T]]:
    """Cuts a stream of layers into batches that can be held open at once."""
    waiting = iter(layers)
    while batch := list(islice(waiting, _MAX_LAYERS)):
        yield batch


def _groups(layers: Sequence[Layer], weight_bytes: int) -> Iterator[list[int]]:
    """Cuts a batch into stretches with so many weights."""
    group: list[int] = []
    for index in range(len(layers)):
        group.append(index)
        if sum(layers[member].num_bytes for member in group) >= weight_bytes:
            yield group
            group = []
    if group:
        yield group


def _standard_error(row: Measurement) -> float:
    """Of the median, as a share of it; a normal's spread from p10 and p90."""
    return 1.2533 * (row.p90_us - row.p10_us) / 2.563 / math.sqrt(row.num_samples) / row.latency_us


def _are_steady(rows: Sequence[Measurement]) -> bool:
    return float(np.mean([_standard_error(row) <= _CLOSE_ENOUGH for row in rows])) >= _STEADY_SHARE


def _doubt(row: Measurement) -> str:
    error = _standard_error(row)
    return f"its median is known to {100 * error:.0f} % only" if error > _DOUBTFUL else ""
