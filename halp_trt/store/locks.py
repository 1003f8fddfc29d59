"""Locks that fall with the process holding them: on what is being written, and turns at one file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from halp_trt.errors import InUseError
from halp_trt.store.places import hidden_beside, is_stream

__all__ = ["hold", "take", "wait_for"]

_MOST_ATTEMPTS = 100
"""Most times that a folder is made again because another process has removed it."""
_PATIENCE_SECONDS = 1.0
"""Time that a holder may take to write down who it is."""


@contextlib.contextmanager
def hold(*paths: Path | None, waits: bool = False) -> Iterator[None]:
    """Holds files or folders, there or not, for this process alone; None is left out.

    The lock is on a hidden file beside each, which is removed in the end; left behind by a kill, it holds nothing.
    Streams are not held, nor is anything where no such file can be made or the file system has no locks.

    Args:
        *paths: the files and folders; several names of one count once.
        waits: whether to wait for another holder to end, instead of refusing.

    Raises:
        InUseError: another process holds one of them; the message says which process.
    """
    places = {
        Path(os.path.realpath(path)): path
        for path in paths
        if path is not None and "\0" not in str(path) and not is_stream(path)
    }
    with contextlib.ExitStack() as stack:
        for place, path in sorted(places.items()):
            if place.name:  # the root is nothing that is written
                stack.enter_context(_held(place, path, waits=waits))
        yield


def wait_for(descriptor: int) -> None:
    """Locks an open file once no other process has it locked; until it is closed, or its process dies."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def take(descriptor: int) -> bool:
    """True if nobody else has an open file locked, which then is; False too where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _held(place: Path, path: Path, *, waits: bool) -> Iterator[None]:
    made = [folder for folder in place.parents if not folder.exists()]
    lock = hidden_beside(place, "lock")
    descriptor = None
    try:
        descriptor = _locked(lock, path, waits=waits)
        yield
    finally:
        if descriptor is not None:
            lock.unlink(
                missing_ok=True
            )  # before it is let go: who waits for it sees that it is gone, and makes another
            os.close(descriptor)
        with contextlib.suppress(OSError):  # something lies in it
            for folder in made:
                folder.rmdir()


def _locked(lock: Path, path: Path, *, waits: bool) -> int | None:
    """A descriptor of a locked lock file; None where there can be none.

    Raises:
        InUseError: another process has it locked.
    """
    attempts = 0
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            attempts += 1
            if error.errno == errno.ENOENT and attempts < _MOST_ATTEMPTS:
                continue  # another process has just removed the folder that it had made
            return None  # whatever is written there is told why
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            if _is_at(descriptor, lock):
                _sign(descriptor)
                return descriptor
            os.close(descriptor)
        except BlockingIOError as error:
            who = _holder(descriptor)
            os.close(descriptor)
            raise InUseError(f"{path} is in use by {who}; wait for it to end, or name another path") from error
        except OSError:
            os.close(descriptor)
            return None
        except BaseException:  # Ctrl-C while it waits
            os.close(descriptor)
            raise


def _is_at(descriptor: int, path: Path) -> bool:
    """True if an open file is still the one of that path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Writes into a lock file who holds it."""
    words = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(words).encode(), 0)


def _holder(descriptor: int) -> str:
    """The holder as it has signed a lock file, nothing of it believed that is not of its form."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            words = json.loads(os.pread(descriptor, 1000, 0))
            pid, host, since = int(words["pid"]), str(words["host"]), str(words["since"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            if time.monotonic() > until:
                return "another process"
            time.sleep(0.02)
            continue
        is_time = re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", since, re.ASCII)
        name = re.sub(r"[^a-zA-Z0-9.-]", "?", host)[:60]
        return f"process {pid} on {name}" + (f" since {since}" if is_time else "")
