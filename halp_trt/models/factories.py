"""A user's own code, named ``module:factory``: imported if the user named it, and called; the import path stays."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from halp_trt.errors import DataError, HalpError, ModelError, UsageError
from halp_trt.interrupts import raise_if_stopped

__all__ = ["Recorded", "check_named", "faults_of", "import_factory", "is_factory"]

Fault = type[ModelError] | type[DataError]
"""The class of the errors of a source: failures of a model and of a data set stay apart."""


class Recorded(str):
    """A source string that a file of a run gave, and not the user: if it names code, the code is not run.

    Attributes:
        option: the option by which the user names it.
    """

    option: str

    def __new__(cls, text: str, option: str = "") -> Recorded:
        """The same text, marked."""
        made = super().__new__(cls, text)
        made.option = option
        return made


def is_factory(source: str) -> bool:
    """True if a source string looks like ``package.module:factory``."""
    module, _, name = source.partition(":")
    return bool(name) and name.isidentifier() and all(part.isidentifier() for part in module.split("."))


def check_named(*factories: str) -> None:
    """Refuses factories that a run's file names, and the user does not.

    Raises:
        UsageError: there is one; the sentence says what to type.
    """
    unnamed = [source for source in factories if isinstance(source, Recorded)]
    if unnamed:
        raise UsageError(
            f"the run's file names code ({', '.join(unnamed)}), which is run only if you name it, too; if you trust "
            f"it, repeat the command with {' '.join(f'{source.option} {source}' for source in unnamed)}"
        )


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Searches the current folder first for imports while inside."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have removed it
            sys.path.remove(folder)


@contextmanager
def faults_of(source: str, error: Fault) -> Iterator[None]:
    """Turns whatever the code of a source raises, a call of ``sys.exit`` included, into one error.

    Raises:
        ModelError, DataError: the code failed; the class is ``error``. Our own errors and Ctrl-C pass.
    """
    try:
        yield
    except (HalpError, KeyboardInterrupt):
        raise
    except BaseException as cause:
        raise_if_stopped(cause)
        raise error(
            f"{source!r} failed ({type(cause).__name__}: {cause}); call it without arguments to see why"
        ) from cause


def import_factory(source: str, error: Fault) -> Callable[..., Any]:
    """The callable that ``package.module:factory`` names; the current folder is searched first.

    Args:
        source: the source string.
        error: class of the error to raise.

    Raises:
        ModelError, DataError: the module cannot be imported or has no such callable; the class is ``error``.
        UsageError: as :func:`check_named`.
    """
    check_named(source)
    module_name, _, name = source.partition(":")
    with _current_folder_first():
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(module_name)
        except KeyboardInterrupt:
            raise
        except BaseException as cause:
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
