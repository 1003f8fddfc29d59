"""Two folders that change their names in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

__all__ = ["exchange"]

_AT_FDCWD, _EXCHANGE = -100, 2
"""Linux's directory of relative paths, and the flag of ``renameat2`` and of macOS's ``renamex_np`` that exchanges."""
_MISSING = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}
"""Errors of systems and file systems that cannot exchange."""


def exchange(first: Path, second: Path, aside: Path) -> None:
    """Exchanges the names of two folders beside each other: whoever looks sees both, before or after.

    Where the system cannot do that it takes three renames, with the first folder at ``aside`` in between; there is a
    moment then in which nothing has its name.

    Raises:
        OSError: a folder is missing, or may not be renamed.
    """
    sys.audit("halp_trt.exchange", str(first), str(second))
    number = _exchanged(os.fsencode(first), os.fsencode(second))
    if number in _MISSING:
        os.rename(first, aside)
        try:
            os.rename(second, first)
        except OSError:
            os.rename(aside, first)
            raise
        os.rename(aside, second)
    elif number:
        raise OSError(number, os.strerror(number), str(first))


def _exchanged(first: bytes, second: bytes) -> int:
    """0 once the system has exchanged two names, else the number of its error."""
    library = ctypes.CDLL(None, use_errno=True)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, ctypes.c_uint(_EXCHANGE))
        else:
            failed = library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, ctypes.c_uint(_EXCHANGE))
    except AttributeError:  # a C library without it
        return errno.ENOSYS
    return ctypes.get_errno() if failed else 0
