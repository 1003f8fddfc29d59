"""Text on its way in and out: numbers in plain digits, and characters that a terminal shows and does not obey."""

from __future__ import annotations

import math
import re

__all__ = [
    "amount_in", "counted", "number_in", "one_line", "printable", "sentence", "shortened", "whole_number_in",
]  # fmt: skip

_MOST = 500
"""Characters of a sentence: a screen's worth, whatever a file put into it."""
_CUT = " … "
_WHOLE = re.compile(r"[+-]?[0-9]{1,4000}")
_FACTORS = {"k": 1e3, "M": 1e6, "G": 1e9}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")


# ---- in -------------------------------------------------------------------------------------------------------------


def whole_number_in(text: str) -> int | None:
    """The whole number that a text is, in the digits 0 to 9; None if it is none.

    Python itself reads the digits of every script, and underscores between them.
    """
    text = text.strip()
    return int(text) if _WHOLE.fullmatch(text) else None


def number_in(text: str) -> float | None:
    """The finite number that a text is, in the digits 0 to 9, with a point or an exponent; None if it is none."""
    text = text.strip()
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def amount_in(text: str) -> float | None:
    """The finite number that a text is, as :func:`number_in`, with k, M or G for thousands, millions or billions."""
    text = text.strip()
    factor = _FACTORS.get(text[-1:], 1.0)
    number = number_in(text[:-1] if factor > 1 else text)
    return None if number is None else factor * number


# ---- out ------------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    r"""The text with every character that a terminal obeys or hides as an escape, such as ``\x1b``; line ends stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _escape(char) for char in text)


def one_line(text: str) -> str:
    """A name, or what contains one, as one line: as :func:`printable`, with line ends as escapes, too."""
    return printable(text).replace("\n", "\\n")


def shortened(text: str, most: int = _MOST) -> str:
    """The text in at most ``most`` characters: of a longer one the beginning and the end are kept."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - len(_CUT)]}{_CUT}{text[-tail:]}"


def sentence(text: str) -> str:
    """A message as one line of a screen at most, its own line ends being spaces."""
    return shortened(one_line(" ".join(line.strip() for line in text.strip().splitlines())))


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: "1 layer", "2 layers"; the plural is ``several``, where an s does not make it."""
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
