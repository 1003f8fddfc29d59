"""Arrays as bytes behind a message: names, types and shapes in the message, the numbers as they lie in memory."""

from __future__ import annotations

import math
from typing import Any, Mapping

import numpy as np

from halp_trt.device.faults import UsageError

__all__ = ["packed", "unpacked"]


def packed(arrays: Mapping[str, Any]) -> tuple[list[Any], bytes]:
    """The head and the bytes of some arrays."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    head = [[name, array.dtype.name, list(array.shape)] for name, array in whole.items()]
    return head, b"".join(array.tobytes() for array in whole.values())


def unpacked(head: list[Any], data: bytes) -> dict[str, Any]:
    """The arrays of a head and bytes; they share the bytes' memory.

    Raises:
        UsageError: there are more or fewer bytes than the head says, or a type that numpy lacks.
    """
    arrays, start = {}, 0
    try:
        for name, dtype, shape in head:
            if dtype == "bfloat16":
                import ml_dtypes  # noqa: F401  # teaches numpy the type
            kind, size = np.dtype(dtype), math.prod(shape)
            arrays[str(name)] = np.frombuffer(data, kind, size, start).reshape(shape)
            start += size * kind.itemsize
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"the link brings arrays that are none ({error}); run the command again") from error
    if start != len(data):
        raise UsageError(f"the link brings {len(data)} bytes for arrays of {start}; run the command again")
    return arrays
