"""Live bars on a terminal, below the lines that are written meanwhile: neither ever stands in the other."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Display
from rich.table import Column
from rich.text import Text

from halp_trt.texts import one_line

__all__ = ["Bar", "Screen", "live_screen"]

_REFRESHES_PER_SECOND = 4  # few, as layers are timed on the same processor
_BAR_WIDTH = 40


class Screen:
    """A terminal with at most one bar, for the work that began last, and lines above it."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._bar: TaskID | None = None

    def begin(self, label: str) -> Bar:
        """The bar of work that begins now, in the place of the one before: a spinner until it has a total."""
        self._clear()
        self._bar = self._display.add_task(one_line(label), total=None, note="")
        return Bar(self, self._bar)

    def move(self, bar: TaskID, done: int, total: int, note: str) -> None:
        """Shows how far a bar has come, if it is still the one on the screen: its beginning and its end at once."""
        if bar == self._bar:
            begins = self._display.tasks[0].total is None
            self._display.update(bar, completed=done, total=total, note=one_line(note), refresh=begins or done >= total)

    def write_line(self, line: str) -> None:
        """Writes a line above the bar; a full bar is removed."""
        if any(task.finished for task in self._display.tasks):
            self._clear()
        self._display.console.print(Text(one_line(line.expandtabs())), soft_wrap=True)

    def _clear(self) -> None:
        if self._bar is not None:
            self._display.remove_task(self._bar)
            self._bar = None


class Bar:
    """The progress callback of one bar: called with how much is done, out of how much, and a note."""

    def __init__(self, screen: Screen, task: TaskID) -> None:
        self._screen = screen
        self._task = task

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self._screen.move(self._task, done, total, note)


@contextlib.contextmanager
def live_screen() -> Iterator[Screen | None]:
    """The terminal behind stderr, or None where there is none on which lines can be written again.

    Inside the context, all that Python writes to stdout and stderr comes out in whole lines above the bar; afterwards
    the bar is gone and the lines remain.
    """
    console = Console(file=sys.stderr, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description:<12}", markup=False),
        _Counted(
            SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
            BarColumn(bar_width=None),
            Column(max_width=_BAR_WIDTH),
        ),
        _Counted(TextColumn(""), MofNCompleteColumn(), Column(no_wrap=True)),
        TimeElapsedColumn(),
        _Note(Column()),
    )
    with contextlib.ExitStack() as stack:
        display = Display(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=_REFRESHES_PER_SECOND,
        )
        screen = Screen(stack.enter_context(display))
        stack.enter_context(contextlib.redirect_stderr(stack.enter_context(_Lines(screen.write_line, sys.stderr))))
        if sys.stdout.isatty():
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(_Lines(screen.write_line, sys.stdout))))
        yield screen


class _Counted(ProgressColumn):
    """A column that shows one column while the work has no total, and another once it has."""

    max_refresh = None

    def __init__(self, before: ProgressColumn, after: ProgressColumn, table_column: Column) -> None:
        super().__init__(table_column)
        self._before, self._after = before, after

    def render(self, task: Task) -> Text:
        column = self._before if task.total is None else self._after
        return column.render(task)  # type: ignore[return-value]  # what rich can draw


class _Note(ProgressColumn):
    """The work's note on one line; a narrow terminal shortens the note and the bar."""

    max_refresh = None

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


class _Lines(io.TextIOBase):
    """A text stream that hands on whole lines.

    It has no ``buffer``, so that click writes to it and not past it.
    """

    def __init__(self, write_line: Callable[[str], None], behind: TextIO) -> None:
        self._write_line = write_line
        self._behind = behind
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._write_line(line.rstrip("\r").rpartition("\r")[2])
        return len(text)

    def close(self) -> None:
        if self._begun:
            self.write("\n")
        super().close()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._behind.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in TextIOBase
        return self._behind.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # as above
        return self._behind.errors
