"""Layers that take turns in made-up networks, on a clock of our own: bit-exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle

import numpy as np
import pytest

from halp_trt.runtimes.cpu import round_bench
from halp_trt.runtimes.cpu.round_bench import ROUNDS, Profile, RoundBench, Turns, _groups, batches, windows
from halp_trt.specs import Footprint, Measurement, TimingProtocol
from halp_trt.timing import Processor

TARE = 3.0
"""What the profiler charges a kernel; nearly all of it is taken off here, as little memory is touched."""


def of(weight_bytes: int, arena_bytes: int = 0) -> Footprint:
    return Footprint(weight_bytes=weight_bytes, arena_bytes=arena_bytes)


@dataclass(kw_only=True)
class Work:
    """A layer: what it takes in its runs, in turn."""

    name: str = "a"
    us: tuple[float, ...] = (100.0,)
    num_bytes: int = 0
    num_kernels: int = 1

    def __post_init__(self) -> None:
        self.times = cycle(self.us)


@dataclass
class Network:
    """Layers whose every run moves the clock, and is seen by the profiler."""

    machine: Machine
    layers: Sequence[Work]
    num_bytes: int = 0
    seen: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.num_bytes = sum(layer.num_bytes for layer in self.layers)

    def run(self) -> None:
        self.machine.log.append("".join(layer.name for layer in self.layers))
        self.seen.append([next(layer.times) for layer in self.layers])
        self.machine.now_ns += round(1000 * sum(self.seen[-1]))

    def finish(self) -> Profile:
        self.machine.log.append("finish")
        return Profile(
            samples_us=np.asarray(self.seen).T,
            num_kernels=np.asarray([layer.num_kernels for layer in self.layers]),
        )


@dataclass
class Machine:
    """A processor whose clock moves only while it works, and a log of what ran."""

    now_ns: int = 0
    taken_fraction: float = 0.0
    log: list[str] = field(default_factory=list)
    arenas: list[int] = field(default_factory=list)

    def work(self, name: str, *us: float) -> Callable[[], None]:
        """A call that takes these microseconds in turn."""
        times = cycle(us)

        def run() -> None:
            self.log.append(name)
            self.now_ns += round(next(times) * 1000)

        return run

    def network(self, layers: Sequence[Work], arena_bytes: int) -> Network:
        self.arenas.append(arena_bytes)
        return Network(self, layers)

    def bench(self, monkeypatch: pytest.MonkeyPatch, *reference_us: float, num_samples: int = 60) -> RoundBench:
        monkeypatch.setattr(round_bench.time, "monotonic", lambda: self.now_ns / 1e9)
        monkeypatch.setattr(round_bench.time, "sleep", lambda seconds: self.log.append(f"sleep {seconds:.1f}"))
        return RoundBench(
            protocol=TimingProtocol(method=ROUNDS, num_samples=num_samples, num_warmup=2),
            open_network=self.network,
            reference=self.work("reference", *(reference_us or (50.0,))),
            charge_us=TARE,
            processor=Processor(lambda: self.now_ns, lambda: 0, lambda: round(self.taken_fraction * self.now_ns)),
        )


def test_a_round_runs_a_network_untimed_and_timed_after_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    layers = [Work(name="a", us=(1.0, 90.0)), Work(name="b", us=(1.0, 40.0), num_kernels=3)]
    turns = Turns(machine.bench(monkeypatch), layers, of(77, arena_bytes=3))
    turns.round()
    turns.round()
    once = ["reference", "reference", "ab", "ab"]
    assert machine.log == once * 4, "two rounds of warm-up"
    first, second = turns.rows()
    assert (first.latency_us, first.p10_us, first.p90_us) == pytest.approx((90.0 - TARE,) * 3, abs=1e-4), (
        "the second of two runs counts"
    )
    assert second.latency_us == pytest.approx(40.0 - 3 * TARE, abs=1e-4), "the profiler charges each kernel"
    assert (first.num_samples, first.reference_us, first.footprint_bytes) == (2, 50.0, 80)
    assert machine.arenas == [3]


@pytest.mark.parametrize(("taken_fraction", "doubt"), [(0.04, ""), (0.3, "other work had the core for more than 5 %")])
def test_rows_of_a_core_that_other_work_had_are_doubted(
    monkeypatch: pytest.MonkeyPatch, taken_fraction: float, doubt: str
) -> None:
    machine = Machine(taken_fraction=taken_fraction)
    (row,) = machine.bench(monkeypatch).measure([Work()], of(1))
    assert row.doubt.startswith(doubt)
    assert bool(row.doubt) == bool(doubt)


def test_rows_may_be_asked_for_between_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    turns = Turns(machine.bench(monkeypatch), [Work(us=(100.0,))], of(1))
    turns.round()
    assert turns.rows()[0].num_samples == 1
    turns.round()
    assert turns.rows()[0].num_samples == 2, "what was seen before counts too"
    assert machine.log.count("finish") == 2
    assert machine.log.count("a") == 2 * 2 * 3, "a new network is warmed up again"


@pytest.mark.slow
def test_less_is_taken_off_where_much_memory_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Machine().bench(monkeypatch)
    for footprint, tare_us in ((0, TARE), (4_000_000, 0.75 * TARE), (16_000_000, 0.0), (10**9, 0.0)):
        turns = Turns(bench, [Work(num_kernels=2)], of(footprint))
        turns.round()
        assert bench.tare_us(of(footprint)) == tare_us
        assert turns.rows()[0].latency_us == 100.0 - 2 * tare_us


def test_layers_that_fill_several_footprints_are_several_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    layers = [Work(name=name, num_bytes=60, us=(us,)) for name, us in zip("abcd", (1e3, 2e3, 3e3, 4e3), strict=True)]
    turns = Turns(machine.bench(monkeypatch), layers, of(100))
    turns.round()
    assert machine.log == ["reference", "reference", "ab", "ab", "reference", "reference", "cd", "cd"] * 3
    assert [row.latency_us for row in turns.rows()] == pytest.approx(
        [us - TARE for us in (1e3, 2e3, 3e3, 4e3)], abs=1e-4
    )


def test_memory_is_read_to_make_up_for_missing_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [Work(name="a", num_bytes=1 << 20), Work(name="b", num_bytes=2 << 20)]
    for weights, filled in ((16 << 20, 13 << 20), (3 << 20, 4), (2 << 20, 4)):
        bench = Machine().bench(monkeypatch)
        Turns(bench, layers, of(weights, arena_bytes=5 << 20)).round()
        assert bench._filler.nbytes == filled
        assert (bench._filler == 1).all(), "zeros would be one page"


def test_a_bench_stops_when_medians_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    (steady,) = machine.bench(monkeypatch).measure([Work(us=(100_000.0,))], of(0))
    assert (steady.num_samples, steady.doubt) == (20, ""), "twice its fewest rounds, as the time is over"
    (short,) = machine.bench(monkeypatch).measure([Work(us=(100.0,))], of(0))
    assert short.num_samples == 40, "two passes of rounds: one tells nothing of others"
    mostly = [Work(us=(100.0,)) for _ in range(9)] + [Work(us=(50.0, 50.0, 250.0, 250.0))]
    assert {row.num_samples for row in machine.bench(monkeypatch).measure(mostly, of(1))} == {40}, (
        "nine of ten are known"
    )


@pytest.mark.parametrize(("slower_us", "doubt"), [(110.0, ""), (130.0, "its median is known to 10 % only")])
def test_passes_that_differ_tell_more_of_the_error_than_samples_that_do_not(
    monkeypatch: pytest.MonkeyPatch, slower_us: float, doubt: str
) -> None:
    passes = [Work(us=(*[100.0] * 44, *[slower_us] * 44), num_bytes=20_000_000)]  # 22 rounds of two runs each
    (row,) = Machine().bench(monkeypatch).measure(passes, of(20_000_000))
    assert (row.num_samples, row.doubt) == (60, doubt)


def test_what_wavers_to_the_end_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = Machine().bench(monkeypatch, num_samples=30).measure([Work(us=(50.0, 50.0, 250.0, 250.0))], of(0))
    assert row.num_samples == 30
    assert row.doubt == "its median is known to 12 % only"


def slow_at(*runs: int) -> list[float]:
    """The reference's microseconds over many timed runs; in these it is twice as slow."""
    return [100.0 if index // 2 in runs else 50.0 for index in range(400)]


def test_batches_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    wavering = (50.0, 50.0, 250.0, 250.0)
    first, second = machine.bench(monkeypatch).measure_all(
        [[Work(name="a", us=wavering)], [Work(name="b", us=wavering), Work(name="c")]], of(0)
    )
    ran = [entry for entry in machine.log if entry in ("a", "b", "c")]
    passes = [name for name, before in zip(ran, [None, *ran], strict=False) if name != before]
    assert passes == ["a", *["b", "c"] * 22] * 3
    assert [row.num_samples for row in (*first, *second)] == [60, 60, 60]


def test_passes_are_brought_to_the_speed_of_the_median_one(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(
        Machine().bench(monkeypatch, *[50.0] * 6, *[60.0] * 6, *[55.0] * 6),
        [Work(us=(5.0,) * 6 + (6.0,) * 6 + (5.5,) * 6)],
        of(20_000_000),
    )
    for reference_us in (50.0, 60.0, 55.0):
        turns.round()
        assert turns.finish() == reference_us
    (row,) = turns.rows()
    assert (row.p10_us, row.latency_us, row.p90_us, row.reference_us) == (*[pytest.approx(5.5)] * 3, 55.0)
    (row,) = turns.rows(slowest_us=52.0)
    assert (row.num_samples, row.latency_us, row.reference_us) == (1, pytest.approx(5.0), 50.0)
    assert (turns.rows(slowest_us=1.0)[0].reference_us, turns.num_slower(52.0), turns.num_rounds(52.0)) == (50.0, 2, 1)


def test_a_pass_met_by_a_slow_moment_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    bench = machine.bench(monkeypatch, *slow_at(*range(44, 66)))  # each pass: 2 + 20 rounds
    assert bench.measure([Work(name="a")], of(1))[0].reference_us == 50.0
    assert bench.calm_us == {of(1): 50.0}
    (row,) = bench.measure([Work(name="b", us=(*[200.0] * 44, *[100.0] * 88))], of(1))
    assert (row.latency_us, row.doubt) == (pytest.approx(100.0 - TARE, abs=1e-4), "")
    assert [entry for entry in machine.log if entry.startswith("sleep")] == ["sleep 0.1"]


def test_a_machine_that_stays_slow_is_believed_with_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    bench = machine.bench(monkeypatch, *slow_at(*range(44, 400)))
    bench.measure([Work(name="a")], of(1))
    (slow,) = bench.measure([Work(name="b")], of(1))
    assert slow.reference_us == 100.0
    assert slow.doubt == "the machine ran 2.0 times slower than before"
    assert len([entry for entry in machine.log if entry.startswith("sleep")]) == 4
    wavering = (50.0, 50.0, 250.0, 250.0)
    (row,) = machine.bench(monkeypatch, *slow_at(*range(22, 400))).measure([Work(name="d", us=wavering)], of(0))
    assert (row.num_samples, row.reference_us) == (20, 50.0), "slow passes do not count, and it ends all the same"
    (other,) = bench.measure([Work(name="c")], of(2))
    assert (other.reference_us, other.doubt) == (100.0, ""), "another footprint has a calm of its own"


def test_batches_are_never_long_and_not_read_ahead() -> None:
    opened = []

    def layers() -> Iterator[Work]:
        for number in range(150):
            opened.append(number)
            yield Work()

    assert [len(batch) for batch in batches(layers())] == [64, 64, 22]
    assert list(batches([])) == []
    opened.clear()
    next(iter(batches(layers())))
    assert len(opened) == 64


def test_groups_fill_a_footprint() -> None:
    light, heavy = Work(num_bytes=1), Work(num_bytes=100)
    assert list(_groups([light] * 150, 1000)) == [list(range(150))]
    assert list(_groups([heavy, light, light, heavy], 100)) == [[0], [1, 2, 3]]
    assert list(_groups([light] * 3, 0)) == [[0], [1], [2]]
    assert list(_groups([], 100)) == []


def test_windows_hold_few_batches_and_bytes() -> None:
    assert [[len(batch) for batch in window] for window in windows([Work()] * 600)] == [[64] * 8, [64, 24]]
    heavy = [Work(num_bytes=1 << 23)] * 130
    assert [[len(batch) for batch in window] for window in windows(heavy)] == [[64], [64], [2]]
    assert list(windows([])) == []


def test_rows_are_brought_to_one_speed() -> None:
    row = Measurement(latency_us=110.0, p10_us=100.0, p90_us=120.0, num_samples=3, reference_us=20.0)
    slow = row.at_speed(10.0)
    assert slow == replace(row, latency_us=55.0, p10_us=50.0, p90_us=60.0, speed_us=10.0)
    assert slow.at_speed(20.0) == replace(row, speed_us=20.0)
    assert row.at_speed(0.0) == row
    assert replace(row, reference_us=0.0).at_speed(10.0) == replace(row, reference_us=0.0)
