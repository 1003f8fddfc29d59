"""The output of the command line: results on stdout, progress and errors on stderr, one sentence each."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click

from halp_trt.cli.interrupts import (
    forget_interrupt,
    ignore_further,
    interrupted_by,
    noticing,
    was_interrupted,
)
from halp_trt.cli.processes import mute_all_but_first
from halp_trt.cli.streams import open_streams, say, silence
from halp_trt.errors import HalpError, LostProcessError, NotQuietError
from halp_trt.interrupts import lack_of_memory
from halp_trt.store import encode
from halp_trt.texts import one_line, sentence

__all__ = [
    "EXIT_CANNOT_TELL",
    "EXIT_CHECK_FAILED",
    "EXIT_USAGE",
    "Progress",
    "StoppedError",
    "VerbGroup",
    "print_result",
    "progress_bars",
    "say_error",
    "stops_with",
]

EXIT_CHECK_FAILED = 1
"""Exit code of a verb whose check failed."""
EXIT_USAGE = 2
"""Exit code for wrong usage or input."""
EXIT_CANNOT_TELL = 3
"""Exit code of a check that cannot tell."""
_SECONDS_BETWEEN_LINES = 10.0
"""Least time between two lines of progress."""


_AGAIN = "nothing was half-written, run the same command again"
"""Said of a verb that keeps nothing of what it has done."""
_SMALLER = "take a smaller batch, input or network, or free some"
"""Advice where memory is lacking."""


class StoppedError(HalpError):
    """A verb was stopped from outside; the message says what is saved."""


class VerbGroup(click.Group):
    """A group whose verbs end in one sentence and exit code 2 when something is wrong that the user can mend."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the program, on streams that can be written to."""
        open_streams()
        mute_all_but_first(os.environ)
        return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Reads the options before the verb."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            say(_error(_usage(error)), err=True)
            raise click.exceptions.Exit(EXIT_USAGE) from error
        except KeyboardInterrupt:
            say(_error(_stopped()), err=True)
            forget_interrupt()
            sys.exit(EXIT_USAGE)
        except OSError as error:  # while help is printed
            code = _told(error)
            raise click.exceptions.Exit(code) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb."""
        try:
            with noticing(ctx):
                return self._invoke(ctx)
        except KeyboardInterrupt:  # in the moments before and after the verb
            say_error(_stopped())
            sys.exit(EXIT_USAGE)
        finally:
            forget_interrupt()

    def _invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"halp_trt\b")
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except HalpError as error:
                stopped = was_interrupted() and not isinstance(error, StoppedError)
                code = EXIT_CANNOT_TELL if isinstance(error, NotQuietError) and not stopped else EXIT_USAGE
                _fail(ctx, _stopped() if stopped else str(error), code)
            except click.UsageError as error:
                _fail(ctx, _usage(error))
            except KeyboardInterrupt:
                _fail(ctx, _stopped())
            except SystemExit as error:
                _fail(ctx, f"code that was run for this ended the program (exit code {error.code}); mend it")
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, click.exceptions.Exit) or not (was_interrupted() or _lacks_memory(error)):
                    raise
                _fail(ctx, _stopped() if was_interrupted() else f"{_no_memory(error)}; {_SMALLER}")
            except ModuleNotFoundError as error:
                _fail(ctx, _missing_module(error))
            except OSError as error:
                ctx.exit(_told(error))


def _stopped(sentence: str = _AGAIN) -> str:
    """The sentence about a verb that was asked to end."""
    return f"stopped by {interrupted_by()}; {sentence}"


def _lacks_memory(error: BaseException) -> bool:
    return lack_of_memory(error) is not None


def _no_memory(error: BaseException) -> str:
    """The beginning of the sentence about a lack of memory, with what was said of it."""
    words = lack_of_memory(error)
    return f"there is not enough memory ({words})" if words else "there is not enough memory"


def _fail(ctx: click.Context, message: str, code: int = EXIT_USAGE) -> None:
    ignore_further()
    say_error(message)
    ctx.exit(code)


def say_error(message: str) -> None:
    """Says one sentence about what went wrong, on stderr."""
    say(_error(message), err=True)


def _told(error: OSError) -> int:
    """Says what the system refused, and gives the exit code; a reader that has left wants to hear nothing."""
    if error.errno == errno.EPIPE:
        silence(sys.stdout)
        return 0
    say(_error(f"{error}; check the path and the disk"), err=True)
    return EXIT_USAGE


def _error(message: str) -> str:
    return sentence(f"error: {message}")


def _usage(error: click.UsageError) -> str:
    """Click's message in one sentence, with a pointer to the help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        raise error
    found = " ".join(error.format_message().split()).rstrip(".")
    return f"{found} (see {error.ctx.command_path} --help)" if error.ctx else found


def _missing_module(error: ModuleNotFoundError) -> str:
    if (error.name or "").startswith("halp_trt"):
        raise error
    return f"{error.name} is not installed and this verb needs it; run: pip install 'halp-trt[all]'"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(sentence(f"warning: {message}"), err=True)


@contextlib.contextmanager
def stops_with(sentence: str) -> Iterator[None]:
    """Turns Ctrl-C, a lack of memory and the loss of a process into an error that names what is saved and the way on.

    Ctrl-C counts wherever it fell, whatever error a library has made of it.

    Raises:
        StoppedError: the verb was stopped; the sentence is part of its own.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise StoppedError(_stopped(sentence)) from error
    except (HalpError, MemoryError, RuntimeError) as error:
        if was_interrupted():
            raise StoppedError(_stopped(sentence)) from error
        if isinstance(error, LostProcessError):
            raise StoppedError(f"{error}; {sentence}") from error
        if isinstance(error, HalpError) or not _lacks_memory(error):
            raise
        raise StoppedError(f"{_no_memory(error)}; {_SMALLER}; {sentence}") from error


def print_result(value: object, text: str, *, as_json: bool) -> None:
    """Prints a verb's result: its text, or the value as JSON."""
    say(json.dumps(encode(value), indent=2).replace("\x7f", "\\u007f") if as_json else text)


class Progress:
    """Progress as plain lines, one every few seconds: what logs and pipes want.

    Called with how much is done, out of how much, and a note.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + _SECONDS_BETWEEN_LINES
            say(one_line(f"{self._label}: {done}/{total} {note}".rstrip()), err=True)


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str], Any]]:
    """Gives a function from a label to its progress callback: bars on a terminal that has rich, else plain lines."""
    try:
        from halp_trt.cli.bars import live_screen
    except ModuleNotFoundError:
        yield Progress
        return
    with live_screen() as screen:
        yield Progress if screen is None else screen.begin
