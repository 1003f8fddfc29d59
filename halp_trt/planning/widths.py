"""Widths of groups: the choices, the channels that stay at a choice, and the lowest widths in reach.

Counts are in channels of the group; a layer that holds each channel several times is wider by this multiplicity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from halp_trt.errors import GraphMismatchError, InfeasibleBudgetError, UsageError
from halp_trt.planning.pricing import Lookup, counts_latency_us
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency

__all__ = [
    "WidthLimits",
    "check_request",
    "infeasible",
    "keep_most_salient",
    "lowest_counts",
    "reachable_counts",
    "width_choices",
]

_ROUNDING = 1e-9
"""Rounding error allowed to a width before it is rounded up, in channels."""

# ---- choices --------------------------------------------------------------------------------------------------------


def width_choices(count: int, step: int, min_channels: int | None = None) -> tuple[int, ...]:
    """The counts that a group of ``count`` channels may shrink to, ascending: multiples of ``step``, and ``count``.

    None is below one step, so a group never vanishes, and none but ``count`` is below ``min_channels``.
    """
    smallest = math.ceil(max(step, min_channels or 0) / step) * step
    return (*range(smallest, count, step), count)


def keep_most_salient(plan: PruningPlan, saliency: Saliency, lookup: Lookup, counts: Mapping[str, int]) -> PruningPlan:
    """The plan that keeps the ``counts[group]`` most salient of a plan's channels, priced at its true widths.

    Channels rank by saliency, ties by the lower index. The budget and bound are those of ``plan``.
    """
    kept = dict(plan.kept)
    for group in plan.graph.prunable_groups:
        scores = saliency.scores[group.name]
        ranked = sorted(plan.kept[group.name], key=lambda channel: (-scores[channel], channel))
        kept[group.name] = tuple(sorted(ranked[: counts[group.name]]))
    total = math.fsum(saliency.scores[g.name][channel] for g in plan.graph.prunable_groups for channel in kept[g.name])
    latency_us = counts_latency_us(plan.graph, lookup, {name: len(channels) for name, channels in kept.items()})
    return replace(plan, kept=kept, latency_us=latency_us, saliency=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthLimits:
    """Limits on how much of a group may be pruned.

    Attributes:
        group_fraction: largest part removed in the end, as a fraction of a group's dense width.
        step_fraction: largest part removed in one step, as a fraction of a group's present width.
    """

    group_fraction: float = 1.0
    step_fraction: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.group_fraction <= 1 and 0 < self.step_fraction <= 1):
            raise UsageError(
                f"of a group 0 to 100 % may go, in one step more than 0 %, got {self.group_fraction:.0%} and "
                f"{self.step_fraction:.0%}"
            )

    @property
    def is_limiting(self) -> bool:
        """True if any channel must stay for these limits."""
        return min(self.group_fraction, self.step_fraction) < 1

    def least_counts(self, graph: ChannelGraph, counts: Mapping[str, int]) -> dict[str, int]:
        """The lowest widths in the next step for groups of ``counts`` channels; groups without a limit are left out."""
        kept = {
            group.name: max(
                (1 - self.group_fraction) * group.num_channels, (1 - self.step_fraction) * counts[group.name]
            )
            for group in graph.prunable_groups
        }
        return {name: math.ceil(width - _ROUNDING) for name, width in kept.items() if counts[name] and width > 0}


def reachable_counts(
    plan: PruningPlan, *, steps: Mapping[str, int], num_steps: int, limits: WidthLimits
) -> dict[str, int]:
    """The width of every group after ``num_steps`` steps, each as narrow as the limits allow."""
    counts = plan.counts()
    for _ in range(num_steps):
        least = limits.least_counts(plan.graph, counts)
        for group in plan.graph.prunable_groups:
            name = group.name
            counts[name] = width_choices(counts[name], steps[name], least.get(name))[0]
    return counts


def lowest_counts(
    plan: PruningPlan, *, steps: Mapping[str, int], least: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The narrowest width of every prunable group, at least ``least[group]``; frozen groups keep theirs."""
    prunable, floors = {group.name for group in plan.graph.prunable_groups}, least or {}
    return {
        name: width_choices(count, steps[name], floors.get(name))[0] if name in prunable else count
        for name, count in plan.counts().items()
    }


# ---- refusals -------------------------------------------------------------------------------------------------------


def check_request(plan: PruningPlan, saliency: Saliency, *, budget_us: float, steps: Mapping[str, int]) -> None:
    """Checks a planning request.

    Raises:
        GraphMismatchError: scores do not cover the prunable groups channel by channel.
        UsageError: a chunk is missing or below 1, or the budget is not positive.
    """
    if not math.isfinite(budget_us) or budget_us <= 0:
        raise UsageError(f"a budget must be positive and finite, got {budget_us} us")
    for group in plan.graph.prunable_groups:
        num_scores = len(saliency.scores.get(group.name, ()))
        if num_scores != group.num_channels:
            raise GraphMismatchError(
                f"group {group.name!r} has {group.num_channels} channels but {num_scores} saliency scores; "
                "score the network that is planned"
            )
        if steps.get(group.name, 0) < 1:
            raise UsageError(f"group {group.name!r} needs a step of at least 1 channel, got {steps.get(group.name)}")


def infeasible(budget_us: float, lowest_us: float) -> InfeasibleBudgetError:
    """The error for a budget below the lowest latency that can be reached."""
    return InfeasibleBudgetError(
        f"a budget of {budget_us:.6g} us is below {lowest_us:.6g} us, the lowest latency by the table that these "
        "channel groups can reach; raise the budget, or free frozen layers"
    )
