"""Engines that take turns on devices of our own making: what is found about their ratio, and when it is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.device.gpu import GpuDevice, make_launch
from halp_trt.device.samples import Reading
from halp_trt.errors import UsageError
from halp_trt.runtimes import Array
from halp_trt.runtimes.gpu_timing import PROTOCOL
from halp_trt.timing import Launch, Sample, conditions_of
from halp_trt.workflows.compare import Certainty, Comparison, compare
from tests.device.fake_cuda import FakeCuda, scripted_watch

QUICK = Certainty(part_seconds=0.01, max_seconds=10.0)
"""Parts of a hundredth of a second, of the device's own clock."""


@dataclass
class Clockwork:
    """A device whose runs take as long as they say; its clock stands still otherwise."""

    num_in_flight: int = 1
    now_us: float = 0.0
    order: list[float] = field(default_factory=list)

    def start(self, run: Callable[[], object]) -> Sample:
        elapsed_us = run()
        assert isinstance(elapsed_us, float)
        self.now_us += elapsed_us
        self.order.append(elapsed_us)
        return Sample(elapsed_us=elapsed_us)

    def read(self, mark: Sample) -> Sample:
        return mark

    def conditions(self) -> Reading | None:
        return None

    def seconds(self) -> float:
        return self.now_us / 1e6


class Engine:
    """A session of known latency. It keeps its speed for hundreds of runs, then has another, as machines do."""

    def __init__(self, device: Clockwork, latency_us: float, *, wavering: float = 0.0, seed: int = 0) -> None:
        self.device, self.latency_us, self.wavering, self.seed = device, latency_us, wavering, seed
        self.input_shapes: Mapping[str, tuple[int, ...]] = {"x": (1,)}
        self.output_names = ("y",)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": inputs["x"]}

    def bind(self, inputs: Mapping[str, Array]) -> Launch:
        random, num_runs, speed = np.random.default_rng(self.seed), 0, 1.0

        def run() -> float:
            nonlocal num_runs, speed
            if num_runs % 50 == 0:
                speed = math.exp(self.wavering * random.standard_normal())
            num_runs += 1
            return float(self.latency_us * speed)

        return Launch(run=run, device=self.device)

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        return {}


def compared(
    until: Certainty = QUICK, *, wavering: float = 0.0, swapped: bool = False, scale: float = 1.0
) -> Comparison:
    """An engine of 100 us and one of half of that."""
    device = Clockwork()
    engines = {
        "dense": Engine(device, 100.0 * scale, wavering=wavering, seed=1),
        "pruned": Engine(device, 50.0 * scale, wavering=wavering, seed=2),
    }
    base = "pruned" if swapped else "dense"
    return compare(engines, {}, until=until, base=base, clock=device.seconds)


def num_parts(found: Comparison) -> int:
    ((_, ratios),) = found.part_ratios.items()
    return len(ratios)


def test_the_ratio_of_steady_engines_is_found_in_the_fewest_parts() -> None:
    found = compared()
    assert (found.base, found.ratio, found.ratio_error_fraction) == ("dense", pytest.approx(0.5), 0.0)
    assert num_parts(found) == QUICK.min_parts
    assert {name: row.latency_us for name, row in found.measurements.items()} == {"dense": 100.0, "pruned": 50.0}
    assert {row.num_samples for row in found.measurements.values()} == {QUICK.min_parts * 66}, "10 ms by 150 us"


def test_engines_that_waver_take_more_parts_until_the_error_is_small_enough() -> None:
    until = replace(QUICK, error_fraction=0.01, max_parts=1_000)
    found = compared(until, wavering=0.05)
    assert until.min_parts < num_parts(found) < until.max_parts
    assert found.ratio_error_fraction <= until.error_fraction
    assert abs(found.ratio / 0.5 - 1) < 4 * found.ratio_error_fraction


