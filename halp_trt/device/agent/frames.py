"""Messages over two pipes: one line of JSON each, and behind it as many bytes as it says."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Mapping
from typing import Any

from halp_trt.device.faults import LinkError

__all__ = ["Link", "mark_of"]

_MOST_HEAD = 1 << 24
"""Bytes of a message's line at most."""
_MOST_BLOB = 1 << 31
"""Bytes behind a line at most."""
_MOST_BANNER = 1 << 20
"""Bytes before a mark at most: what a login prints."""
_PART = 1 << 16


def mark_of(word: str, told: str = "") -> bytes:
    """The line that an agent's start writes, ``ready`` before its messages; ``told`` is the host's own word."""
    return f"\nhalp-trt agent {word} {told}".encode()


class Link:
    """Two descriptors, one to read messages from and one to write them to."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._buffer = bytearray()

    def send(self, message: Mapping[str, Any], blob: bytes = b"") -> int:
        """Writes a message and the bytes behind it; returns how many bytes that were.

        Raises:
            LinkError: nobody reads.
        """
        head = {**message, "num_bytes": len(blob)} if blob else message
        data = json.dumps(head, separators=(",", ":")).encode() + b"\n"
        self.write(data)
        self.write(blob)
        return len(data) + len(blob)

    def write(self, data: bytes) -> None:
        """Writes bytes as they are.

        Raises:
            LinkError: nobody reads.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._sink, left[: 1 << 20]) :]
        except OSError as error:
            raise LinkError(f"the link is cut ({error.strerror})") from error

    def receive(self, seconds: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next message and the bytes behind it.

        Args:
            seconds: the longest wait for the next part of it; None waits for ever.

        Raises:
            LinkError: the other side is gone or silent, or what it writes is no message.
        """
        line = bytes(self.until(b"\n", seconds, _MOST_HEAD))
        try:
            message = json.loads(line)
            size = int(message.pop("num_bytes", 0))
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise LinkError(f"the link brings {line[:60]!r}, which is no message") from error
        if not 0 <= size <= _MOST_BLOB:
            raise LinkError(f"the link announces {size} bytes, which is no size")
        while len(self._buffer) < size:
            self._more(seconds)
        blob = bytes(self._buffer[:size])
        del self._buffer[:size]
        return message, blob

    def until(self, mark: bytes, seconds: float | None = None, most: int = _MOST_BANNER) -> bytearray:
        """The bytes before a mark; they are taken off with the mark.

        Raises:
            LinkError: the other side ends, is silent or writes ``most`` bytes before.
        """
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            if len(self._buffer) > most:
                raise LinkError(f"the link brings {len(self._buffer)} bytes without an end")
            start = max(0, len(self._buffer) - len(mark))
            self._more(seconds)
        before = self._buffer[:at]
        del self._buffer[: at + len(mark)]
        return before

    def is_talking(self, seconds: float) -> bool:
        """True if something is to be read, or the other side has ended, within some seconds."""
        return bool(self._buffer) or bool(select.select([self._source], [], [], seconds)[0])

    def _more(self, seconds: float | None) -> None:
        until = None if seconds is None else time.monotonic() + seconds
        while not select.select([self._source], [], [], seconds)[0]:
            if until is not None and time.monotonic() >= until:
                raise LinkError(f"the link was silent for {seconds:g} seconds")
        try:
            part = os.read(self._source, _PART)
        except OSError as error:
            raise LinkError(f"the link is cut ({error.strerror})") from error
        if not part:
            raise LinkError("the link is cut: the other side has ended")
        self._buffer += part
