"""Ctrl-C while a verb runs: noticed wherever it falls, even where a library takes it for an error of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

import click

__all__ = ["forget_interrupt", "ignore_further", "noticing", "was_interrupted"]

_KEY = "halp_trt.was_interrupted"
"""Key of the note among what click keeps for a whole command line."""


@contextlib.contextmanager
def noticing(ctx: click.Context) -> Iterator[None]:
    """Keeps in mind that Ctrl-C was pressed, besides raising it where the program is."""

    def note(number: int, frame: FrameType | None) -> None:
        ctx.meta[_KEY] = True
        signal.default_int_handler(number, frame)

    ctx.meta[_KEY] = False
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


def was_interrupted() -> bool:
    """True if Ctrl-C was pressed since the verb began."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_KEY))


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
