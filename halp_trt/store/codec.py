"""Frozen dataclasses as JSON and back, by their type hints: the one place where what was read becomes values.

Numbers obey the ``Bounds`` in their hints, and nothing of another type is let through.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar

from halp_trt.errors import ArtefactError, HalpError, NewerFileError, brief
from halp_trt.specs import Bounds
from halp_trt.store.json_text import shown

__all__ = ["decode", "encode"]

_Value = TypeVar("_Value")
_Decoder = Callable[[Any], Any]
_FLOATS = ("inf", "-inf", "nan")
"""The floats that JSON has no word for."""
_PLAIN: Mapping[type, Bounds] = {float: Bounds(), int: Bounds(least=-(2**63), most=2**63 - 1)}
"""The numbers of hints without bounds."""
_MOST_WORDS = 200
"""Characters of a value's own complaint that are repeated."""


def encode(value: object) -> Any:
    """A frozen dataclass, tuple, mapping or plain value as what JSON can hold; fields at their default are left out.

    Infinite and undefined floats become ``{"float": "inf"}``, because JSON has no word for them.

    Raises:
        ArtefactError: something inside has no JSON form.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encode(item)
            for field in fields(value)
            if (item := getattr(value, field.name)) != _default(field)
        }
    raise ArtefactError(f"cannot store a {type(value).__name__}; expected a value of halp_trt, please report it")


def decode(cls: type[_Value], data: object) -> _Value:
    """The value of class ``cls`` that :func:`encode` turned into ``data``.

    Raises:
        NewerFileError: ``data`` has an unknown field.
        ArtefactError: it lacks a field, has one of another type or beyond its bounds, or the value is invalid; the
            sentence begins with the path of the field.
    """
    try:
        return typing.cast(_Value, _decoder(typing.cast(typing.Hashable, cls))(data))
    except _MisfitError as error:
        name = _named(cls)
        kind = NewerFileError if error.is_newer else ArtefactError
        raise kind(error.sentence(name if is_dataclass(cls) else "")) from error


class _MisfitError(Exception):
    """Something that is not as its hint says.

    Attributes:
        words: what is wrong, to stand behind the path.
        is_newer: whether a newer halp-trt wrote it.
        steps: the path to it, the innermost step first.
    """

    def __init__(self, words: str, *, is_newer: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.is_newer = is_newer
        self.steps: list[str] = []

    def sentence(self, root: str) -> str:
        """The sentence, with the path from a root."""
        path = "".join([root, *reversed(self.steps)])
        return f"{path}{self.words}" if path else self.words.removeprefix(": ")


def _default(field: Any) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


@cache
def _decoder(hint: Any) -> _Decoder:
    """The function that reads values of one type; built once per type, because tables hold many rows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _number_decoder(*arguments)
    if hint in _PLAIN:
        return _number_decoder(hint, _PLAIN[hint])
    if hint is str:
        return _text
    if is_dataclass(hint):
        return _dataclass_decoder(typing.cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(hint, arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return _tuple_decoder(hint, _decoder(arguments[0]))
    if origin is tuple:
        return _pair_decoder(hint, [_decoder(argument) for argument in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping_decoder(hint, _decoder(arguments[1]))
    return lambda data: _expect(data, hint, hint)


def _named(hint: Any) -> str:
    """A hint in words, without its bounds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _named(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if one is type(None) else _named(one) for one in arguments)
    if isinstance(origin, type):
        inner = [_named(one) for one in arguments if one is not Ellipsis]
        return f"{origin.__name__.lower()} of {' and '.join(inner[-1:] if issubclass(origin, Mapping) else inner)}"
    return str(getattr(hint, "__name__", hint))


# ---- plain values ---------------------------------------------------------------------------------------------------


def _refuse(expected: str, data: object) -> NoReturn:
    raise _MisfitError(f": expected {expected}, found {shown(data)}")


def _expect(data: Any, kind: type, hint: Any) -> Any:
    if isinstance(data, kind) and (kind is bool or not isinstance(data, bool)):
        return data
    _refuse(_named(hint), data)


def _text(data: Any) -> str:
    """A text, whatever is in it: it is escaped where it is shown."""
    return data if isinstance(data, str) else _refuse("str", data)


def _number_decoder(kind: type, bounds: Bounds) -> _Decoder:
    least, most = bounds.least, bounds.most
    words = f"{kind.__name__}{_limits(bounds)}"

    def read(data: Any) -> float:
        if not bounds.is_finite and isinstance(data, dict) and data.get("float") in _FLOATS:
            number = float(data["float"])
            return number if not number < least else _refuse(words, data)
        is_number = isinstance(data, int) if kind is int else isinstance(data, int | float)
        if not is_number or isinstance(data, bool) or not least <= data <= most:
            _refuse(words, data)
        if kind is int:
            return int(data)
        try:
            return float(data)
        except OverflowError:
            _refuse(words, data)

    return read


def _limits(bounds: Bounds) -> str:
    """The bounds of numbers in words; empty where they are those of any number."""
    plain = (bounds.is_finite, bounds.least, bounds.most)
    if plain in [(one.is_finite, one.least, one.most) for one in _PLAIN.values()] or math.isinf(bounds.least):
        return ""
    return f" of at least {bounds.least:g}{f' and at most {bounds.most:g}' if bounds.most < _PLAIN[int].most else ''}"


# ---- values of values -----------------------------------------------------------------------------------------------


def _union_decoder(hint: Any, arguments: tuple[Any, ...]) -> _Decoder:
    choices = [_decoder(argument) for argument in arguments if argument is not type(None)]
    has_none = type(None) in arguments

    def read(data: Any) -> Any:
        if data is None and has_none:
            return None
        if len(choices) == 1:
            return choices[0](data)
        for choice in choices:
            try:
                return choice(data)
            except _MisfitError:
                continue
        _refuse(_named(hint), data)

    return read


def _tuple_decoder(hint: Any, item: _Decoder) -> _Decoder:
    def read(data: Any) -> tuple[Any, ...]:
        entries = _expect(data, list, hint)
        try:
            return tuple([item(one) for one in entries])
        except _MisfitError:
            return tuple([_at(f"[{index}]", item, one) for index, one in enumerate(entries)])

    return read


def _pair_decoder(hint: Any, items: list[_Decoder]) -> _Decoder:
    def read(data: Any) -> tuple[Any, ...]:
        if len(_expect(data, list, hint)) != len(items):
            raise _MisfitError(f": expected {len(items)} entries, found {len(data)}")
        return tuple([_at(f"[{index}]", *one) for index, one in enumerate(zip(items, data, strict=True))])

    return read


def _mapping_decoder(hint: Any, value: _Decoder) -> _Decoder:
    def read(data: Any) -> dict[str, Any]:
        return {_text(key): _at(f"[{shown(key)}]", value, one) for key, one in _expect(data, dict, hint).items()}

    return read


def _dataclass_decoder(cls: type) -> _Decoder:
    hints = typing.get_type_hints(cls, include_extras=True)
    readers = {field.name: _decoder(hints[field.name]) for field in fields(cls)}
    needed = {field.name for field in fields(cls) if _default(field) is MISSING}

    def read(data: Any) -> Any:
        _expect(data, dict, cls)
        if unknown := sorted(data.keys() - readers.keys()):
            raise _MisfitError(f" has no field {shown(unknown[0])}; a newer halp-trt wrote it, upgrade", is_newer=True)
        if missing := sorted(needed - data.keys()):
            raise _MisfitError(f" lacks its field {missing[0]!r}")
        values = {name: _at(f".{name}", readers[name], item) for name, item in data.items()}
        try:
            return cls(**values)
        except (HalpError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise _MisfitError(f" is not valid: {brief(str(error), _MOST_WORDS)}") from error

    return read


def _at(step: str, read: _Decoder, data: Any) -> Any:
    """The value at one step of a path."""
    try:
        return read(data)
    except _MisfitError as error:
        error.steps.append(step)
        raise
