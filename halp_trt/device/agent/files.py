"""Files of an agent: whole or not at all; lines that are on the disk before they count; locks that a process holds."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, Callable

from halp_trt.device.faults import ArtefactError

__all__ = ["Lines", "Lock", "folder_error", "read_json", "write_whole"]

_MOST_SIGNED = 4096
"""Bytes of what the holder of a lock says of itself."""
_ATTEMPTS = 10
"""Attempts at a lock, a hundredth of a second apart."""


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file as a whole or not at all.

    Raises:
        ArtefactError: the disk is full, or the folder takes no file.
    """
    own = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(own, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(own, path)
    except OSError as error:
        raise folder_error(path.parent, error) from error
    finally:
        if own.exists():
            own.unlink()


def folder_error(folder: Path, error: OSError) -> ArtefactError:
    """The error of a folder that takes no file."""
    advice = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check that folder"
    return ArtefactError(f"the device's folder {folder} takes no more: {error.strerror or error}; {advice}")


def read_json(path: Path) -> Any:
    """The value in a JSON file; None where it is missing, damaged or empty."""
    try:
        return json.loads(path.read_text(encoding="utf-8").strip("\0 \n") or "null")
    except (OSError, ValueError):
        return None


class Lines:
    """A file of JSON lines that grows; a line counts when it is whole and on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def repair(self) -> None:
        """Cuts off half a line at the end, which a kill or a full disk left."""
        if self.path.exists() and self.path.stat().st_size != (size := self.num_bytes()):
            os.truncate(self.path, size)

    def num_bytes(self) -> int:
        """The size up to the last whole line."""
        return len(self.whole())

    def whole(self, start: int = 0) -> bytes:
        """The whole lines from a byte on."""
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                data = file.read()
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]

    def read(self) -> list[dict[str, Any]]:
        """The values of all whole lines; those that are no JSON objects are left out."""
        found = []
        for line in self.whole().splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    def keep(self, is_kept: Callable[[dict[str, Any]], bool]) -> None:
        """Leaves the lines that are to be kept, and takes all others out.

        Raises:
            ArtefactError: the disk does not take them.
        """
        values = self.read()
        kept = [value for value in values if is_kept(value)]
        if len(kept) < len(values):
            write_whole(self.path, b"".join(map(_line_of, kept)))

    def append(self, values: list[dict[str, Any]]) -> None:
        """Adds lines, all or none of them, and returns when the disk has them.

        Raises:
            ArtefactError: the disk is full, or does not take them for another reason.
        """
        data = b"".join(map(_line_of, values))
        try:
            with open(self.path, "ab", buffering=0) as file:
                before = os.fstat(file.fileno()).st_size
                try:
                    written = file.write(data)
                    if written != len(data):  # what a full disk still took
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), before)
                    raise
        except OSError as error:
            raise folder_error(self.path.parent, error) from error


def _line_of(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


class Lock:
    """A file that one process holds at a time, with a word of its holder in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def take(self, words: dict[str, Any]) -> bool:
        """True if nobody else holds it; this process does then, until it ends or lets go."""
        descriptor = os.open(str(self.path), os.O_RDWR | os.O_CREAT, 0o600)
        for attempt in range(_ATTEMPTS):  # who asks for the holder has it for a moment
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if attempt == _ATTEMPTS - 1:
                    os.close(descriptor)
                    return False
                time.sleep(0.01)
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # a full disk: then nobody is told who holds it
            os.pwrite(descriptor, json.dumps(words).encode().ljust(_MOST_SIGNED, b"\0"), 0)
        return True

    def free(self) -> None:
        """Lets go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_free(self) -> bool:
        """True if nobody holds it, alone or with others."""
        return not self._is_held(fcntl.LOCK_EX)

    def holder(self) -> dict[str, Any] | None:
        """The word of the process that holds it alone; None where nobody does."""
        if not self._is_held(fcntl.LOCK_SH):  # several may look at once, and do not take each other for holders
            return None
        words = read_json(self.path)
        return words if isinstance(words, dict) else {}

    def _is_held(self, kind: int) -> bool:
        """True if the file cannot be locked so, for a moment."""
        try:
            descriptor = os.open(str(self.path), os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(descriptor)
