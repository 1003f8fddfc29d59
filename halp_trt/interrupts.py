"""Ctrl-C, the end of a parent and a lack of memory, which are no fault of a network, a file or a runtime."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["REQUESTS", "end_with_parent", "interrupts_held_back", "lack_of_memory", "raise_if_stopped"]

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which a program is asked to end: Ctrl-C, ``kill``, and a terminal that is closed."""
_SET_DEATH_SIGNAL = 1
"""Linux's PR_SET_PDEATHSIG."""

_NO_MEMORY = re.compile(
    r"can(?:'|no)t allocate memory|not enough memory|bad_alloc|bad allocation|out of memory|failed to allocate memory",
    re.IGNORECASE,
)
"""The words of PyTorch, ONNX Runtime, OpenVINO, TensorRT and C++ for a lack of memory."""
_INTERRUPT = re.compile(r"KeyboardInterrupt\s*(:|$)")
"""The beginning of an error's text that C++ made of an interrupt."""


def raise_if_stopped(error: BaseException) -> None:
    """Raises the Ctrl-C, or the lack of memory, that an error comes from; returns where it comes from neither.

    Libraries wrap both in errors of their own. Whoever catches every error that user code or a library may raise asks
    here first.

    Raises:
        KeyboardInterrupt: somewhere behind the error there is one.
        MemoryError: somewhere behind it memory was lacking.
    """
    for one in _behind(error):
        if isinstance(one, KeyboardInterrupt) or _INTERRUPT.match(_text(one)):
            raise KeyboardInterrupt from error
    words = lack_of_memory(error)
    if words is not None:
        raise MemoryError(words) from error


def lack_of_memory(error: BaseException) -> str | None:
    """The first line of what an error says of a lack of memory, perhaps empty; None where it comes from none."""
    for one in _behind(error):
        if isinstance(one, MemoryError) or _NO_MEMORY.search(_text(one)):
            return _text(one).strip().partition("\n")[0][:200]
    return None


@contextlib.contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Has Ctrl-C, and other requests to end that Python code answers, wait until the context ends.

    It is for moments such as that between starting a process and knowing it. Outside the main thread, where they are
    never raised, it does nothing.
    """
    caught: list[tuple[int, FrameType | None]] = []
    before = {number: found for number in REQUESTS if callable(found := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: caught.append((number, frame)))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for found, frame in caught[:1]:
        before[signal.Signals(found)](found, frame)


def end_with_parent(pid: int) -> None:
    """Has this process killed as soon as its parent ends, however that ends; ends it at once if it has already.

    Where the system is not Linux, only the latter.

    Args:
        pid: the parent's process.
    """
    with contextlib.suppress(AttributeError, ImportError, OSError):
        import ctypes

        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != pid:
        os._exit(1)


def _behind(error: BaseException) -> Iterator[BaseException]:
    """An error and all errors that it was raised from or while handling."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__context__, one.__cause__]


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # user code
        return ""
