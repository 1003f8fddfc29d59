"""Rows of registries: values, or the import paths of values that are loaded on demand; and their checks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

from halp_trt.errors import UsageError

__all__ = ["check_call", "check_members", "load_row"]

T = TypeVar("T")


def load_row(row: T | str) -> T:
    """The value of a registry's row: the row itself, or the object at ``package.module:name``.

    Args:
        row: a value, or its import path.

    Raises:
        UsageError: the text is no import path, or nothing is there.
        ImportError: a package that the module needs is not installed.
    """
    if not isinstance(row, str):
        return row
    path, _, name = row.partition(":")
    if not path.strip(".") or not name:
        raise UsageError(f"the row {row!r} is no import path; expected package.module:name")
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"the row {row!r} names no module: there is no {error.name!r}; install it or mend it"
        ) from error
    if not hasattr(module, name):
        raise UsageError(f"the row {row!r} names nothing: {path} has no {name!r}; mend the row")
    return cast(T, getattr(module, name))


def check_members(value: object, expected: type, place: str) -> None:
    """Refuses a row that lacks what the class or protocol ``expected`` has.

    Raises:
        UsageError: the sentence names the row's place and the missing members.
    """
    names = [*vars(expected).get("__dataclass_fields__", ()), *(name for name in vars(expected) if name[0] != "_")]
    if missing := [name for name in dict.fromkeys(names) if not hasattr(value, name)]:
        raise UsageError(
            f"{place} is of type {type(value).__name__}, without {', '.join(missing)}; expected a {expected.__name__}"
        )


def check_call(function: Callable[..., Any], place: str, *positional: str, **keywords: None) -> None:
    """Refuses a row that cannot be called with these arguments; only their number and names count.

    Raises:
        UsageError: the sentence names the row's place and the expected arguments.
    """
    wanted = ", ".join([*positional, *(f"{name}=" for name in keywords)])
    if not callable(function):
        raise UsageError(f"{place} is of type {type(function).__name__}; expected a function of ({wanted})")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin may have none
        return
    try:
        signature.bind(*positional, **keywords)
    except TypeError as error:
        raise UsageError(f"{place} cannot be called with ({wanted}): {error}; mend its arguments") from error
