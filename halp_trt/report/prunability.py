"""The prunable part of a network, in two lines."""

from __future__ import annotations

from halp_trt.planning.prunability import Prunability, why_nothing
from halp_trt.report import units
from halp_trt.report.shown import shown

__all__ = ["describe_prunability", "prunability_facts"]

_MOST_REASONS = 3


def prunability_facts(found: Prunability) -> dict[str, str]:
    """The shares that can be pruned and the biggest reasons why the rest cannot, each as one text by its name."""
    found = shown(found)
    if not found.num_prunable:
        sentence = why_nothing(found)
        return {"prunable": sentence}
    share = units.percent(found.num_prunable / found.num_channels, 1)
    text = f"{units.count(found.num_prunable)} of {units.count(found.num_channels)} channels ({share})"
    if found.latency_fraction is None:
        text += "; their share of the latency is unknown without a latency table"
    else:
        text += f", in layers that take {units.percent(found.latency_fraction, 1)} of the dense latency"
    facts = {"prunable": text}
    if found.fences:
        more = len(found.fences) - _MOST_REASONS
        reasons = "; ".join(map(str, found.fences[:_MOST_REASONS]))
        facts["not prunable"] = reasons + (f"; and {more} more reasons" if more > 0 else "")
    return facts


def describe_prunability(found: Prunability) -> str:
    """The facts of :func:`prunability_facts`, a line each."""
    return "\n".join(f"{name}: {text}" for name, text in prunability_facts(found).items())
