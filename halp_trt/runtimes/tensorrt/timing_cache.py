"""TensorRT's timing cache as a file that several builders share, so that no measured timing is lost."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError
from halp_trt.runtimes.tensorrt.bindings import Library
from halp_trt.store import read_bytes, update_bytes

__all__ = ["accept_timings", "as_file", "read_timings", "save_timings"]


def read_timings(library: Library, path: Path | None) -> bytes | None:
    """The kernel timings in a file, empty if there is no file yet; None if this library keeps no timings.

    Raises:
        ArtefactError: the file cannot be read.
    """
    if path is None or not library.has_timing_cache:
        return None
    return read_bytes(path) if path.exists() else b""


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


def save_timings(config: Any, path: Path) -> bool:
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
        update_bytes(path, merged)
    except ArtefactError as error:
        warnings.warn(f"kernel timings are not saved: {error}", stacklevel=2)
        return False
    return True
