"""Numbers in the cells of a table: whole ones, milliseconds without a loss, and what stands for a failure."""

from __future__ import annotations

from decimal import Decimal

from halp_trt.errors import ArtefactError
from halp_trt.store.json_text import shown
from halp_trt.texts import number_in, whole_number_in

__all__ = ["is_failure", "microseconds", "milliseconds", "whole_number"]

_NO_NUMBERS = ("", "nan", "-nan", "inf", "-inf", "+inf", "none", "null", "n/a")
"""Cells, in small letters, that programs write where they have no latency."""


def whole_number(column: str, cell: str) -> int:
    """The whole number in a cell.

    Raises:
        ArtefactError: it is none; the sentence names the column.
    """
    number = whole_number_in(cell)
    if number is None:
        raise ArtefactError(f"{column} is {shown(cell)}, expected a whole number")
    return number


def is_failure(cell: str) -> bool:
    """True if a cell for a latency says that there is none: a number of at most 0, NaN, infinity, or nothing."""
    number = number_in(cell)
    return cell.strip().lower() in _NO_NUMBERS if number is None else number <= 0


def microseconds(column: str, cell: str) -> float:
    """The milliseconds in a cell as microseconds; their digits stay as they are.

    Raises:
        ArtefactError: the cell holds no number.
    """
    if number_in(cell) is None:
        raise ArtefactError(f"{column} is {shown(cell)}, expected a number of milliseconds")
    return float(Decimal(cell.strip()).scaleb(3))


def milliseconds(latency_us: float) -> str:
    """Microseconds as milliseconds, in plain digits; :func:`microseconds` gives the same number back."""
    text = f"{Decimal(repr(latency_us)).scaleb(-3):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
