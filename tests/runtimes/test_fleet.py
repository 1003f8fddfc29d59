"""Fleets: many devices of one kind measure the table of one, though some of them fail, vanish, stall or are slow."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from halp_trt.errors import BuildError, LinkError, MeasurementError, TargetMismatchError, UsageError
from halp_trt.latency import Effort, LatencyTable
from halp_trt.runtimes import Runtime, shards
from halp_trt.runtimes.fleet import MAX_OFF_FRACTION, NUM_ANCHORS, NUM_PROBES, Fleet
from halp_trt.runtimes.shards import Board
from halp_trt.runtimes.synthetic import FormulaProber, Synthetic
from halp_trt.specs import Footprint, Measurement, Target
from halp_trt.store import read_table
from halp_trt.workflows.survey import Survey, survey_lut
from tests.strategies import graph_of

TARGET = Synthetic().target("fp32", 1)
GRAPH = graph_of([("plain", 64, 0), ("residual", 48, 0), ("depthwise", 0, 0), ("grouped", 16, 12)])
REQUEST = Survey(effort=Effort(max_probes=5_000))
NOTHING = Footprint(weight_bytes=0, arena_bytes=0)


@dataclass
class Log:
    """What the devices measured, and whether one of them measured two probes at once."""

    probes: Counter[bytes] = field(default_factory=Counter)
    by_device: Counter[str] = field(default_factory=Counter)
    overlaps: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, kw_only=True)
class Member(Synthetic):
    """A synthetic device with a fault.

    Attributes:
        log: what is measured.
        factor: how much slower it is.
        seconds: how long a probe takes.
        fault: called with the number of its probe before each; raises what goes wrong.
        kind: the name of its kind.
    """

    title: str = "unit"
    log: Log = field(default_factory=Log)
    factor: float = 1.0
    seconds: float = 0.0
    fault: Callable[[int], None] = lambda number: None
    kind: str = TARGET.device

    def target(self, precision: str, batch_size: int) -> Target:
        return replace(super().target(precision, batch_size), device=self.kind)

    @contextmanager
    def prober(self, target: Target) -> Iterator[Probing]:
        yield Probing(self)


class Probing:
    def __init__(self, member: Member) -> None:
        self.member, self.formula, self.is_busy = member, FormulaProber(1), False

    def measure(self, probe: bytes) -> Measurement:
        member = self.member
        with member.log.lock:
            member.log.overlaps += self.is_busy
            self.is_busy = True
            member.log.by_device[member.title] += 1
            number = member.log.by_device[member.title]
        try:
            member.fault(number)
            if member.seconds:
                time.sleep(member.seconds)
            row = self.formula.measure(probe)
        finally:
            self.is_busy = False
        with member.log.lock:
            member.log.probes[probe] += 1
        return replace(row, **{name: getattr(row, name) * member.factor for name in ("latency_us", "p10_us", "p90_us")})


def vanishing(after: int) -> Callable[[int], None]:
    def fault(number: int) -> None:
        if number > after:
            raise LinkError("the link is cut")

    return fault


def failing(seed: int, share: float) -> Callable[[int], None]:
    chance = random.Random(seed)

    def fault(number: int) -> None:
        if chance.random() < share:
            raise LinkError("a cable is loose")

    return fault


def fleet_of(log: Log, told: list[str], **members: Member) -> Fleet:
    named = {name: replace(member, title=name, log=log) for name, member in members.items()}
    return Fleet(runtimes=named, tell=told.append)


def surveyed(runtime: Runtime, path: Path, *, resume: bool = False) -> LatencyTable:
    return survey_lut(GRAPH, REQUEST, path=path, runtime=runtime, target=TARGET, resume=resume)


def same(one: LatencyTable, other: LatencyTable) -> bool:
    laid, others = ({surface.key: surface for surface in table.surfaces} for table in (one, other))
    return dict(one.rows) == dict(other.rows) and laid == others


def probes(count: int) -> list[bytes]:
    """Probes that only :class:`Numbered` measures."""
    return [str(number).encode() for number in range(count)]


class Numbered(Member):
    """A device whose probes are numbers."""

    @contextmanager
    def prober(self, target: Target) -> Iterator[Probing]:
        probing = Probing(self)
        probing.formula = Numbers()  # type: ignore[assignment]
        yield probing


class Numbers:
    def measure(self, probe: bytes) -> Measurement:
        latency_us = 1.0 + int(probe)
        return Measurement(latency_us=latency_us, p10_us=latency_us, p90_us=latency_us, num_samples=1)


def measured(fleet: Fleet, count: int) -> dict[int, float]:
    found: dict[int, float] = {}
    with fleet.prober(TARGET) as prober:
        for rows in prober.measure_scattered(probes(count), NOTHING):
            assert not set(rows) & set(found)
            found |= {number: row.latency_us for number, row in rows.items()}
    return found


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return surveyed(Synthetic(), tmp_path_factory.mktemp("alone") / "t.jsonl")


def test_fifty_devices_measure_the_table_of_one(alone: LatencyTable, tmp_path: Path) -> None:
    log, told = Log(), list[str]()
    members = {f"unit-{number}": Member(seconds=0.002) for number in range(50)}
    members["unit-7"] = Member(factor=1.08)
    for number in (11, 12, 13):
        members[f"unit-{number}"] = Member(fault=vanishing(number))
    for number in range(20, 30):
        members[f"unit-{number}"] = Member(fault=failing(number, 0.02))
    table = surveyed(fleet_of(log, told, **members), tmp_path / "t.jsonl")
    assert same(table, alone)
    assert same(read_table(tmp_path / "t.jsonl"), alone)
    assert log.overlaps == 0
    (slow,) = [line for line in told if line.startswith("unit-7 ")]
    assert slow.startswith("unit-7 measures nothing more: it is 8 % slower than the others")


def test_a_killed_fleet_is_resumed_to_the_same_table(alone: LatencyTable, tmp_path: Path) -> None:
    log, told = Log(), list[str]()
    lost = {name: Member(fault=vanishing(60)) for name in ("a", "b", "c")}
    with pytest.raises(LinkError, match=r"all devices are lost: .*link is cut.*--resume"):
        surveyed(fleet_of(log, told, **lost), tmp_path / "t.jsonl")
    num_rows = len(read_table(tmp_path / "t.jsonl").rows)
    assert num_rows > 100
    again = Log()
    assert same(surveyed(fleet_of(again, told, d=Member()), tmp_path / "t.jsonl", resume=True), alone)
    assert sum(again.probes.values()) == len(alone.rows) - num_rows, "nothing is measured twice"


# ---- shares of the work ---------------------------------------------------------------------------------------------


def test_every_probe_is_measured_once_but_the_anchors() -> None:
    log, told = Log(), list[str]()
    members = {name: Numbered() for name in ("a", "b", "c")}
    assert measured(fleet_of(log, told, **members), 1_000) == {number: 1.0 + number for number in range(1_000)}
    twice = {probe: count for probe, count in log.probes.items() if count > 1}
    assert len(twice) == NUM_ANCHORS
    assert set(twice.values()) == {3}
    assert not told


@pytest.mark.parametrize("count", [0, 1, NUM_ANCHORS - 1, NUM_PROBES, NUM_PROBES + 1])
def test_few_probes_are_measured_too(count: int) -> None:
    assert sorted(measured(fleet_of(Log(), [], a=Numbered(), b=Numbered()), count)) == list(range(count))
    assert sorted(measured(fleet_of(Log(), [], a=Numbered()), count)) == list(range(count))


def test_one_slow_device_does_not_hold_up_the_rest() -> None:
    log = Log()
    members = {name: Numbered(seconds=0.001) for name in "bcd"} | {"a": Numbered(seconds=0.02)}
    measured(fleet_of(log, [], **members), 20 * NUM_PROBES)
    assert log.by_device["a"] <= NUM_ANCHORS + 2 * NUM_PROBES < min(log.by_device[name] for name in "bcd")


def test_a_silent_device_s_shard_is_given_to_another_and_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LEAST_STALL_SECONDS", 0.2)
    log, let_go = Log(), threading.Event()

    def hang(number: int) -> None:
        if number == NUM_ANCHORS + 5:
            let_go.wait(20)

    found = None
    try:
        fleet = fleet_of(log, [], a=Numbered(fault=hang), b=Numbered(), c=Numbered())
        with fleet.prober(TARGET) as prober:
            found = {}
            for rows in prober.measure_scattered(probes(200), NOTHING):
                found |= rows
                if len(found) == 200:
                    break
    finally:
        let_go.set()
    assert sorted(found) == list(range(200))


# ---- devices that are off or lost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1 + 2 * MAX_OFF_FRACTION, 1 - 2 * MAX_OFF_FRACTION])
def test_a_device_that_is_off_is_named_and_none_of_its_rows_count(factor: float) -> None:
    log, told = Log(), list[str]()
    members = {"a": Numbered(), "b": Numbered(factor=factor), "c": Numbered(), "d": Numbered()}
    fleet = fleet_of(log, told, **members)
    assert measured(fleet, 300) == {number: 1.0 + number for number in range(300)}
    way = "slower" if factor > 1 else "faster"
    assert told == [
        f"b measures nothing more: it is 6 % {way} than the others; look at its clocks, power mode and cooling"
    ]
    assert log.by_device["b"] == NUM_ANCHORS
    assert list(fleet.in_use) == ["a", "c", "d"]


def test_of_two_that_differ_the_one_that_was_named_first_counts() -> None:
    told = list[str]()
    fleet = fleet_of(Log(), told, b=Numbered(factor=1.1), a=Numbered())
    assert measured(fleet, 200) == {number: pytest.approx(1.1 * (1 + number)) for number in range(200)}
    assert told[0].startswith("a measures nothing more: it is 9 % faster")


def test_small_differences_are_a_kind_s_own() -> None:
    fleet = fleet_of(Log(), [], a=Numbered(), b=Numbered(factor=1.02), c=Numbered(factor=0.98))
    assert sorted(measured(fleet, 300)) == list(range(300))
    assert not fleet.left_out


def test_a_lost_device_is_tried_again_and_then_left_to_itself() -> None:
    log, told = Log(), list[str]()
    fleet = fleet_of(log, told, a=Numbered(fault=vanishing(30)), b=Numbered(seconds=0.001))
    assert sorted(measured(fleet, 300)) == list(range(300))
    assert told == ["a measures nothing more: it was lost (the link is cut)"]
    assert sorted(measured(fleet, 10)) == list(range(10)), "and asked no more"
    assert log.by_device["a"] == 32


def test_a_probe_that_one_device_cannot_measure_is_another_s() -> None:
    def refuse(number: int) -> None:
        if number == NUM_ANCHORS + 3:
            raise BuildError("no kernel for this")

    told = list[str]()
    fleet = fleet_of(Log(), told, a=Numbered(fault=refuse), b=Numbered(seconds=0.001))
    assert sorted(measured(fleet, 300)) == list(range(300))
    assert told == ["a could not measure a probe (no kernel for this); another device tries"]


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_a_probe_that_nobody_can_measure_ends_it(names: str) -> None:
    class Refusing(Numbers):
        def measure(self, probe: bytes) -> Measurement:
            if probe == b"77":
                raise MeasurementError("it hangs")
            return super().measure(probe)

    class Device(Numbered):
        @contextmanager
        def prober(self, target: Target) -> Iterator[Probing]:
            probing = Probing(self)
            probing.formula = Refusing()  # type: ignore[assignment]
            yield probing

    with pytest.raises(MeasurementError, match="it hangs"):
        measured(fleet_of(Log(), [], **{name: Device() for name in names}), 300)


def test_a_fault_of_ours_is_raised_as_it_is() -> None:
    def fault(number: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measured(fleet_of(Log(), [], a=Numbered(fault=fault), b=Numbered()), 100)


# ---- kinds ----------------------------------------------------------------------------------------------------------


def test_devices_of_another_kind_are_refused_before_anything_is_measured() -> None:
    fleet = fleet_of(Log(), [], a=Member(), b=Member(kind="another"))
    with pytest.raises(TargetMismatchError, match=r"a is .* and b is .*another.*; a table is of one kind"):
        fleet.target("fp32", 1)
    with pytest.raises(UsageError, match="at least one device"):
        Fleet(runtimes={}, tell=print)
    with pytest.raises(UsageError, match="runs fp32"):
        fleet_of(Log(), [], a=Member(), b=Member()).target("int8", 1)


def test_devices_that_do_not_answer_are_left_out() -> None:
    class Silent(Member):
        def target(self, precision: str, batch_size: int) -> Target:
            raise LinkError("no route to it")

    told = list[str]()
    fleet = fleet_of(Log(), told, a=Silent(), b=Member())
    assert fleet.target("fp32", 1) == TARGET
    assert told == ["a measures nothing more: no route to it"]
    assert fleet.suffix == ".onnx"
    with pytest.raises(LinkError, match="no device answers: a: no route to it"):
        fleet_of(Log(), [], a=Silent()).target("fp32", 1)


def test_a_board_hands_out_what_is_left_in_order() -> None:
    board = Board([b"a", b"b", b"c"], ["x"], num_probes=2)
    assert board.first(8) == {0: b"a", 1: b"b"}
    shard = board.take("x")
    assert shard is not None
    assert shard.probes == {0: b"a", 1: b"b"}
    assert board.report(shard, [0]) == [0]
    assert board.report(shard, [0]) == [], "it counts once"
    board.give_back("x", shard)
    again = board.take("x")
    assert again is shard
    assert shard.probes == {1: b"b"}
    board.report(shard, [1])
    last = board.take("x")
    assert last is not None
    assert last.probes == {2: b"c"}
    assert not board.is_done
    board.report(last, [2])
    assert board.take("x") is None
    assert board.is_done
