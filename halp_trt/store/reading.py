"""Files as they are read: regular ones alone, of a size that their kind can have; every failure is one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import IO, Any

from halp_trt.errors import ArtefactError
from halp_trt.store.files import file_error
from halp_trt.store.json_text import parse_json

__all__ = [
    "ENGINE_BYTES",
    "JSON_BYTES",
    "LINES_BYTES",
    "MODEL_BYTES",
    "TENSORS_BYTES",
    "TEXT_BYTES",
    "check_file",
    "open_file",
    "read_bytes",
    "read_json",
    "read_text",
    "sha256_bytes",
    "sha256_file",
]

TEXT_BYTES = 1 << 20
"""The largest file of settings that is read."""
JSON_BYTES = 128 << 20
"""The largest artefact in JSON that is read; its values take many times as much memory."""
LINES_BYTES = 1 << 30
"""The largest latency table, history or log that is read."""
MODEL_BYTES = (1 << 31) - 1
"""The largest ONNX model that is read; no larger one can be written."""
ENGINE_BYTES = 4 << 30
"""The largest engine that is read."""
TENSORS_BYTES = 16 << 30
"""The largest file of weights that is read."""
_POINTER = b"version https://git-lfs"
"""The beginning of what Git LFS leaves in the place of a file that it has not brought yet."""
_POINTER_BYTES = 1024
"""Bytes that such a pointer has at most."""
_PSEUDO_BYTES = 1 << 16
"""Bytes that are read of a file that says it has none, as the system's own do."""
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        ArtefactError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_file(path, TENSORS_BYTES) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise file_error(path, "read", error) from error
    return digest.hexdigest()


def read_bytes(path: str | Path, most: int = ENGINE_BYTES) -> bytes:
    """All bytes of a file.

    Args:
        path: the file.
        most: the largest size that is read.

    Raises:
        ArtefactError: it cannot be read, is no regular file, or is larger.
    """
    try:
        with open_file(path, most) as file:
            return file.read(os.fstat(file.fileno()).st_size or _PSEUDO_BYTES) or b""
    except OSError as error:
        raise file_error(path, "read", error) from error


def read_text(path: str | Path, most: int = TEXT_BYTES) -> str:
    """The UTF-8 text of a file, without a mark of byte order.

    Raises:
        ArtefactError: as :func:`read_bytes`; or it is not UTF-8.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error


def read_json(path: str | Path) -> Any:
    """The value in a JSON file.

    Raises:
        ArtefactError: it is missing, too large, truncated or not JSON.
    """
    data = read_bytes(path, JSON_BYTES)
    if not data.strip():
        raise ArtefactError(f"{path} is empty; name another file or make it again")
    try:
        return parse_json(data)
    except ArtefactError as error:
        raise ArtefactError(
            f"{path} is not whole JSON ({error}); it was cut off or is another kind of file, make it again"
        ) from error


def check_file(path: str | Path, most: int) -> None:
    """Makes sure that a file can be opened by somebody else's reader.

    Raises:
        ArtefactError: it cannot be read, is no regular file, or is larger than ``most`` bytes.
    """
    open_file(path, most).close()


def open_file(path: str | Path, most: int) -> IO[bytes]:
    """A file, open for reading.

    A pipe, a socket or a device is not opened: that would wait, or never end.

    Args:
        path: the file.
        most: the largest size that is read.

    Raises:
        ArtefactError: it cannot be read, is no regular file or a pointer of Git LFS, or is larger.
    """
    try:
        _check(path, os.stat(path), most)
        file = open(path, "rb", opener=_open)  # noqa: SIM115 (the caller closes it)
        try:
            _check(path, os.fstat(file.fileno()), most)  # it may be another one by now
            if not os.fstat(file.fileno()).st_size:
                os.pread(file.fileno(), 1, 0)  # files of the system's own have no size, and some would wait
            _refuse_pointer(path, file)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise file_error(path, "read", error) from error
    except ValueError as error:
        raise ArtefactError(f"cannot read {str(path)!r}: no path has such characters; check the path") from error
    return file


def _refuse_pointer(path: str | Path, file: IO[bytes]) -> None:
    """Refuses what Git LFS left in the place of a file: whoever reads it would find it damaged."""
    if not len(_POINTER) < os.fstat(file.fileno()).st_size <= _POINTER_BYTES:
        return
    if file.read(len(_POINTER)) == _POINTER:
        raise ArtefactError(f"{path} is a pointer of Git LFS, not the file itself; run: git lfs pull")
    file.seek(0)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _check(path: str | Path, found: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(found.st_mode)), "no regular file")
        raise ArtefactError(f"cannot read {path}: it is {kind}; name a file")
    if found.st_size > most:
        raise ArtefactError(
            f"cannot read {path}: it has {found.st_size:,} bytes, and a file of its kind at most {most:,}; name another"
        )
