"""Import of a user's ``module:factory``; the import path is left as it was."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from halp_trt.errors import DataError, ModelError
from halp_trt.interrupts import raise_if_stopped

__all__ = ["import_factory", "is_factory"]


def is_factory(source: str) -> bool:
    """True if a source string looks like ``package.module:factory``."""
    module, _, name = source.partition(":")
    return bool(name) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Searches the current folder first for imports while inside."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def import_factory(source: str, error: type[ModelError] | type[DataError]) -> Callable[..., Any]:
    """The callable that ``package.module:factory`` names; the current folder is searched first.

    Args:
        source: the source string.
        error: class of the error to raise, so that failures of a model and of a data set stay apart.

    Raises:
        ModelError, DataError: the module cannot be imported or has no such callable; the class is ``error``.
    """
    module_name, _, name = source.partition(":")
    with _current_folder_first():
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(module_name)
        except Exception as cause:
            raise_if_stopped(cause)
            raise error(
                f"{source!r}: module {module_name!r} cannot be imported ({type(cause).__name__}: {cause}); run from "
                f"the folder that holds it or install it"
            ) from cause
    factory = getattr(module, name, None)
    if not callable(factory):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise error(f"{source!r}: {module_name!r} has no callable {name!r}; it has {', '.join(names[:8]) or 'none'}")
    return factory  # type: ignore[no-any-return]  # a user's own; its callers look at what it gives
