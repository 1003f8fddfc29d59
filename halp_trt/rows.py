"""Rows of registries: values, or the places of values that are imported only when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar, cast

__all__ = ["load_row"]

T = TypeVar("T")


def load_row(row: T | str) -> T:
    """The value of a registry's row: itself, or what ``package.module:name`` names.

    Args:
        row: a value, or the text that says where it is.

    Raises:
        ImportError: the module, or a package that it needs, is not installed.
        AttributeError: the module has no such name.
    """
    if not isinstance(row, str):
        return row
    module, _, name = row.partition(":")
    return cast(T, getattr(import_module(module), name))