def test_the_error_shrinks_with_the_square_root_of_the_parts() -> None:
    few, many = (
        compared(replace(QUICK, error_fraction=0.0, min_parts=parts, max_parts=parts), wavering=0.05)
        for parts in (20, 320)
    )
    assert many.ratio_error_fraction == pytest.approx(few.ratio_error_fraction / 4, rel=0.5)


def test_the_error_covers_the_truth_as_often_as_it_should() -> None:
    misses = 0
    for seed in range(60):
        device = Clockwork()
        engines = {
            name: Engine(device, us, wavering=0.05, seed=2 * seed + place)
            for place, (name, us) in enumerate({"dense": 100.0, "pruned": 50.0}.items())
        }
        until = replace(QUICK, error_fraction=0.0, min_parts=20, max_parts=20)
        found = compare(engines, {}, until=until, clock=device.seconds)
        misses += abs(found.ratio / 0.5 - 1) > 2 * found.ratio_error_fraction
    assert misses <= 9, "about one in twenty lies outside of two standard errors"


def test_engines_that_never_settle_end_after_the_most_parts_or_the_most_seconds() -> None:
    assert num_parts(compared(wavering=0.5)) == QUICK.max_parts
    by_time = compared(replace(QUICK, min_parts=1, max_parts=10_000, max_seconds=0.2), wavering=0.5)
    assert 10 < num_parts(by_time) < 40
    assert math.isinf(compared(replace(QUICK, min_parts=1, max_seconds=0.0), wavering=0.5).ratio_error_fraction)


def test_parts_are_shorter_where_there_is_time_for_few() -> None:
    until = replace(QUICK, max_seconds=0.01)
    assert until.num_rounds(150.0) == 13
    assert QUICK.num_rounds(150.0) == 66
    assert num_parts(compared(until)) == until.min_parts


@given(st.floats(0.1, 1e7), st.floats(0, 100))
def test_rounds_stay_within_their_limits(round_us: float, seconds: float) -> None:
    until = Certainty(part_seconds=seconds)
    assert until.min_rounds <= until.num_rounds(round_us) <= until.max_rounds


@pytest.mark.parametrize("wavering", [0.0, 0.05])
def test_swapping_the_engines_mirrors_the_ratio(wavering: float) -> None:
    found, mirrored = compared(wavering=wavering), compared(wavering=wavering, swapped=True)
    assert mirrored.base == "pruned"
    assert mirrored.ratio == pytest.approx(1 / found.ratio)
    assert mirrored.ratio_error_fraction == pytest.approx(found.ratio_error_fraction)
    assert mirrored.measurements == found.measurements


def test_a_slower_device_changes_no_ratio() -> None:
    until = replace(QUICK, min_rounds=50, max_rounds=50)
    one, two = compared(until, wavering=0.02), compared(until, wavering=0.02, scale=2.0)
    assert two.ratio == pytest.approx(one.ratio)
    assert two.measurements["pruned"].latency_us == pytest.approx(2 * one.measurements["pruned"].latency_us)


def test_several_engines_are_compared_with_the_one_that_is_named() -> None:
    device = Clockwork()
    engines = {name: Engine(device, us) for name, us in (("a", 100.0), ("b", 50.0), ("c", 200.0))}
    found = compare(engines, {}, until=QUICK, base="b", clock=device.seconds)
    assert {name: found.ratio_of(name) for name in "abc"} == pytest.approx({"a": 2.0, "b": 1.0, "c": 4.0})
    assert found.error_of("b") == found.worst_error_fraction == 0.0
    with pytest.raises(UsageError, match="2 engines are compared with 'b'; say whose ratio"):
        _ = found.ratio


def test_each_part_begins_with_another_engine() -> None:
    device = Clockwork()
    engines = {name: Engine(device, us) for name, us in (("a", 1.0), ("b", 2.0))}
    until = Certainty(min_parts=2, max_parts=2, min_rounds=3, max_rounds=3)
    compare(engines, {}, until=until, clock=device.seconds)
    assert device.order[-12:] == [1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2, 1]


