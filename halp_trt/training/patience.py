"""A request to end (SIGTERM) in a process that does not listen, as it waits for another one inside of a library."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

__all__ = ["followed_up"]

_MOST_BYTES = 64
"""Bytes that are read at once, one for each signal."""


@contextlib.contextmanager
def followed_up(acts: Sequence[tuple[float, Callable[[], object]]]) -> Iterator[None]:
    """A context in which a request to end that has not ended it is followed up, by one act after the other.

    Python runs handlers of signals between its own instructions. A process that waits inside of a library comes to
    none, while a thread of its own does. Outside the main thread the context does nothing.

    Args:
        acts: functions that the thread calls, each with the seconds that it waits before.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    try:
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        reader.close()
        writer.close()
        yield
        return
    thread = threading.Thread(target=_follow_up, args=(reader, acts), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        with contextlib.suppress(OSError):  # processes that were forked meanwhile hold the writer, too
            writer.shutdown(socket.SHUT_WR)
        writer.close()


def _follow_up(reader: socket.socket, acts: Sequence[tuple[float, Callable[[], object]]]) -> None:
    """Waits for a request to end, then acts until the context is left."""
    with reader:
        while received := reader.recv(_MOST_BYTES):
            if signal.SIGTERM in received:
                break
        else:
            return
        for seconds, act in acts:
            reader.settimeout(seconds)
            try:
                while reader.recv(_MOST_BYTES):
                    pass
            except TimeoutError:
                act()
            else:
                return
