"""The measuring loop on a clock of our own: bit-exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.device.faults import MeasurementError
from halp_trt.device.loop import (
    MAX_ATTEMPTS,
    Launch,
    Processor,
    involuntary_switches,
    take_turns,
    time_interleaved,
    warm_up,
)
from halp_trt.device.samples import Reading, Sample


class Clock:
    """Advances only when a run says so."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def run(self, name: str, us: float, log: list[str]) -> Callable[[], None]:
        def call() -> None:
            log.append(name)
            self.now_ns += round(us * 1000)

        return call


def test_every_round_runs_all_one_place_later() -> None:
    clock, log = Clock(), []
    runs = {name: clock.run(name, us, log) for name, us in (("a", 1.5), ("b", 20.0), ("c", 0.001))}
    samples = time_interleaved(runs, num_rounds=3, num_warmup=1, clock_ns=clock)
    assert samples == {"a": [1.5] * 3, "b": [20.0] * 3, "c": [0.001] * 3}
    assert "".join(log) == "cab" + "abc" + "bca" + "cab"


def test_a_fixed_order_stays() -> None:
    clock, log = Clock(), []
    runs = {name: clock.run(name, 1, log) for name in "abc"}
    time_interleaved(runs, num_rounds=2, num_warmup=2, rotate=False, clock_ns=clock)
    assert "".join(log) == "abc" * 4


def test_an_interrupted_sample_is_taken_again_but_not_for_ever() -> None:
    clock, log = Clock(), []
    counts = iter(
        [0, 1, 1, 1, 5, 6, 7, 8, 9, 10, 11, 12]
    )  # the first round's second attempt is quiet, the other's never
    runs = {"a": clock.run("a", 2, log)}
    samples = time_interleaved(runs, num_rounds=2, clock_ns=clock, interruptions=lambda: next(counts))
    assert samples == {"a": [2.0, 2.0]}
    assert len(log) == 2 + MAX_ATTEMPTS
    assert involuntary_switches() >= 0


@dataclass
class Pipeline:
    """A device that holds ``num_in_flight`` runs and logs what was started and read; some samples are disturbed."""

    num_in_flight: int = 2
    disturbed: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    num_started: int = 0

    def start(self, run: Callable[[], object]) -> tuple[int, object]:
        self.num_started += 1
        name = run()
        self.log.append(f"+{name}{self.num_started}")
        return self.num_started, name

    def read(self, mark: tuple[int, object]) -> Sample:
        number, name = mark
        self.log.append(f"-{name}{number}")
        return Sample(elapsed_us=float(number), enqueue_us=0.5, is_disturbed=number in self.disturbed)

    def conditions(self) -> Reading | None:
        return None


def test_a_run_is_started_before_the_one_before_it_is_read() -> None:
    device = Pipeline()
    launches = {name: Launch(run=lambda name=name: name, device=device) for name in "ab"}
    samples = take_turns(launches, num_rounds=2, num_warmup=1, rotate=False)
    assert " ".join(device.log) == "+a1 +b2 -a1 +a3 -b2 +b4 -a3 +a5 -b4 +b6 -a5 -b6"
    assert {name: [sample.elapsed_us for sample in taken] for name, taken in samples.items()} == {
        "a": [3.0, 5.0],
        "b": [4.0, 6.0],
    }


def test_a_disturbed_run_on_a_pipeline_is_started_again_at_the_end_of_it() -> None:
    device = Pipeline(disturbed={1, 3})
    launches = {name: Launch(run=lambda name=name: name, device=device) for name in "ab"}
    samples = take_turns(launches, num_rounds=1)
    assert " ".join(device.log) == "+a1 +b2 -a1 +a3 -b2 -a3 +a4 -a4"
    assert [sample.elapsed_us for sample in samples["a"]] == [4.0]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.sets(st.integers(1, 60)))
