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

from halp_trt.specs import Footprint, Measurement, TimingProtocol
from halp_trt.timing import Processor, summarise

__all__ = ["ROUNDS", "Layer", "ProbeNetwork", "Profile", "RoundBench", "Turns", "batches", "windows"]

ROUNDS = "profiled-arena"
"""Protocol: layers take turns in networks made of probes, with memory as an arena has it, and are profiled."""

_ROUNDS_OF_A_PASS = 20
"""Rounds of a pass at most."""
_MIN_ROUNDS = 10
"""Rounds of a pass at least."""
_PASS_SECONDS_PER_LAYER = 0.03
"""A pass of ``n`` layers ends after ``n`` times this, once it has its fewest rounds."""
_MAX_PASS_SECONDS = 1.5
"""A pass ends after this at the latest, once it has its fewest rounds."""
_STEADY_ERROR_FRACTION = 0.015
"""A row whose standard error is at most this share of it needs no more samples."""
_DOUBTFUL_ERROR_FRACTION = 0.05
"""A row whose standard error is above this share of it is marked with a doubt."""
_MIN_STEADY_FRACTION = 0.9
"""A batch ends early once this share of its rows needs no more samples."""
_MAX_LAYERS = 64
"""Layers of a batch at most."""
_UNCHARGED_BYTES = 16e6
"""From this footprint on, the gap between two kernels of an engine equals the profiler's overhead, so nothing is
subtracted (engines of 0.2 to 25 ms against the sums of their kernels)."""
_MAX_SLOWDOWN = 1.3
"""A pass does not count when the reference runs this many times slower than at its best."""
_MAX_TAKEN_FRACTION = 0.05
"""Rows of a batch that lost its core for a larger share of the time are marked with a doubt."""
_MAX_ATTEMPTS = 5
"""Slow passes of a batch after which its rows are taken as they are."""
_MAX_BATCHES = 8
"""At most this many batches take turns, pass by pass."""
_MAX_WEIGHT_BYTES = 1 << 29
"""No further batch joins the turns once their weights fill this, as all of them stay loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The profiler's times of a probe network.

    Attributes:
        samples_us: latency of every layer in every run; [layers, runs].
        num_kernels: number of kernels of every layer; [layers].
    """

    samples_us: npt.NDArray[np.float64]
    num_kernels: npt.NDArray[np.int64]


class ProbeNetwork(Protocol):
    """Layers that a runtime executes one after the other, each on memory as it finds it inside a network.

    Attributes:
        num_bytes: bytes of the layers' weights.
    """

    num_bytes: int

    def run(self) -> object:
        """Executes every layer once."""
        ...

    def finish(self) -> Profile:
        """The profile of all runs; the network cannot run afterwards."""
        ...


T = TypeVar("T")


class Layer(Protocol):
    """A layer to be measured."""

    @property
    def num_bytes(self) -> int:
        """Bytes of its weights."""
        ...


