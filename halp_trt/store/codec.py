"""Frozen dataclasses as JSON and back, by their type hints."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from halp_trt.errors import ArtefactError, HalpError

__all__ = ["decode", "encode"]

_Value = TypeVar("_Value")


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
        ArtefactError: ``data`` lacks a field, has an unknown one or one of another type, or the value is invalid.
    """
    return typing.cast(_Value, _decoder(typing.cast(typing.Hashable, cls))(data))


def _default(field: Any) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default


@cache
def _decoder(hint: Any) -> Callable[[Any], Any]:
    """The function that reads values of one type; built once per type, because tables hold many rows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return _dataclass_decoder(typing.cast(type, hint))
    if origin in (typing.Union, types.UnionType):
        return _union_decoder(hint, [_decoder(argument) for argument in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        item = _decoder(arguments[0])
        return lambda data: tuple([item(x) for x in _expect(data, list, hint)])
    if origin is tuple:
        return _pair_decoder(hint, [_decoder(argument) for argument in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = _decoder(arguments[1])
        return lambda data: {key: value(x) for key, x in _expect(data, dict, hint).items()}
    if hint is float:
        return _decode_float
    return lambda data: _expect(data, hint, hint)


def _expect(data: Any, kind: type, hint: Any) -> Any:
    if isinstance(data, kind) and (kind is bool or not isinstance(data, bool)):
        return data
    name = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
    raise ArtefactError(f"expected {name}, found {json.dumps(data)[:60]}")


def _decode_float(data: Any) -> float:
    if isinstance(data, dict) and data.get("float") in ("inf", "-inf", "nan"):
        return float(data["float"])
    number = _expect(data, int if isinstance(data, int) else float, float)
    try:
        return float(number)
    except OverflowError as error:
        raise ArtefactError(f"expected float, found a number of {len(str(number))} digits") from error


def _union_decoder(hint: Any, choices: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(data: Any) -> Any:
        for choice in choices:
            try:
                return choice(data)
            except ArtefactError:
                continue
        raise ArtefactError(f"expected {hint}, found {json.dumps(data)[:60]}")

    return read


def _pair_decoder(hint: Any, items: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(data: Any) -> Any:
        if len(_expect(data, list, hint)) != len(items):
            raise ArtefactError(f"expected {len(items)} entries, found {len(data)}")
        return tuple([item(x) for item, x in zip(items, data, strict=True)])

    return read


def _dataclass_decoder(cls: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(cls)
    readers = {field.name: _decoder(hints[field.name]) for field in fields(cls)}
    needed = {field.name for field in fields(cls) if _default(field) is MISSING}

    def read(data: Any) -> Any:
        _expect(data, dict, cls)
        if unknown := sorted(data.keys() - readers.keys()):
            raise ArtefactError(f"{cls.__name__} has no field {unknown[0]!r}; a newer halp-trt wrote it, upgrade")
        if missing := sorted(needed - data.keys()):
            raise ArtefactError(f"{cls.__name__} lacks its field {missing[0]!r}")
        values = {}
        for name, item in data.items():
            try:
                values[name] = readers[name](item)
            except ArtefactError as error:
                raise ArtefactError(f"{cls.__name__}.{name}: {error}") from error
        try:
            return cls(**values)
        except HalpError as error:
            raise ArtefactError(f"{cls.__name__} is not valid: {error}") from error

    return read
