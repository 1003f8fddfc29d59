"""The core on which engines are timed: one that no other work has, and no other run of ours takes meanwhile.

Two runs that begin at the same moment would find the same core idle, so a core that is taken is held until it is given
back. A core's hardware threads share its units: they are held together.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Core", "pin_to_one_core", "wait_for_quiet", "waited_ns"]

QUIET_FRACTION = 0.02
"""Largest share of a core's time that other work may have, for the core to count as quiet."""
_LOOK_NS = 10_000_000
"""Time for which a core is looked at, in nanoseconds: a kernel changes between busy threads every few milliseconds."""
_NAME = "\0halp-trt/core/{}"
"""Name of the socket whose owner holds a core. It needs no file, and is free as soon as its owner has ended."""

_own = threading.local()
_last: list[int] = []
"""The core that this process has timed on before: it is looked at first."""
_locks: dict[int, socket.socket] = {}
"""The sockets that hold cores, by the cores' first threads, while they are looked at or timed on."""


class Core(NamedTuple):
    """A core that a thread is kept on.

    Attributes:
        number: its number, as the system counts.
        is_ours: True if no other run of ours times on it.
        taken_fraction: share of its time that other work had when it was chosen; 0 where the system does not tell.
    """

    number: int
    is_ours: bool = True
    taken_fraction: float = 0.0

    @property
    def is_quiet(self) -> bool:
        """True if nothing else was found on it."""
        return self.is_ours and self.taken_fraction <= QUIET_FRACTION


def waited_ns() -> int | None:
    """Nanoseconds for which the calling thread could have run but had no core; None if the system cannot tell."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def pin_to_one_core(
    waited: Callable[[], int | None] = waited_ns, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> Iterator[Core | None]:
    """Keeps the calling thread on one of its cores while inside, and gives that core; None if the system cannot.

    The first quiet one that no other run holds is taken, beginning with the last; if there is none, the one with the
    least other work. Inside another such context it gives the core of that.

    Args:
        waited: nanoseconds that the thread has waited for a core so far.
        clock_ns: monotonic nanoseconds.
    """
    held = getattr(_own, "core", None)
    if held is not None or not hasattr(os, "sched_setaffinity"):
        yield held
        return
    allowed = os.sched_getaffinity(0)
    try:
        core = _own.core = _choose(allowed, waited, clock_ns)
        os.sched_setaffinity(0, {core.number})
        yield core
    finally:
        _own.core = None
        _let_go()
        os.sched_setaffinity(0, allowed)


def wait_for_quiet(
    seconds: float,
    *,
    waited: Callable[[], int | None] = waited_ns,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Core | None:
    """The first quiet core within some seconds, else the one with the least other work; None if the system cannot tell.

    All cores are looked at once at least, and then once a second.
    """
    end = clock_ns() + seconds * 1e9
    while True:
        with pin_to_one_core(waited, clock_ns) as core:
            pass
        left = (end - clock_ns()) / 1e9
        if core is None or core.is_quiet or left <= 0:
            return core
        sleep(min(1.0, left))


def _choose(allowed: set[int], waited: Callable[[], int | None], clock_ns: Callable[[], int]) -> Core:
    """The best of some cores, which is held from here on if no other run has it."""
    order = sorted(allowed, key=lambda number: (number in _last, number), reverse=True)
    found: list[Core] = []
    for number in order:
        found.append(Core(number, _hold(_first_thread(number)), _look(number, waited, clock_ns)))
        if found[-1].is_quiet:
            break
    best = min(found, key=lambda core: (not core.is_ours, core.taken_fraction))
    _let_go(but=_first_thread(best.number))
    _last[:] = [best.number]
    return best


def _look(number: int, waited: Callable[[], int | None], clock_ns: Callable[[], int]) -> float:
    """The share of a core's time that other work has now; the thread is kept on that core."""
    before, start = waited(), clock_ns()
    os.sched_setaffinity(0, {number})
    if before is None:
        return 0.0
    while clock_ns() - start < _LOOK_NS:
        pass
    after, now = waited(), clock_ns()
    return min(1.0, max(0, (after or before) - before) / max(1, now - start))


def _hold(name: int) -> bool:
    """Takes a core by the name of its first thread; False if another run has it."""
    if name in _locks or not hasattr(socket, "AF_UNIX"):
        return True
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(_NAME.format(name))
    except OSError as error:
        lock.close()
        return error.errno != errno.EADDRINUSE
    _locks[name] = lock
    return True


def _let_go(but: int | None = None) -> None:
    for name in [name for name in _locks if name != but]:
        _locks.pop(name).close()


def _forget() -> None:
    """Has a forked process, which gets copies of the locks, hold no core."""
    _own.core = None
    _let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _first_thread(number: int) -> int:
    """The lowest number among the hardware threads of a core's unit; its own where the system does not tell."""
    try:
        with open(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", "rb") as file:
            return int(file.read().replace(b"-", b",").split(b",")[0])
    except (OSError, ValueError):
        return number