@dataclass(kw_only=True)
class RoundBench:
    """Measures layers by the protocol ``profiled-arena``.

    A round runs every layer of a batch once. A layer finds its weights in the caches or not, by the amount of memory
    touched since their last use: in an engine, by the rest of the network. So a probe network holds about as many
    layers as have the weights of a given footprint, and memory is read to make up the difference; a larger batch is cut
    into several networks, which take turns. Each network runs untimed first, so that only itself lies between two runs.

    The profiler adds an overhead ``charge_us`` to every kernel. Inside an engine the runtime adds one, too: its code
    has left the near caches once a network touches much memory. So ``charge_us * max(0, 1 - num_bytes / 16e6)`` is
    subtracted for each kernel, with ``num_bytes`` of the footprint.

    A batch is measured in passes of some rounds, and batches take turns, pass by pass: a disturbance of some seconds
    (other work on a shared processor, say) then meets each of them now and then, and none throughout.

    A reference network, run twice before every run of the layers, shows in its second run the machine's speed. The
    passes of a batch are normalised to one speed, a pass in a slow moment does not count and is repeated, and a row
    that stays slow or wavering is marked with a doubt.

    Attributes:
        protocol: the largest number of samples, and the number of untimed rounds before them.
        open_network: makes a probe network of some layers, with an arena of so many bytes.
        reference: a small network of several kinds of layers.
        charge_us: the profiler's overhead for one kernel, microseconds.
        calm_us: the reference's median in the fastest pass so far, by footprint.
    """

    protocol: TimingProtocol
    open_network: Callable[[Sequence[Any], int], ProbeNetwork]
    reference: Callable[[], object]
    charge_us: float = 0.0
    processor: Processor = field(default_factory=Processor)
    calm_us: dict[Footprint, float] = field(default_factory=dict)
    _filler: npt.NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32), init=False, repr=False)

    def measure(self, layers: Sequence[Layer], footprint: Footprint) -> list[Measurement]:
        """Latency of every layer of a batch, as :meth:`measure_all` gives it."""
        return self.measure_all([layers], footprint)[0]

    def measure_all(self, batches: Sequence[Sequence[Layer]], footprint: Footprint) -> list[list[Measurement]]:
        """Latency of every layer of some batches.

        Args:
            batches: the layers to measure; those of one batch are held open at once.
            footprint: the memory of the network that they are part of.
        """
        waiting = {number: Turns(self, layers, footprint) for number, layers in enumerate(batches)}
        found: dict[int, list[Measurement]] = {}
        while waiting:
            for number, turns in list(waiting.items()):
                rows = self._after_one_more_pass(turns, footprint)
                if rows:
                    found[number] = rows
                    del waiting[number]
        return [found[number] for number in range(len(batches))]

    def memory(self, num_bytes: int) -> npt.NDArray[np.float32]:
        """Memory to read: the bytes that a network lacks of its footprint."""
        needed = max(num_bytes, 0) // 4
        if needed > self._filler.size:
            self._filler = np.ones(needed, np.float32)  # zeros would all be one page, and touch nothing
        return self._filler[:needed]

    def tare_us(self, footprint: Footprint) -> float:
        """Overhead to subtract for each kernel of a layer, in a network of such a footprint, microseconds."""
        return self.charge_us * max(0.0, 1 - footprint.num_bytes / _UNCHARGED_BYTES)

    def _after_one_more_pass(self, turns: Turns, footprint: Footprint) -> list[Measurement]:
        """The rows of a batch after another pass; empty until they are known well enough."""
        end = time.monotonic() + min(_MAX_PASS_SECONDS, _PASS_SECONDS_PER_LAYER * turns.num_layers)
        num_left = self.protocol.num_samples - turns.num_rounds(_MAX_SLOWDOWN * self.calm_us.get(footprint, math.inf))
        for number in range(min(_ROUNDS_OF_A_PASS, max(num_left, 1))):
            if number >= _MIN_ROUNDS and time.monotonic() >= end:
                break
            turns.round()
        taken_us = turns.finish()
        calm_us = self.calm_us[footprint] = min(self.calm_us.get(footprint, math.inf), taken_us)
        slowest_us = _MAX_SLOWDOWN * calm_us
        num_slower = turns.num_slower(slowest_us)
        if taken_us > slowest_us and num_slower < _MAX_ATTEMPTS:
            time.sleep(0.1 * num_slower)
            return []
        rows, errors = turns.rows(slowest_us), turns.errors(slowest_us)
        is_known = rows[0].num_samples >= self.protocol.num_samples or _are_steady(errors)
        if not (is_known or num_slower >= _MAX_ATTEMPTS):
            return []
        slowness = rows[0].reference_us / calm_us
        disturbance = f"the machine ran {slowness:.1f} times slower than before" if slowness > _MAX_SLOWDOWN else ""
        if turns.taken_fraction > _MAX_TAKEN_FRACTION:
            disturbance = f"other work had the core for more than {100 * _MAX_TAKEN_FRACTION:.0f} % of the time"
        return [replace(row, doubt=_doubt(error) or disturbance) for row, error in zip(rows, errors, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pass:
    """Rounds that ran one after the other.

    Attributes:
        num_rounds: number of rounds.
        reference_us: the reference's median during the pass.
        samples_us: latency of every layer in every round.
    """

    num_rounds: int
    reference_us: float
    samples_us: list[npt.NDArray[np.float64]]


class Turns:
    """Layers that take turns on a bench, round by round.

    Attributes:
        num_layers: number of layers.
    """

    def __init__(self, bench: RoundBench, layers: Sequence[Layer], footprint: Footprint) -> None:
        """Prepares the turns; nothing is executed before the first round.

        Args:
            bench: the bench that measures.
            layers: the layers to measure.
            footprint: the memory of the network that they are part of.
        """
        self.num_layers = len(layers)
        self._bench, self._footprint = bench, footprint
        self._groups = list(_groups(layers, footprint.weight_bytes))
        self._layers = layers
        self._networks: list[ProbeNetwork] = []
        self._num_runs, self._timed = 0, list[int]()
        self._reference_us: list[float] = []
        self._passes: list[_Pass] = []
        self._num_kernels = [1] * len(layers)
        self._began, self._lasted_ns, self._waited_ns = (0, 0), 0, 0

    @property
    def taken_fraction(self) -> float:
        """The share of the time of all passes for which other work had the core."""
        return self._waited_ns / max(1, self._lasted_ns)

    def round(self) -> None:
        """Runs every layer once, timed; a pass begins with some untimed rounds."""
        if not self._networks:
            self._networks = [
                self._bench.open_network([self._layers[index] for index in group], self._footprint.arena_bytes)
                for group in self._groups
            ]
            self._num_runs, self._timed, self._reference_us = 0, [], []
            self._began = self._bench.processor.moment()
            for _ in range(self._bench.protocol.num_warmup):
                self._run_all()
        self._reference_us += self._run_all()
        self._timed.append(self._num_runs - 1)

    def _run_all(self) -> list[float]:
        """Runs every network twice, the second time timed; returns the reference's latency before each."""
        taken_us = []
        for network in self._networks:
            self._bench.reference()
            taken_us.append(self._bench.processor.start(self._bench.reference).elapsed_us)
            network.run()
            self._bench.memory(self._footprint.weight_bytes - network.num_bytes).max(initial=0.0)
            network.run()
        self._num_runs += 2
        return taken_us

    def finish(self) -> float:
        """Ends a pass; returns the reference's median latency in its rounds."""
        now, waited = self._bench.processor.moment()
        self._lasted_ns += now - self._began[0]
        self._waited_ns += waited - self._began[1]
        samples_us = [np.zeros(0)] * self.num_layers
        for group, network in zip(self._groups, self._networks, strict=True):
            profile = network.finish()
            for index, taken_us, num in zip(group, profile.samples_us, profile.num_kernels, strict=True):
                samples_us[index] = taken_us[self._timed]
                self._num_kernels[index] = int(num)
        self._networks = []
        reference_us = float(np.median(self._reference_us))
        self._passes.append(_Pass(num_rounds=len(self._timed), reference_us=reference_us, samples_us=samples_us))
        return reference_us

    def num_rounds(self, slowest_us: float) -> int:
        """Number of rounds in all passes with a reference of at most ``slowest_us``."""
        return sum(one.num_rounds for one in self._passes if one.reference_us <= slowest_us)

    def num_slower(self, slowest_us: float) -> int:
        """Number of passes so far with a reference above ``slowest_us``."""
        return sum(one.reference_us > slowest_us for one in self._passes)

    def rows(self, slowest_us: float = math.inf) -> list[Measurement]:
        """The latency of every layer by all rounds so far, normalised to the speed of the median pass.

        Args:
            slowest_us: passes with a slower reference do not count; if all are slower, the fastest counts.
        """
        reference_us, passes = self._at_one_speed(slowest_us)
        tare_us = self._bench.tare_us(self._footprint)
        return [
            self._row(np.concatenate(taken).tolist(), num * tare_us, reference_us)
            for taken, num in zip(passes, self._num_kernels, strict=True)
        ]

    def errors(self, slowest_us: float = math.inf) -> list[float]:
        """Relative standard error of every row, by the spread between its passes where that exceeds chance.

        Samples within a pass are correlated, so that their spread alone understates the error; after a single pass it
        is infinite.
        """
        rows, (_, passes) = self.rows(slowest_us), self._at_one_speed(slowest_us)
        errors = []
        for row, taken in zip(rows, passes, strict=True):
            medians_us = [float(np.median(samples)) for samples in taken]
            among_us = float(np.std(medians_us, ddof=1)) if len(medians_us) > 1 else math.inf
            errors.append(max(_standard_error(row), among_us / math.sqrt(len(medians_us)) / row.latency_us))
        return errors

    def _at_one_speed(self, slowest_us: float) -> tuple[float, list[list[npt.NDArray[np.float64]]]]:
        """The reference's latency in the median pass, and every layer's samples of all passes at that speed."""
        if self._networks:
            self.finish()
        fastest = min(self._passes, key=lambda one: one.reference_us)
        counted = [one for one in self._passes if one.reference_us <= slowest_us] or [fastest]
        reference_us = float(np.median([one.reference_us for one in counted]))
        return reference_us, [
            [one.samples_us[index] * (reference_us / one.reference_us) for one in counted]
            for index in range(self.num_layers)
        ]

    def _row(self, samples_us: Sequence[float], overhead_us: float, reference_us: float) -> Measurement:
        """A layer's row; the mean of the middle half stands for the median, which the clock's ticks would round."""
        row = summarise(samples_us, overhead_us=overhead_us, reference_us=reference_us)
        quarter = len(samples_us) // 4
        middle_us = float(np.mean(sorted(samples_us)[quarter : len(samples_us) - quarter])) - overhead_us
        latency_us = min(max(middle_us, row.p10_us), row.p90_us)
        return replace(row, latency_us=latency_us, footprint_bytes=self._footprint.num_bytes)


def batches(layers: Iterable[T]) -> Iterator[list[T]]:
    """Cuts a stream of layers into batches that can be held open at once."""
    waiting = iter(layers)
    while batch := list(islice(waiting, _MAX_LAYERS)):
        yield batch


def windows(layers: Iterable[Layer]) -> Iterator[list[list[Layer]]]:
    """Cuts a stream of layers into batches, and these into windows that may take turns."""
    window: list[list[Layer]] = []
    num_bytes = 0
    for batch in batches(layers):
        window.append(batch)
        num_bytes += sum(layer.num_bytes for layer in batch)
        if len(window) == _MAX_BATCHES or num_bytes >= _MAX_WEIGHT_BYTES:
            yield window
            window, num_bytes = [], 0
    if window:
        yield window


def _groups(layers: Sequence[Layer], weight_bytes: int) -> Iterator[list[int]]:
    """Cuts a batch into stretches with at least ``weight_bytes`` of weights each."""
    group: list[int] = []
    for index in range(len(layers)):
        group.append(index)
        if sum(layers[member].num_bytes for member in group) >= weight_bytes:
            yield group
            group = []
    if group:
        yield group


def _standard_error(row: Measurement) -> float:
    """Relative standard error of the median, from p10 and p90 of a normal distribution."""
    return 1.2533 * (row.p90_us - row.p10_us) / 2.563 / math.sqrt(row.num_samples) / row.latency_us


def _are_steady(errors: Sequence[float]) -> bool:
    return float(np.mean([error <= _STEADY_ERROR_FRACTION for error in errors])) >= _MIN_STEADY_FRACTION


def _doubt(error: float) -> str:
    return f"its median is known to {100 * error:.0f} % only" if _DOUBTFUL_ERROR_FRACTION < error < math.inf else ""