def test_an_engine_alone_has_a_latency_and_no_ratio() -> None:
    device = Clockwork()
    found = compare({"one": Engine(device, 80.0)}, {}, until=QUICK, clock=device.seconds)
    assert found.measurements["one"].latency_us == 80.0
    assert (dict(found.part_ratios), found.worst_error_fraction) == ({}, 0.0)
    with pytest.raises(UsageError, match="0 engines are compared with 'one'"):
        _ = found.ratio_error_fraction


def test_a_base_that_is_no_engine_is_refused() -> None:
    with pytest.raises(UsageError, match="no engine 'x' to compare with; choose one of a"):
        compare({"a": Engine(Clockwork(), 1.0)}, {}, until=QUICK, base="x")
    with pytest.raises(UsageError, match="choose one of at least one"):
        compare({}, {}, until=QUICK)


@pytest.mark.parametrize(
    "senseless",
    [
        {"min_parts": 0},
        {"min_parts": 3, "max_parts": 2},
        {"min_rounds": 0},
        {"min_rounds": 9, "max_rounds": 8},
        {"part_seconds": math.inf},
        {"part_seconds": -1.0},
        {"error_fraction": math.nan},
        {"max_seconds": -1.0},
    ],
)
def test_senseless_certainties_are_refused(senseless: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="got Certainty"):
        replace(Certainty(), **senseless)


class OnProcessor(Engine):
    """A session of plain calls, which are counted."""

    num_runs = 0

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        def call() -> None:
            self.num_runs += 1

        return call


def test_engines_on_the_processor_run_equally_often_and_have_no_protocol_of_their_own() -> None:
    engines = {name: OnProcessor(Clockwork(), 1.0) for name in ("dense", "pruned")}
    rows = compare(engines, {}, until=Certainty.lasting(0.0)).measurements
    assert engines["dense"].num_runs == engines["pruned"].num_runs > 20
    assert {row.num_samples for row in rows.values()} == {20}
    assert {(row.protocol, row.before, row.after) for row in rows.values()} == {(None, None, None)}


class OnGpu(Engine):
    """A session that runs on a GPU made of numbers."""

    def __init__(self, gpu: GpuDevice, latency_us: float) -> None:
        super().__init__(Clockwork(), latency_us)
        self.gpu = gpu

    def bind(self, inputs: Mapping[str, Array]) -> Launch:
        return make_launch(self.gpu, lambda: self.gpu.stream.kernel(self.latency_us), num_executions=1)


def test_engines_on_a_gpu_are_timed_by_its_events_and_carry_its_conditions() -> None:
    cuda, states = FakeCuda(), [Reading(clock_mhz=mhz) for mhz in (1400.0, 1400.0, 1400.0, 1100.0)]
    gpu = GpuDevice(cuda.stream(), scripted_watch(states), clock_ns=cuda.clock_ns)
    sessions = {"dense": OnGpu(gpu, 900.0), "pruned": OnGpu(gpu, 300.0)}
    found = compare(sessions, {}, until=Certainty.lasting(0.1))
    times = found.measurements
    assert {name: row.latency_us for name, row in times.items()} == {"dense": 900.0, "pruned": 300.0}
    assert found.ratio == pytest.approx(1 / 3)
    assert times["dense"].num_samples == 80
    assert (times["dense"].before, times["dense"].after) == (conditions_of(states[0]), conditions_of(states[2]))
    assert times["dense"].doubt == ""
    assert times["pruned"].protocol == replace(PROTOCOL, num_samples=80, num_warmup=3, warmup_ms=0.0, num_executions=1)
    assert times["pruned"].enqueue_us == cuda.enqueue_us
    assert times["pruned"].doubt == "the core clock went from 1400 to 1100 MHz, lock it"
