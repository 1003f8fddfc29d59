"""Work in forked processes: they have everything imported already, and may be killed wherever they are."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from halp_trt.cli import verbs

FILE_EVENTS = (
    "halp_trt.exchange", "open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate",
)  # fmt: skip
"""What Python's auditing calls the operations that change files."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code, minus the number of the signal that killed it.
        said: what it wrote to standard output and standard error.
    """

    code: int
    said: str


@dataclass(frozen=True, kw_only=True)
class Forked:
    """A process that was forked from this one."""

    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        return Ended(code=os.waitstatus_to_exitcode(status), said=self.log.read_text())


def fork(work: Callable[[], object], log: Path) -> Forked:
    """Starts work in a process of its own, in which signals do what they do by default; its words go to a file."""
    pid = os.fork()
    if pid:
        return Forked(pid=pid, log=log)
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        code = _code_of(work)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _code_of(work: Callable[[], object]) -> int:
    try:
        work()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def fork_verb(words: Sequence[object], log: Path) -> Forked:
    """Starts the command line in a process of its own."""
    return fork(lambda: verbs([str(word) for word in words]), log)


def at_file_events(act: Callable[[int], None]) -> None:
    """Has every operation that changes files preceded by a call with its number; for the rest of this process."""
    count, is_busy = 0, False

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal count, is_busy
        if is_busy or event not in FILE_EVENTS or (event == "open" and not _writes(args)):
            return
        count, is_busy = count + 1, True
        act(count)
        is_busy = False

    sys.addaudithook(hook)


def _writes(args: tuple[object, ...]) -> bool:
    flags = args[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
