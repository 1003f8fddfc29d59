"""A second device where there is no GPU: PyTorch's ``lazy`` one, which computes on the processor.

Its numbers are real, and an operation of its tensors with one of the processor's raises.
"""

from __future__ import annotations

from functools import cache

from torch._lazy import ts_backend

__all__ = ["lazy_device"]


@cache
def lazy_device() -> str:
    """Starts the backend, which is done once in a process; the device's name."""
    ts_backend.init()
    return "lazy"
