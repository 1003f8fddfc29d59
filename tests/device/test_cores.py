"""The choice of a core: none that another thread keeps busy, none on which another run times."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import pytest

from halp_trt.device import cores
from halp_trt.device.cores import Core, pin_to_one_core, wait_for_quiet, waited_ns

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")

ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
needs_two = pytest.mark.skipif(len(ALLOWED) < 2, reason="one core is no choice")
STEP_NS = 100_000


class System:
    """A clock that runs while it is looked at, and a share of time that other work takes from every core."""

    def __init__(self, taken: dict[int, float]) -> None:
        self.taken, self.now_ns, self.waited_ns = taken, 0, 0.0

    def clock(self) -> int:
        (core,) = os.sched_getaffinity(0) if len(os.sched_getaffinity(0)) == 1 else (None,)
        self.now_ns += STEP_NS
        self.waited_ns += STEP_NS * self.taken.get(core, 0.0) if core is not None else 0.0
        return self.now_ns

    def waited(self) -> int:
        return round(self.waited_ns)


@pytest.fixture(autouse=True)
def no_core_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests begin as a process that has timed nothing yet."""
    monkeypatch.setattr(cores, "_last", [])


@contextmanager
def other_run() -> Iterator[Core]:
    """Another process that keeps a core as a run does."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_keep_one, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        process.join()


def _keep_one(theirs: Connection) -> None:
    with pin_to_one_core(lambda: 0) as core:
        theirs.send(core)
        theirs.recv()


def test_the_thread_is_on_its_core_and_afterwards_where_it_was() -> None:
    with pin_to_one_core() as core:
        assert core is not None
        assert os.sched_getaffinity(0) == {core.number}
        with pin_to_one_core() as again:
            assert again is core
        assert os.sched_getaffinity(0) == {core.number}
    assert os.sched_getaffinity(0) == ALLOWED


def test_an_error_inside_lets_go_of_the_core() -> None:
    def fail_inside() -> None:
        with pin_to_one_core():
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert os.sched_getaffinity(0) == ALLOWED
    assert not cores._locks


@needs_two
def test_a_core_that_others_keep_busy_is_left_to_them() -> None:
    busy, idle = max(ALLOWED), sorted(ALLOWED)[-2]
    system = System({busy: 0.5})
    with pin_to_one_core(system.waited, system.clock) as core:
        assert core is not None
        assert core.number == idle
        assert core.is_quiet


@needs_two
def test_where_all_are_busy_the_least_busy_is_taken_and_its_share_is_told() -> None:
    least = min(ALLOWED)
    system = System({number: 0.4 if number == least else 0.6 for number in ALLOWED})
    with pin_to_one_core(system.waited, system.clock) as core:
        assert core is not None
        assert core.number == least
        assert core.taken_fraction == pytest.approx(0.4, rel=0.1)
        assert not core.is_quiet


@needs_two
def test_two_runs_take_two_cores_and_a_killed_one_holds_none() -> None:
    with other_run() as theirs, pin_to_one_core(lambda: 0) as ours:
        assert ours is not None
        assert ours.number != theirs.number
        assert ours.is_quiet
    with pin_to_one_core(lambda: 0) as core:
        assert core is not None
        assert core.is_ours


def test_where_another_run_has_the_only_core_that_is_told() -> None:
    with other_run() as theirs:
        os.sched_setaffinity(0, {theirs.number})
        try:
            with pin_to_one_core(lambda: 0) as core:
                assert core == Core(number=theirs.number, is_ours=False)
                assert not core.is_quiet
        finally:
            os.sched_setaffinity(0, ALLOWED)


def test_a_process_that_was_forked_meanwhile_holds_nothing() -> None:
    with pin_to_one_core(lambda: 0) as core:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_keep_one, args=(theirs,))
        process.start()
        assert ours.recv() == core._replace(is_ours=False)
        ours.send("end")
        process.join()


def test_without_the_system_s_help_nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pin_to_one_core() as core:
        assert core is None


def test_a_system_that_does_not_tell_waiting_gets_the_last_core() -> None:
    with pin_to_one_core(lambda: None) as core:
        assert core == Core(number=max(ALLOWED))


def test_waiting_is_counted_beside_a_loop_on_the_same_core() -> None:
    if waited_ns() is None:
        pytest.skip("this system does not tell how long a thread waited for a core")
    with pin_to_one_core() as core:
        assert core is not None
        loop = f"import os\nos.sched_setaffinity(0, {{{core.number}}})\nprint(flush=True)\nwhile True: pass"
        beside = subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE)
        try:
            assert beside.stdout is not None
            beside.stdout.readline()
            before = waited_ns() or 0
            while (waited_ns() or 0) < before + 1_000_000:  # a busy core is shared: a millisecond of it is soon lost
                pass
        finally:
            beside.kill()
            beside.wait()


def test_a_core_that_becomes_quiet_is_waited_for() -> None:
    system, slept = System(dict.fromkeys(ALLOWED, 0.5)), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        system.now_ns += round(seconds * 1e9)
        if len(slept) == 3:
            system.taken = {min(ALLOWED): 0.0}

    core = wait_for_quiet(60, waited=system.waited, clock_ns=system.clock, sleep=sleep)
    assert core is not None
    assert core.is_quiet
    assert slept == [1.0] * 3


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_where_none_becomes_quiet_the_least_busy_is_told_in_time(seconds: float) -> None:
    system = System(dict.fromkeys(ALLOWED, 0.5))
    began = system.now_ns

    def sleep(seconds: float) -> None:
        system.now_ns += round(seconds * 1e9)

    core = wait_for_quiet(seconds, waited=system.waited, clock_ns=system.clock, sleep=sleep)
    assert core is not None
    assert not core.is_quiet
    assert seconds <= (system.now_ns - began) / 1e9 < seconds + 1


def test_without_the_system_s_help_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    assert wait_for_quiet(1e9) is None
