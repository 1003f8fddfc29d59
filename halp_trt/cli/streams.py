"""The standard streams: always there, never too narrow for a character, and their loss stops no work."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TextIO

from halp_trt.texts import printable

__all__ = ["mute", "open_streams", "say", "silence", "unmute"]

_IN_PLAIN_LETTERS = "halp_trt.plain"
"""Name of the error handler that writes what an encoding lacks in letters that it has."""
_LETTERS: Mapping[str, str] = MappingProxyType(
    {
        "−": "-", "–": "-", "─": "-", "×": "x", "…": "...", "→": "->", "≤": "<=", "±": "+-", "∞": "inf", "µ": "u",
        "²": "2", "█": "#", "░": ".", "━": "-", "╸": "-", "╺": "-",
    }
)  # fmt: skip
"""Plain letters for the characters that reports use."""


def say(text: str, *, err: bool = False, aloud: bool = False) -> None:
    """Writes text and a line end to stdout, or to stderr; control characters in it come out as escapes.

    All text for people goes through here. Where nobody reads a pipe any more, it is lost and the work goes on; so it is
    where stderr takes nothing, a full disk behind it, say.

    Args:
        text: the text.
        err: True for stderr.
        aloud: True if a process that is muted says it all the same.

    Raises:
        OSError: stdout takes nothing: a result that is lost is an error.
    """
    out, wrong = _MUTED if aloud and _MUTED else (sys.stdout, sys.stderr)
    stream = wrong if err else out
    if stream is None:  # closed, in a program that is not ours
        return
    try:
        stream.write(_fitting(f"{printable(text)}\n", stream))
        stream.flush()
    except OSError as error:
        if not (err or isinstance(error, BrokenPipeError)):
            raise
        silence(stream)


def open_streams() -> None:
    """Makes the standard streams fit for writing, however the program was started.

    A closed one becomes the null device: otherwise the next file that is opened would take its number, and get what
    libraries write to it. A character that an encoding lacks is written in plain letters.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (it stays open)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_IN_PLAIN_LETTERS)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join(_LETTERS.get(char) or char.encode("unicode_escape").decode("ascii") for char in found), error.end


codecs.register_error(_IN_PLAIN_LETTERS, _plain)


def _fitting(text: str, stream: TextIO) -> str:
    """The text in characters that the stream's encoding has."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, _IN_PLAIN_LETTERS).decode(encoding)


_MUTED: list[TextIO | None] = []
"""The standard streams in the place of which nothing is written now."""


def mute() -> None:
    """Has all that Python writes to stdout and stderr lost, until :func:`unmute`."""
    if not _MUTED:
        _MUTED.extend((sys.stdout, sys.stderr))
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (it stays open)


def unmute() -> None:
    """Gives the streams back that :func:`mute` took."""
    if _MUTED:
        sys.stdout, sys.stderr = _MUTED
        _MUTED.clear()


def silence(stream: TextIO) -> None:
    """Leads a stream that nobody reads to the null device, where what is left in its buffer goes, too."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
