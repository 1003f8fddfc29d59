"""Files as they are written: whole or not at all; every failure is one sentence."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

from halp_trt.errors import ArtefactError

__all__ = [
    "file_error",
    "update_bytes",
    "write_bytes",
    "write_durably",
    "write_json",
    "write_text",
]


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file as a whole or not at all; makes the folders above it.

    Raises:
        ArtefactError: the folder is read-only or full, or the path is a folder.
    """
    path = Path(path)
    if not path.name:  # "." or "/"
        raise file_error(path, "write", IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                write_durably(file, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise file_error(path, "write", error) from error


def update_bytes(path: str | Path, change: Callable[[bytes], bytes]) -> None:
    """Replaces a file's bytes by ``change(bytes)`` (``b""`` for a missing file), one process after the other.

    The lock file beside it stays; the lock itself falls with the process holding it.

    Raises:
        ArtefactError: the file cannot be read or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path.with_name(f"{path.name}.lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_bytes(path, change(path.read_bytes() if path.exists() else b""))
    except OSError as error:
        raise file_error(path, "write", error) from error


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text like :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: object) -> None:
    """Writes JSON that a person can read and a diff can follow, like :func:`write_bytes`."""
    write_text(path, _pretty(value) + "\n")


def write_durably(file: IO[bytes], data: bytes) -> None:
    """Writes, and returns when the bytes are on the disk."""
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


def file_error(path: str | Path, verb: str, error: OSError) -> ArtefactError:
    """The error for a file that cannot be read or written; its sentence ends with advice."""
    folder = Path(path).parent
    advice = {
        errno.ENOENT: "check the path" if verb == "read" else "make the folder or choose another path",
        errno.ENOSPC: "the disk is full, free some space",
        errno.EDQUOT: "your quota is used up, free some space",
        errno.EROFS: f"{folder} is read-only, choose another path",
        errno.EACCES: f"check the permissions of {folder} or choose another path",
        errno.EISDIR: "it is a folder, name a file",
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
