"""Ctrl-C while a verb runs: noticed wherever it falls, even where a library takes it for an error of its own.

A verb may have other requests to end treated alike.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import click

from halp_trt.interrupts import REQUESTS

__all__ = ["forget_interrupt", "heeding_requests", "ignore_further", "interrupted_by", "noticing", "was_interrupted"]

_KEY = "halp_trt.was_interrupted"
"""Key of the note among what click keeps for a whole command line: the signal's number, 0 if there was none."""
_CTRL_C = "Ctrl-C"
"""Name of the signal SIGINT, which every person knows by its keys."""


@contextlib.contextmanager
def noticing(ctx: click.Context) -> Iterator[None]:
    """Keeps in mind that Ctrl-C was pressed, besides raising it where the program is."""

    def note(number: int, frame: FrameType | None) -> None:
        ctx.meta[_KEY] = number
        signal.default_int_handler(number, frame)

    ctx.meta[_KEY] = 0
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it is ignored in the background
    try:
        if is_ours:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.SIGINT, note)
        yield
    finally:
        if is_ours:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def heeding_requests(ctx: click.Context) -> Iterator[None]:
    """Has SIGTERM and SIGHUP, as CI systems and terminals send them, end a verb as Ctrl-C does.

    What a verb has started, and its temporary folders, would stay behind otherwise. One that is ignored, as under
    ``nohup``, stays so.
    """
    asked = [one for one in REQUESTS if one != signal.SIGINT and signal.getsignal(one) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        ctx.meta[_KEY] = number
        for one in asked:  # once is enough: the end itself is not to be cut short
            signal.signal(one, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        with contextlib.suppress(ValueError):  # not the main thread
            for one in asked:
                signal.signal(one, end)
        yield
    finally:
        with contextlib.suppress(ValueError):
            for one in asked:
                signal.signal(one, signal.SIG_IGN if ctx.meta.get(_KEY) else signal.SIG_DFL)


def was_interrupted() -> bool:
    """True if Ctrl-C was pressed since the verb began, or another request to end was heeded."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_KEY))


def interrupted_by() -> str:
    """The name of the request to end: ``Ctrl-C``, or ``SIGTERM``."""
    ctx = click.get_current_context(silent=True)
    number = ctx.meta.get(_KEY) if ctx is not None else 0
    return signal.Signals(number).name if number and number != signal.SIGINT else _CTRL_C


def ignore_further() -> None:
    """Ignores Ctrl-C from here on: the verb is ending already, and says so."""
    with contextlib.suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, signal.default_int_handler):
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def forget_interrupt() -> None:
    """Has the process end with the exit code that it is given.

    CPython, started with ``-m``, kills itself by SIGINT at its end if an interrupt has passed through code that was run
    from a text, as the methods of a dataclass are while its module is imported, even where the interrupt was caught.
    Running another text resets that.
    """
    exec("")
