"""Files as they are written: whole or not at all; every failure is one sentence."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from halp_trt.errors import ArtefactError
from halp_trt.store.locks import hold
from halp_trt.store.places import is_stream, open_stream, real_place
from halp_trt.store.temporary import link_new, written_beside

__all__ = [
    "append_text",
    "check_writable",
    "create_bytes",
    "file_error",
    "update_bytes",
    "write_bytes",
    "write_json",
    "write_text",
]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file as a whole or not at all; makes the folders above it.

    A link stays, and the file that it names is replaced; the file keeps its permissions. A terminal, a pipe and
    ``/dev/null`` are written into. What a killed process left beside the file is removed.

    Raises:
        ArtefactError: the folder is read-only or full, or the path is a folder or another thing that is no file.
    """
    path = Path(path)
    try:
        if is_stream(path):
            with open(open_stream(path), "wb") as stream:
                stream.write(data)
            return
        place = real_place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(place, data) as temporary:
            os.replace(temporary, place)
    except OSError as error:
        raise file_error(path, "write", error) from error


def create_bytes(path: str | Path, data: bytes) -> bool:
    """Writes a file that is not there yet, as a whole or not at all, however many processes try at once.

    Returns:
        False where something is there already, which is left alone.

    Raises:
        ArtefactError: the folder is read-only or full.
    """
    path = Path(path)
    try:
        if path.exists():
            return False
        place = real_place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(place, data) as temporary:
            return link_new(temporary, place)
    except OSError as error:
        raise file_error(path, "write", error) from error


def append_text(path: str | Path, text: str) -> None:
    """Adds UTF-8 text to a file, or starts it.

    Raises:
        ArtefactError: it cannot be written.
    """
    try:
        with open(path, "ab") as file:
            file.write(text.encode())
    except OSError as error:
        raise file_error(path, "write", error) from error


def check_writable(path: Path, *read: Path | None) -> None:
    """Makes sure, before any work, that a file can be written where its folder is there already.

    Args:
        path: the file.
        *read: files that the work rests on, which it must not replace; None is left out.

    Raises:
        ArtefactError: the path is a folder or no file, its folder cannot be written to, or it is one of ``read``.
    """
    if is_stream(path):
        return
    try:
        place = real_place(path)
    except OSError as error:
        raise file_error(path, "write", error) from error
    if any(other is not None and _is_same(place, other) for other in read):
        raise ArtefactError(f"{path} is read here, and would be lost; name another file to write")
    folder = next(one for one in place.parents if one.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArtefactError(
            f"cannot write {path}: {folder} takes no file ({error.strerror or error}); choose another path"
        ) from error


def _is_same(place: Path, other: Path) -> bool:
    """True if another path leads to a place, whether anything is there or not."""
    if os.path.realpath(other) == str(place):
        return True
    return other.exists() and place.exists() and place.samefile(other)


def update_bytes(path: str | Path, change: Callable[[bytes], bytes]) -> None:
    """Replaces a file's bytes by ``change(bytes)`` (``b""`` for a missing file), one process after the other.

    Raises:
        ArtefactError: the file cannot be read or written.
    """
    path = Path(path)
    try:
        with hold(path, waits=True):
            write_bytes(path, change(path.read_bytes() if path.exists() else b""))
    except OSError as error:
        raise file_error(path, "write", error) from error


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text like :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: object) -> None:
    """Writes JSON that a person can read and a diff can follow, like :func:`write_bytes`."""
    write_text(path, _pretty(value) + "\n")


def file_error(path: str | Path, verb: str, error: OSError) -> ArtefactError:
    """The error for a file that cannot be read or written; its sentence ends with advice."""
    folder = Path(path).parent
    advice = {
        errno.ENOENT: "check the path" if verb == "read" else "make the folder or choose another path",
        errno.ENOSPC: "the disk is full, free some space",
        errno.EDQUOT: "your quota is used up, free some space",
        errno.EROFS: f"{folder} is read-only, choose another path",
        errno.EACCES: f"check the permissions of it and of {folder}, or choose another path",
        errno.EISDIR: "it is a folder, name a file",
        errno.EINVAL: "name a regular file",
        errno.ELOOP: "its links lead in a circle, choose another path",
        errno.ENXIO: "nobody reads from it, start its reader first or name a file",
        errno.ENAMETOOLONG: "choose a shorter name",
        errno.ENOTDIR: "a part of the path is a file, choose another path",
    }.get(error.errno or 0, "check the path and the disk")
    return ArtefactError(f"cannot {verb} {path}: {error.strerror or error}; {advice}")


def _pretty(value: object, indent: int = 0) -> str:
    """JSON with short values and lists of plain numbers or names on one line."""
    flat = json.dumps(value, allow_nan=False)
    is_plain = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
    if is_plain or len(flat) + indent <= 110 or not isinstance(value, dict | list):
        return flat
    margin = " " * (indent + 2)
    if isinstance(value, dict):
        lines = [f"{margin}{json.dumps(key)}: {_pretty(item, indent + 2)}" for key, item in value.items()]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(margin + _pretty(item, indent + 2) for item in value) + "\n" + " " * indent + "]"