def test_every_pipeline_reads_every_run_of_every_round(
    depth: int, num_runs: int, num_rounds: int, disturbed: set[int]
) -> None:
    device = Pipeline(num_in_flight=depth, disturbed=disturbed)
    launches = {str(n): Launch(run=lambda n=n: n, device=device) for n in range(num_runs)}
    samples = take_turns(launches, num_rounds=num_rounds)
    assert [len(taken) for taken in samples.values()] == [num_rounds] * num_runs
    assert sum(entry.startswith("-") for entry in device.log) == device.num_started


def test_runs_of_two_devices_never_overlap() -> None:
    first = Pipeline()
    second = Pipeline(log=first.log)
    launches = {"a": Launch(run=lambda: "a", device=first), "b": Launch(run=lambda: "b", device=second)}
    take_turns(launches, num_rounds=2, rotate=False)
    assert " ".join(first.log) == "+a1 -a1 +b1 -b1 +a2 -a2 +b2 -b2"


@pytest.mark.parametrize(("us", "num_runs"), [(10, 4), (60_000, 1)])
def test_a_long_run_that_is_interrupted_is_not_taken_again(us: int, num_runs: int) -> None:
    clock, log = Clock(), []
    switches = iter(range(100))
    device = Processor(clock, lambda: next(switches))
    take_turns({"a": Launch(run=clock.run("a", us, log), device=device)}, num_rounds=1)
    assert log == ["a"] * num_runs


def test_a_sample_of_many_executions_is_divided() -> None:
    launch = Launch(run=lambda: "a", device=Pipeline(num_in_flight=1), num_executions=4)
    assert take_turns({"a": launch}, num_rounds=2)["a"] == [
        Sample(elapsed_us=0.25, enqueue_us=0.125),
        Sample(elapsed_us=0.5, enqueue_us=0.125),
    ]


def test_warm_up_lasts_until_the_device_has_worked_long_enough() -> None:
    clock, log = Clock(), []
    device = Processor(clock, lambda: 0)
    launches = {"a": Launch(run=clock.run("a", 10, log), device=device, num_executions=5)}
    assert warm_up(launches, busy_us=25) == 3  # one round, then two more: 30 us
    assert clock.now_ns == 30_000
    with pytest.raises(MeasurementError, match="took no time"):
        warm_up({"a": Launch(run=lambda: None, device=device)}, busy_us=1)


def test_a_launch_among_plain_calls_is_timed_by_its_own_device() -> None:
    clock, log = Clock(), []
    runs = {"gpu": Launch(run=lambda: "g", device=Pipeline(num_in_flight=1)), "cpu": clock.run("c", 7, log)}
    samples = time_interleaved(runs, num_rounds=2, clock_ns=clock, interruptions=lambda: 0)
    assert samples == {"gpu": [1.0, 2.0], "cpu": [7.0, 7.0]}
    runs["gpu"]()
    assert runs["gpu"].device.log[-2:] == ["+g3", "-g3"]


def test_time_without_a_core_is_no_time_of_a_run_and_a_long_run_that_lost_more_is_taken_again() -> None:
    clock, log = Clock(), []
    waits = iter([0, 30_000_000, 30_000_000, 30_000_500])  # asked from the second run on, before and after each
    switches = iter(range(100))
    device = Processor(clock, lambda: next(switches), lambda: next(waits))
    launch = Launch(run=clock.run("a", 100_000, log), device=device)
    first, second = take_turns({"a": launch}, num_rounds=2)["a"]
    assert first == Sample(elapsed_us=100_000)
    assert second == Sample(elapsed_us=100_000 - 0.5)
    assert len(log) == 3


def test_a_run_that_never_lost_its_core_asks_no_more_than_that() -> None:
    clock = Clock()
    device = Processor(clock, lambda: 0, lambda: pytest.fail("asked"))
    assert device.start(clock.run("a", 1, [])) == Sample(elapsed_us=1.0)
