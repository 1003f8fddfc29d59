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

__all__ = ["ROUNDS", "Layer", "ProbeNetwork", "Profile", "RoundBench", "Turns", "batches", "windows"]

ROUNDS = "profiled-arena"
"""Protocol: layers take turns in networks of nothing but probes, with memory as an arena has it, and are profiled."""

_ROUNDS_OF_A_PASS = 20
_FEWEST_ROUNDS = 10
_SECONDS_A_LAYER, _MOST_SECONDS = 0.03, 1.5
"""A pass ends after so long for every layer of a batch, or in all, once it has its fewest rounds."""
_CLOSE_ENOUGH = 0.015
"""A row whose standard error is below this share of it needs no more samples."""
_DOUBTFUL = 0.05
"""And above this share it is not to be trusted."""
_STEADY_SHARE = 0.9
"""So many layers of a batch must be known well enough before it ends early."""
_MAX_LAYERS = 64
_UNCHARGED_BYTES = 16e6
"""Where a network touches so much memory between two runs of a kernel, the runtime takes as long between two kernels as
its profiler charges: by engines of 0.2 to 25 ms against the sums of their kernels."""
_DISTURBED = 1.3
"""How much slower than at its best the reference may run before a pass does not count."""
_MAX_ATTEMPTS = 5
_MOST_BATCHES, _MOST_BYTES = 8, 1 << 29
"""That take turns, pass by pass; of weights, as all of them are held meanwhile."""


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

    A batch is measured in passes of some rounds, and batches take turns, pass by pass: what disturbs the machine for
    seconds (others at work on a shared processor, say) then meets each of them now and then, and none throughout.

    A reference network, run twice before every run of the layers, shows in its second run how fast the machine is. The
    passes of a batch are brought to one speed, a pass met by a slow moment does not count and is taken again, and what
    stays slow or wavering is marked with a doubt.

    Attributes:
        protocol: at most how many samples, and how many untimed rounds before them.
        open_network: makes a probe network of some layers, which write to an arena of so many bytes.
        reference: a small network of several kinds of layers.
        charge_us: what the profiler charges a kernel.
        calm_us: for every footprint the reference's median in the fastest pass so far.
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
            batches: what to measure; those of one batch are held open at once.
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
        """Memory to read, for as much as a network lacks."""
        needed = max(num_bytes, 0) // 4
        if needed > self._filler.size:
            self._filler = np.ones(needed, np.float32)  # zeros would all be one page, and touch nothing
        return self._filler[:needed]

    def tare_us(self, footprint: Footprint) -> float:
        """What is taken off for each kernel of a layer, in a network of such a footprint."""
        return self.charge_us * max(0.0, 1 - footprint.num_bytes / _UNCHARGED_BYTES)

    def _after_one_more_pass(self, turns: Turns, footprint: Footprint) -> list[Measurement]:
        """The rows of a batch once they are known, none before."""
        end = time.monotonic() + min(_MOST_SECONDS, _SECONDS_A_LAYER * turns.num_layers)
        num_left = self.protocol.num_samples - turns.num_rounds(_DISTURBED * self.calm_us.get(footprint, math.inf))
        for number in range(min(_ROUNDS_OF_A_PASS, max(num_left, 1))):
            if number >= _FEWEST_ROUNDS and time.monotonic() >= end:
                break
            turns.round()
        taken_us = turns.finish()
        calm_us = self.calm_us[footprint] = min(self.calm_us.get(footprint, math.inf), taken_us)
        slowest_us = _DISTURBED * calm_us
        num_slower = turns.num_slower(slowest_us)
        if taken_us > slowest_us and num_slower < _MAX_ATTEMPTS:
            time.sleep(0.1 * num_slower)
            return []
        rows, errors = turns.rows(slowest_us), turns.errors(slowest_us)
        is_known = rows[0].num_samples >= self.protocol.num_samples or _are_steady(errors)
        if not (is_known or num_slower >= _MAX_ATTEMPTS):
            return []
        slowness = rows[0].reference_us / calm_us
        disturbance = f"the machine ran {slowness:.1f} times slower than before" if slowness > _DISTURBED else ""
        return [replace(row, doubt=_doubt(error) or disturbance) for row, error in zip(rows, errors, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pass:
    """Rounds that ran one after the other.

    Attributes:
        num_rounds: how many.
        reference_us: the reference's median meanwhile.
        samples_us: of every layer in every round.
    """

    num_rounds: int
    reference_us: float
    samples_us: list[npt.NDArray[np.float64]]


class Turns:
    """Layers that take turns on a bench, round by round.

    Attributes:
        num_layers: how many there are.
    """

    def __init__(self, bench: RoundBench, layers: Sequence[Layer], footprint: Footprint) -> None:
        """Nothing is executed before the first round is asked for.

        Args:
            bench: how.
            layers: what.
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

    def round(self) -> None:
        """Runs every layer once, timed; at the beginning of a pass some rounds go before that are not."""
        if not self._networks:
            self._networks = [
                self._bench.open_network([self._layers[index] for index in group], self._footprint.arena_bytes)
                for group in self._groups
            ]
            self._num_runs, self._timed, self._reference_us = 0, [], []
            for _ in range(self._bench.protocol.num_warmup):
                self._run_all()
        self._reference_us += self._run_all()
        self._timed.append(self._num_runs - 1)

    def _run_all(self) -> list[float]:
        """Runs every network twice, the second time to be timed; gives what the reference took before each."""
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
        """Ends a pass; gives what the reference took in its rounds."""
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
        """Rounds of the passes in which the reference took no longer than that."""
        return sum(one.num_rounds for one in self._passes if one.reference_us <= slowest_us)

    def num_slower(self, slowest_us: float) -> int:
        """Passes so far in which the reference took longer than that."""
        return sum(one.reference_us > slowest_us for one in self._passes)

    def rows(self, slowest_us: float = math.inf) -> list[Measurement]:
        """The latency of every layer by all rounds so far, each at the speed of the median pass.

        Args:
            slowest_us: passes in which the reference took longer do not count; where all did, the fastest does.
        """
        reference_us, passes = self._at_one_speed(slowest_us)
        tare_us = self._bench.tare_us(self._footprint)
        return [
            self._row(np.concatenate(taken).tolist(), num * tare_us, reference_us)
            for taken, num in zip(passes, self._num_kernels, strict=True)
        ]

    def errors(self, slowest_us: float = math.inf) -> list[float]:
        """Standard error of every row, as a share of it: by how its passes differ, where that is more than chance.

        Samples of one pass are alike, so that their spread alone would promise too much; a single pass tells nothing of
        others, and its error is not known.
        """
        rows, (_, passes) = self.rows(slowest_us), self._at_one_speed(slowest_us)
        errors = []
        for row, taken in zip(rows, passes, strict=True):
            medians_us = [float(np.median(samples)) for samples in taken]
            among_us = float(np.std(medians_us, ddof=1)) if len(medians_us) > 1 else math.inf
            errors.append(max(_standard_error(row), among_us / math.sqrt(len(medians_us)) / row.latency_us))
        return errors

    def _at_one_speed(self, slowest_us: float) -> tuple[float, list[list[npt.NDArray[np.float64]]]]:
        """What the reference takes in the median pass, and of every layer the samples of all passes at that speed."""
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
        """The middle half's mean stands for the median, which the ticks of the profiler's clock would round."""
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
        if len(window) == _MOST_BATCHES or num_bytes >= _MOST_BYTES:
            yield window
            window, num_bytes = [], 0
    if window:
        yield window


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


def _are_steady(errors: Sequence[float]) -> bool:
    return float(np.mean([error <= _CLOSE_ENOUGH for error in errors])) >= _STEADY_SHARE


def _doubt(error: float) -> str:
    return f"its median is known to {100 * error:.0f} % only" if _DOUBTFUL < error < math.inf else ""
