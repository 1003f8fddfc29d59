"""The file of TensorRT's timing cache, as the store reads and writes it: under a lock, so that no timing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from halp_trt.store import read_bytes, update_bytes

__all__ = ["StoredTimings", "timings_at"]


class StoredTimings:
    """A :class:`halp_trt.device.tensorrt.timing_cache.TimingFile` at a path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    def read(self) -> bytes:
        """Its bytes; none where there is no file yet.

        Raises:
            ArtefactError: it cannot be read.
        """
        return read_bytes(self._path) if self._path.exists() else b""

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces its bytes by ``change(bytes)``, one process after the other.

        Raises:
            ArtefactError: it cannot be written.
        """
        update_bytes(self._path, change)


def timings_at(path: Path | None) -> StoredTimings | None:
    """The timings at a path; None without one."""
    return None if path is None else StoredTimings(path)
