"""TensorRT's timing cache as a file that several builders share: nothing one of them measured is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from halp_trt.runtimes.tensorrt_bindings import Library
from halp_trt.store import update_bytes

__all__ = ["load_timings", "save_timings"]


def load_timings(library: Library, config: Any, path: Path | None) -> bool:
    """Gives a builder the kernel timings in a file, or empty ones; False where this library keeps none.

    A file of another TensorRT or GPU is not used, and is replaced when the build is done.
    """
    if path is None or not library.has_timing_cache:
        return False
    known = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        return cache is not None and bool(config.set_timing_cache(cache, False))
    return True


def save_timings(config: Any, path: Path) -> None:
    """Adds a builder's kernel timings to the file: what others wrote since it was read is kept.

    Raises:
        ArtefactError: the file cannot be written.
    """
    own = config.get_timing_cache()

    def merged(theirs: bytes) -> bytes:
        other = config.create_timing_cache(theirs) if theirs else None
        if other is not None:
            own.combine(other, False)
        return bytes(own.serialize())

    update_bytes(path, merged)
