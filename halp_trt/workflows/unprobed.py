"""Saying at once which layers are priced by an estimate."""

from __future__ import annotations

import warnings

from halp_trt.graphs.unprobed import unprobed
from halp_trt.specs import ChannelGraph, Target
from halp_trt.texts import counted

__all__ = ["warn_unprobed"]

_MOST_NAMES = 5
"""Most layers named in the warning."""


def warn_unprobed(graph: ChannelGraph, target: Target) -> None:
    """Warns before anything is measured if layers of a network cannot be measured alone; a run says it once."""
    reasons = unprobed(graph, target.batch_size)
    if not reasons:
        return
    named = ", ".join(f"{name} ({reason})" for name, reason in list(reasons.items())[:_MOST_NAMES])
    others = f" and {len(reasons) - _MOST_NAMES} more" if len(reasons) > _MOST_NAMES else ""
    warnings.warn(
        f"{len(reasons)} of {counted(len(graph.layers), 'layer')} cannot be measured alone: {named}{others}; their "
        "latencies are estimated from the bytes they move and marked in the table, and whole engines are timed to "
        "correct the sum",
        stacklevel=1,
    )
