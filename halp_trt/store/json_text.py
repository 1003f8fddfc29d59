"""JSON as it is read: UTF-8, every key once, numbers that are numbers; everything else is refused in words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

from halp_trt.errors import ArtefactError

__all__ = ["parse_json", "parse_several", "shown"]

_Value = TypeVar("_Value")
_MOST_SHOWN = 40
"""Characters of a value that an error repeats."""
_SPACES = re.compile(r"\s+")
_MOST_BITS = 64
"""Bits of a whole number that an error repeats."""


def parse_json(data: bytes, *, allows_nan: bool = False) -> Any:
    """The value that some bytes state.

    Args:
        data: the bytes.
        allows_nan: whether ``NaN`` and ``Infinity`` are numbers, as files of others have them, though JSON does not.

    Raises:
        ArtefactError: they are no UTF-8, no JSON or not whole, nested too deeply, or have a key twice in one object or
            a number that is none. The sentence has no path and no advice.
    """
    text = _text(data)
    return _refusing(partial((_LENIENT if allows_nan else _DECODER).decode, text))


def parse_several(data: bytes) -> list[Any]:
    """The values that follow each other in some bytes.

    Raises:
        ArtefactError: as :func:`parse_json`.
    """
    text, values = _text(data), []
    at = _behind_spaces(text, 0)
    while at < len(text):
        value, end = _refusing(partial(_DECODER.raw_decode, text, at))
        values.append(value)
        at = _behind_spaces(text, end)
    return values


def _behind_spaces(text: str, at: int) -> int:
    found = _SPACES.match(text, at)
    return at if found is None else found.end()


def shown(value: object) -> str:
    """A value of JSON as an error names it: never long, and without anything that a terminal would obey."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value) if len(value) <= _MOST_SHOWN else f"{value[:_MOST_SHOWN]!r}..."
    return json.dumps(value)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"byte {error.start} is not UTF-8") from error


def _refusing(parse: Callable[[], _Value]) -> _Value:
    """The result of a parser, whose own errors become ours."""
    try:
        return parse()
    except RecursionError as error:
        raise ArtefactError("its lists and objects are nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ArtefactError(str(error)) from error
    except ValueError as error:  # Python converts no longer ones
        raise ArtefactError("it has a number of more than 4300 digits") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise ArtefactError(f"it has the key {shown(twice)} twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise ArtefactError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_LENIENT = json.JSONDecoder(object_pairs_hook=_object)
