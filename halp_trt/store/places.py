"""Places that are written to: regular files, which are replaced, and streams, which are written into."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import NoReturn

__all__ = ["hidden_beside", "is_stream", "open_stream", "real_place"]

_STREAMS = (stat.S_ISCHR, stat.S_ISFIFO)
"""The kinds of files that have no bytes of their own: what is written to them is gone, or another's."""
_STANDARD = (1, 2)
"""Descriptors of standard output and standard error, which the shell may have opened on a file."""
_LONGEST_NAME = 200
"""Longest name in bytes that is part of another; of a longer one a digest is."""


def hidden_beside(place: Path, kind: str) -> Path:
    """The path of a hidden file or folder of ours beside another, which it is called after."""
    encoded = os.fsencode(place.name)
    name = place.name if len(encoded) <= _LONGEST_NAME else hashlib.sha256(encoded).hexdigest()
    return place.with_name(f".{name}.halp-trt-{kind}")


def real_place(path: Path) -> Path:
    """The path of the regular file that a path names, or will name once it is written; links are followed.

    Raises:
        OSError: it is a folder or another thing that no file may take the place of, or its links lead in a circle.
    """
    if not path.name or "\0" in str(path):  # "." or "/"
        _refuse(errno.EISDIR if not path.name else errno.EINVAL)
    place = Path(os.path.realpath(path))
    try:
        mode = os.stat(place).st_mode
    except FileNotFoundError:
        if path.is_symlink() and not place.parent.is_dir():
            raise
        return place
    if stat.S_ISDIR(mode):
        _refuse(errno.EISDIR)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if not os.access(place, os.W_OK):
        _refuse(errno.EACCES)
    return place


def is_stream(path: Path) -> bool:
    """True for a terminal, a pipe, ``/dev/null`` and the like, and for what standard output or error are."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    if stat.S_ISREG(found.st_mode):
        return any(os.path.samestat(found, other) for other in _standard())
    return any(is_kind(found.st_mode) for is_kind in _STREAMS)


def open_stream(path: Path) -> int:
    """A descriptor to write into a stream with; one of standard output where that is the stream.

    Raises:
        OSError: it cannot be opened, or nobody reads from the pipe.
    """
    found = os.stat(path)
    for number in _STANDARD:
        try:
            if os.path.samestat(found, os.fstat(number)):
                return os.dup(number)
        except OSError:  # it is closed
            continue
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe without a reader would wait for ever
    os.set_blocking(descriptor, True)
    return descriptor


def _standard() -> list[os.stat_result]:
    found = []
    for number in _STANDARD:
        try:
            found.append(os.fstat(number))
        except OSError:  # it is closed
            continue
    return found


def _refuse(number: int) -> NoReturn:
    raise OSError(number, os.strerror(number))
