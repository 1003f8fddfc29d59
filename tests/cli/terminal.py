"""A terminal of a given size for a program to run on, which keeps what was on its screen all the while."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyte

NUM_ROWS = 12
_PATIENCE_S = 240.0


class Terminal:
    """The screen of a program that runs on a pseudo-terminal.

    Attributes:
        frames: every different content of the screen in order, its lines without trailing blanks.
    """

    def __init__(self, command: Sequence[str | Path], *, num_columns: int, folder: Path) -> None:
        self._screen = pyte.HistoryScreen(num_columns, NUM_ROWS, history=1000, ratio=0.1)
        self._stream = pyte.ByteStream(self._screen)
        self._rows = [""] * NUM_ROWS
        self.frames: list[tuple[str, ...]] = []
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", NUM_ROWS, num_columns, 0, 0))
        self._fd = ours
        environment = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, start_new_session=True,
            preexec_fn=_take_terminal, env={**environment, "TERM": "xterm-256color", "PYTHONWARNINGS": ""},
        )  # fmt: skip
        os.close(theirs)

    def read_until(self, condition: Callable[[tuple[str, ...]], bool]) -> None:
        """Follows the program until its screen is so."""
        while not (self.frames and condition(self.frames[-1])):
            assert self._read(), "\n".join(self.lines())

    def read_to_end(self) -> int:
        """Follows the program to its end and gives its exit code."""
        while self._read():
            pass
        return self._process.wait(_PATIENCE_S)

    def press_ctrl_c(self) -> None:
        os.write(self._fd, b"\x03")

    def lines(self) -> list[str]:
        """All lines, those that have left the screen at its top included."""
        width = self._screen.columns
        gone = ["".join(row[x].data for x in range(width)).rstrip() for row in self._screen.history.top]
        return [*gone, *self._shown()]

    @property
    def is_clean(self) -> bool:
        """Whether what is typed next is seen, at the beginning of a line."""
        cursor = self._screen.cursor
        return not cursor.hidden and cursor.x == 0

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._fd)

    def _shown(self) -> tuple[str, ...]:
        for y in self._screen.dirty:
            row = self._screen.buffer[y]
            self._rows[y] = "".join(row[x].data for x in range(self._screen.columns)).rstrip()
        self._screen.dirty.clear()
        return tuple(self._rows)

    def _read(self) -> bool:
        """Takes what the program writes next; False when it has ended."""
        until = time.monotonic() + _PATIENCE_S
        ready, _, _ = select.select([self._fd], [], [], until - time.monotonic())
        assert ready, "\n".join(["nothing was written for minutes below this:", *self.lines()])
        try:
            written = os.read(self._fd, 1 << 16)
        except OSError:  # how Linux says that nobody holds the other end
            return False
        for piece in re.split(rb"(?=\x1b)|(?<=\n)", written):
            if piece.startswith(b"\x1b"):
                self._keep()
            self._stream.feed(piece)
            if piece.endswith(b"\n"):
                self._keep()
        return bool(written)

    def _keep(self) -> None:
        """Keeps the screen as a slow terminal shows it: before a control sequence, after a line."""
        shown = self._shown()
        if not self.frames or self.frames[-1] != shown:
            self.frames.append(shown)


def _take_terminal() -> None:
    """Makes the terminal on stdin the one whose Ctrl-C reaches this process, even where the tests' own ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def terminal(*arguments: str | Path, num_columns: int, folder: Path) -> Iterator[Terminal]:
    """Python with these arguments, on a terminal."""
    opened = Terminal([sys.executable, *arguments], num_columns=num_columns, folder=folder)
    try:
        yield opened
    finally:
        opened.close()
