"""Rounds on a clock of our own: bit-exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, repeat

import numpy as np
import pytest

from halp_trt.runtimes import processor_bench
from halp_trt.runtimes.processor_bench import ROUNDS, RoundBench, Rounds, Seat, _groups, at_speed, batches
from halp_trt.specs import Protocol
from halp_trt.timing import MAX_ATTEMPTS, Processor

CHAINS = (12.0, 17.0)
OVERHEAD = 2 * CHAINS[0] - CHAINS[1]


@dataclass
class Machine:
    """A processor whose clock moves only while it works, and a log of what ran."""

    now_ns: int = 0
    num_switches: int = 0
    log: list[str] = field(default_factory=list)

    def work(self, name: str, *us: float, disturbed: Iterator[bool] = repeat(False)) -> Callable[[], None]:  # noqa: B008
        """A call that takes these microseconds in turn, and may lose the core."""
        times = cycle(us)

        def run() -> None:
            self.log.append(name)
            self.now_ns += round(next(times) * 1000)
            self.num_switches += next(disturbed)

        return run

    def bench(self, monkeypatch: pytest.MonkeyPatch, *reference_us: float, num_samples: int = 200) -> RoundBench:
        monkeypatch.setattr(processor_bench.time, "monotonic", lambda: self.now_ns / 1e9)
        monkeypatch.setattr(processor_bench.time, "sleep", lambda seconds: self.log.append(f"sleep {seconds:.1f}"))
        one, two = (self.work(name, us) for name, us in zip(("one", "two"), CHAINS, strict=True))
        return RoundBench(
            protocol=Protocol(method=ROUNDS, num_samples=num_samples, num_warmup=2),
            reference=self.work("reference", *(reference_us or (50.0,))),
            settle=self.work("settle", 1.0),
            chains=(one, two),
            processor=Processor(lambda: self.now_ns, lambda: self.num_switches),
        )

    def seat(self, name: str, *us: float, num_bytes: int = 0, disturbed: Iterator[bool] = repeat(False)) -> Seat:  # noqa: B008
        return Seat(
            run=self.work(name, *us, disturbed=disturbed), prepare=self.work(f"write {name}", 3.0), num_bytes=num_bytes
        )


def test_a_round_runs_each_layer_after_its_input_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    taken = Rounds(num_seats=2)
    machine.bench(monkeypatch).round([machine.seat("a", 100.0), machine.seat("b", 40.0)], 0, taken)
    weighing = ["reference", "settle", "reference", "settle", "one", "settle", "two"]
    assert machine.log == [*weighing, "write a", "settle", "a", *weighing, "write b", "settle", "b"]
    assert (taken.samples, taken.reference, taken.tares) == ([[100.0], [40.0]], [50.0] * 2, ([12.0] * 2, [17.0] * 2))


def test_long_rounds_weigh_the_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, taken = Machine(), Rounds(num_seats=25)
    machine.bench(monkeypatch).round([machine.seat(f"s{n}", 1.0 + n) for n in range(25)], 0, taken)
    assert machine.log.count("one") == machine.log.count("two") == len(taken.reference) == 9, (
        "eight at first, then one for twelve layers"
    )
    assert taken.samples == [[1.0 + n] for n in range(25)]


def test_a_layer_costs_its_median_less_what_a_call_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    bench = machine.bench(monkeypatch, num_samples=9)
    (steady, wavering) = bench.measure([machine.seat("a", 100.0), machine.seat("b", 30.0, 40.0, 50.0)], 1 << 20)
    assert (steady.p10_us, steady.latency_us, steady.p90_us) == (100.0 - OVERHEAD,) * 3
    assert (wavering.p10_us, wavering.latency_us, wavering.p90_us) == (30 - OVERHEAD, 40 - OVERHEAD, 50 - OVERHEAD)
    assert (steady.num_samples, steady.reference_us, steady.footprint_bytes) == (9, 50.0, 1 << 20)
    assert machine.log.count("a") == 2 + 9, "two rounds of warm-up"


def test_what_was_taken_is_turned_into_rows() -> None:
    taken = Rounds(num_seats=2, reference=[10.0, 12.0, 40.0], tares=([5.0, 6.0, 7.0], [8.0, 8.0, 8.0]))
    taken.samples[0].extend([14.0, 48.0, 17.0])
    taken.speeds[0].extend([12.0, 24.0, 6.0])  # at the usual speed, at half of it, and at twice
    taken.samples[1].extend([1.0, 1.0, 1.0])
    taken.speeds[1].extend([12.0, 12.0, 12.0])
    assert (taken.overhead_us, taken.reference_us) == (4.0, 12.0)
    first, second = taken.measurements(77)
    assert (first.latency_us, first.num_samples, first.reference_us, first.footprint_bytes) == (20.0, 3, 12.0, 77)
    assert second.latency_us == 0.01, "nothing takes less than nothing"
    assert Rounds(num_seats=0, tares=([5.0], [11.0])).overhead_us == 0.0, "a call that weighs less than nothing"


def test_a_disturbed_sample_is_taken_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, taken = Machine(), Rounds(num_seats=2)
    once = machine.seat("a", 900.0, 100.0, disturbed=iter([True, False]))
    always = machine.seat("b", 40.0, disturbed=repeat(True))
    machine.bench(monkeypatch).round([once, always], 0, taken)
    assert taken.samples == [[100.0], [40.0]]
    assert machine.log.count("write a") == machine.log.count("a") == 2, "its input is written anew"
    assert machine.log.count("b") == MAX_ATTEMPTS


def slow_at(*calls: int) -> list[float]:
    """The reference's microseconds over many calls; in these rounds it is twice as slow."""
    return [100.0 if index // 2 in calls else 50.0 for index in range(400)]


def test_a_batch_met_by_a_slow_moment_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    bench = machine.bench(monkeypatch, *slow_at(*range(7, 14)), num_samples=5)  # each attempt: 2 + 5 rounds
    assert bench.measure([machine.seat("a", 100.0)], 1)[0].reference_us == 50.0
    assert bench.calm_us == {1: 50.0}
    assert bench.measure([machine.seat("b", *[200.0] * 7, *[100.0] * 7)], 1)[0].latency_us == 100.0 - OVERHEAD
    assert [entry for entry in machine.log if entry.startswith("sleep")] == ["sleep 0.1"]
    assert machine.log.count("b") == 2 * 7


def test_a_machine_that_stays_slow_is_believed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    bench = machine.bench(monkeypatch, *slow_at(*range(7, 200)), num_samples=5)
    bench.measure([machine.seat("a", 100.0)], 1)
    (slow,) = bench.measure([machine.seat("b", 200.0)], 1)
    assert slow.reference_us == 100.0
    assert len([entry for entry in machine.log if entry.startswith("sleep")]) == 4
    (other,) = bench.measure([machine.seat("c", 200.0)], 2)
    assert other.reference_us == 100.0
    assert machine.log.count("c") == 7, "another footprint has a calm of its own"


def test_rounds_end_when_medians_are_steady_or_samples_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    steady = machine.bench(monkeypatch).measure([machine.seat("a", 100_000.0)], 0)
    assert steady[0].num_samples == 12, "at least ten, in sweeps of four"
    short = machine.bench(monkeypatch).measure([machine.seat("a", 100.0)], 0)
    assert short[0].num_samples == 200, "steady, but not for 30 ms"
    wavering = machine.bench(monkeypatch, num_samples=42).measure([machine.seat("a", 100_000.0, 200_000.0)], 0)
    assert wavering[0].num_samples == 42
    mostly = [machine.seat(f"s{n}", 100_000.0) for n in range(9)] + [machine.seat("w", 1_000.0, 2_000.0)]
    assert machine.bench(monkeypatch).measure(mostly, 1)[0].num_samples == 12, "nine of ten are known"


def test_layers_that_fill_several_footprints_take_turns_in_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    seats = [machine.seat(name, 100_000.0, num_bytes=60) for name in "abcd"]
    rows = machine.bench(monkeypatch).measure(seats, 100)
    runs = "".join(entry for entry in machine.log if entry in "abcd")
    assert runs.startswith("ab" * 2 + "ab" * 4 + "cd" * 2 + "cd" * 4 + "ab" + "ab" * 4 + "cd" + "cd" * 4)
    assert [row.num_samples for row in rows] == [12] * 4, "the first round of a sweep is not timed"


def test_memory_is_read_to_make_up_what_layers_do_not_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    bench = machine.bench(monkeypatch)
    seats = [
        Seat(run=machine.work("a", 1.0), prepare=machine.work("w", 1.0), num_bytes=1 << 20, num_shared_bytes=3 << 20),
        Seat(run=machine.work("b", 1.0), prepare=machine.work("w", 1.0), num_bytes=1 << 20, num_shared_bytes=2 << 20),
    ]
    read: list[int] = []
    fill = bench._fill
    monkeypatch.setattr(RoundBench, "_fill", lambda self, size: read.append(size) or fill(size))
    for footprint in (16 << 20, 5 << 20, 1 << 20):
        bench.round(seats, footprint, Rounds(num_seats=2))
    assert read == [11 << 20, 0, -4 << 20], "the weights of all and the largest of what they share"
    assert [fill(size).nbytes for size in (11 << 20, 5 << 20, 0, -4)] == [11 << 20, 5 << 20, 0, 0]
    assert fill(11 << 20).dtype == np.float32


def test_batches_are_never_long_and_not_read_ahead() -> None:
    machine, opened = Machine(), []

    def seats() -> Iterator[Seat]:
        for number in range(150):
            opened.append(number)
            yield machine.seat("s", 1.0)

    assert [len(batch) for batch in batches(seats())] == [64, 64, 22]
    assert list(batches([])) == []
    opened.clear()
    next(iter(batches(seats())))
    assert len(opened) == 64


def test_groups_fill_a_footprint() -> None:
    machine = Machine()
    light, heavy = machine.seat("light", 1.0, num_bytes=1), machine.seat("heavy", 1.0, num_bytes=100)
    assert list(_groups([light] * 150, 1000)) == [list(range(150))]
    assert list(_groups([heavy, light, light, heavy], 100)) == [[0], [1, 2, 3]]
    assert list(_groups([light] * 3, 0)) == [[0], [1], [2]]
    assert list(_groups([], 100)) == []
    shared = Seat(run=light.run, prepare=light.prepare, num_bytes=40, num_shared_bytes=25)
    assert list(_groups([shared] * 5, 100)) == [[0, 1], [2, 3], [4]], "what is shared counts once"


def test_rows_are_brought_to_one_speed() -> None:
    taken = Rounds(num_seats=1, reference=[20.0], tares=([0.0], [0.0]))
    taken.samples[0].extend([100.0, 110.0, 120.0])
    taken.speeds[0].extend([20.0] * 3)
    (row,) = taken.measurements(0)
    assert at_speed(row, 10.0).latency_us == 55.0
    assert at_speed(row, 10.0).reference_us == 20.0
    assert at_speed(row, 0.0) == row
