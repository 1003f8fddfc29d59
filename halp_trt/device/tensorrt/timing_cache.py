"""TensorRT's timing cache as a file that several builders share, so that no measured timing is lost."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any, Protocol

from halp_trt.device.faults import ArtefactError
from halp_trt.device.tensorrt.bindings import Library

__all__ = ["TimingFile", "accept_timings", "as_file", "read_timings", "save_timings"]


class TimingFile(Protocol):
    """A file of kernel timings that several builders share."""

    @property
    def name(self) -> str:
        """Its name, for people."""
        ...

    def read(self) -> bytes:
        """Its bytes; none where there is no file yet.

        Raises:
            ArtefactError: it cannot be read.
        """
        ...

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replaces its bytes by ``change(bytes)``, one builder after the other.

        Raises:
            ArtefactError: it cannot be written.
        """
        ...


def read_timings(library: Library, file: TimingFile | None) -> bytes | None:
    """The kernel timings in a file, empty if there is no file yet; None if this library keeps no timings.

    Raises:
        ArtefactError: the file cannot be read.
    """
    return None if file is None or not library.has_timing_cache else file.read()


def as_file(timings: bytes) -> io.BytesIO:
    """Kernel timings as Polygraphy's ``CreateConfig`` takes them: it asks a file for its mode."""

    class Timings(io.BytesIO):
        mode = "rb"

    return Timings(timings)


def accept_timings(config: Any) -> bool:
    """True if a builder keeps timings: the ones that it was given, or empty ones where it refused those.

    It refuses timings of another TensorRT or GPU; their file is replaced when the build is done.
    """
    if config.get_timing_cache() is not None:
        return True
    cache = config.create_timing_cache(b"")
    return cache is not None and bool(config.set_timing_cache(cache, False))


def save_timings(config: Any, file: TimingFile) -> bool:
    """Adds a builder's kernel timings to the file; entries that others wrote since it was read are kept.

    Returns:
        True if they are saved. A file that cannot be written gives a warning: the built engine is worth more.
    """
    own = config.get_timing_cache()

    def merged(theirs: bytes) -> bytes:
        other = config.create_timing_cache(theirs) if theirs else None
        if other is not None:
            own.combine(other, False)
        return bytes(own.serialize())

    try:
        file.update(merged)
    except ArtefactError as error:
        warnings.warn(f"kernel timings are not saved: {error}", stacklevel=2)
        return False
    return True
