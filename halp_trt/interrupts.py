"""Ctrl-C and a lack of memory, which are no fault of a network, a file or a runtime, whatever they surface as."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from types import FrameType

__all__ = ["interrupts_held_back", "lack_of_memory", "raise_if_stopped"]

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
    """Has Ctrl-C wait until the context ends: for the moment between starting a process and knowing it.

    Outside the main thread, where Ctrl-C is never raised, it does nothing.
    """
    before, caught = signal.getsignal(signal.SIGINT), list[FrameType | None]()
    try:
        signal.signal(signal.SIGINT, lambda number, frame: caught.append(frame))
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(signal.SIGINT, caught[0])


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
