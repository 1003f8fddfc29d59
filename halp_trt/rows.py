"""Rows of registries: values, or the import paths of values that are loaded on demand."""

from __future__ import annotations

from importlib import import_module
from typing import TypeVar, cast

__all__ = ["load_row"]

T = TypeVar("T")


def load_row(row: T | str) -> T:
    """The value of a registry's row: the row itself, or the object at ``package.module:name``.

    Args:
        row: a value, or its import path.

    Raises:
        ImportError: the module, or a package that it needs, is not installed.
        AttributeError: the module has no such name.
    """
    if not isinstance(row, str):
        return row
    module, _, name = row.partition(":")
    return cast(T, getattr(import_module(module), name))
