"""Files that are written whole before they get their name; what a kill leaves of them is found and removed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from halp_trt.store.locks import take, wait_for

__all__ = ["is_temporary", "link_new", "write_durably", "written_beside"]

_START, _END = ".halp-trt-", ".tmp"
"""The beginning and the end of a temporary file's name."""
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK}
"""Errors of file systems without hard links."""


@contextlib.contextmanager
def written_beside(place: Path, data: bytes) -> Iterator[Path]:
    """The path of a file beside ``place`` with these bytes, on the disk, and the permissions of the file at ``place``.

    It is removed in the end, unless it was renamed. As long as it is there its process has it locked: what is not
    locked a killed process left, and is removed first.

    Raises:
        OSError: it cannot be written.
    """
    _sweep(place)
    temporary, file = _started(place)
    with file:
        try:
            _take_rights(place, file)
            write_durably(file, data)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def link_new(temporary: Path, place: Path) -> bool:
    """Gives a temporary file a name that no file has; False where one has it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        os.link(temporary, place)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with open(place, "xb") as file:
                write_durably(file, temporary.read_bytes())
        except FileExistsError:
            return False
    return True


def is_temporary(name: str) -> bool:
    """True for the name of a temporary file."""
    return name.startswith(_START) and name.endswith(_END)


def write_durably(file: IO[bytes], data: bytes) -> None:
    """Writes, and returns when the bytes are on the disk."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def _prefix(place: Path) -> str:
    """The beginning of the names of a file's temporary ones, short however long its own is."""
    return f"{_START}{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:16]}-"


def _started(place: Path) -> tuple[Path, IO[bytes]]:
    """The path of a new file, open for writing and locked."""
    while True:
        temporary = place.with_name(f"{_prefix(place)}{uuid.uuid4().hex[:16]}{_END}")
        file = open(temporary, "xb")  # noqa: SIM115 (its caller closes it)
        wait_for(file.fileno())
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process took it for one that was left, before it was locked


def _sweep(place: Path) -> None:
    """Removes temporary files of killed processes."""
    prefix, left = _prefix(place), list[str]()
    with contextlib.suppress(OSError), os.scandir(place.parent) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(prefix) and entry.name.endswith(_END)]
    for path in left:
        with contextlib.suppress(OSError):  # its process is done with it, or the folder is read-only
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if take(descriptor):
                    os.unlink(path)
            finally:
                os.close(descriptor)


def _take_rights(place: Path, file: IO[bytes]) -> None:
    """Gives a new file the permissions of the one that it will replace, and its owner as far as that is allowed."""
    try:
        old = os.stat(place)
    except FileNotFoundError:
        return
    own = os.fstat(file.fileno())
    if (old.st_uid, old.st_gid) != (own.st_uid, own.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
