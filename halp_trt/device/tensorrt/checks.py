"""Number formats that a library, or a GPU, does not have: refused before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from halp_trt.device.faults import UsageError
from halp_trt.device.tensorrt.bindings import Library, find
from halp_trt.device.tensorrt.build import PRECISION_FLAGS

__all__ = ["check_gpu", "check_precision"]

_AMPERE = 8.0
"""Compute capability of the first GPUs with tf32 and bf16."""


def check_gpu(precision: str, name: str, compute_capability: str) -> None:
    """Refuses number formats that a GPU's cores lack: it would compute in fp32 and nobody would notice.

    Raises:
        UsageError: tf32 or bf16 on a GPU before Ampere.
    """
    if precision in ("tf32", "bf16") and float(compute_capability) < _AMPERE:
        raise UsageError(
            f"{name} (compute capability {compute_capability}) has no {precision}, which came with {_AMPERE}; "
            "choose fp16 or fp32"
        )


def check_precision(library: Library, precision: str, known: Sequence[str] = tuple(PRECISION_FLAGS)) -> None:
    """Refuses number formats that there are not, or that this version of the library lacks.

    Raises:
        UsageError: it is none of ``known``, or the version has no flag for it.
    """
    if precision not in known:
        raise UsageError(f"{library.title} builds {', '.join(known)}, not {precision!r}; choose one of them")
    missing = [flag for flag in PRECISION_FLAGS[precision] if find(library.module, f"BuilderFlag.{flag}") is None]
    if missing and not library.is_strongly_typed:
        raise UsageError(f"{library} has no {precision} (BuilderFlag.{missing[0]} is missing); choose fp16 or fp32")
