"""The baseline: the same fraction of every group is kept, whatever its cost and saliency."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from halp_trt.planning.pricing import Lookup
from halp_trt.planning.widths import check_request, infeasible, keep_most_salient, width_choices
from halp_trt.specs import PruningPlan, Saliency

__all__ = ["uniform_step"]


def uniform_step(
    current: PruningPlan,
    saliency: Saliency,
    lookup: Lookup,
    *,
    budget_us: float,
    steps: Mapping[str, int],
    least: Mapping[str, int] | None = None,
) -> PruningPlan:
    """The plan that keeps the same fraction of every group's dense width, the largest in budget found by bisection.

    Widths are rounded to the nearest choice of ``halp_step`` (multiples of ``steps``), and the most salient channels
    stay, so the two methods differ in nothing but how the cut is spread. The function is a ``PlanStep``; its bound is
    the saliency of the current plan.
    """
    check_request(current, saliency, budget_us=budget_us, steps=steps)
    groups = current.graph.prunable_groups
    floors = least or {}
    choices = {g.name: width_choices(len(current.kept[g.name]), steps[g.name], floors.get(g.name)) for g in groups}
    turns = {  # from which fraction on the nearest choice is the i-th
        group.name: [0.0, *((low + high) / 2 / group.num_channels for low, high in pairwise(choices[group.name]))]
        for group in groups
    }
    fractions = sorted({turn for of_group in turns.values() for turn in of_group} | {0.0})

    def plan_at(fraction: float) -> PruningPlan:
        counts = {name: choices[name][bisect_right(turns[name], fraction) - 1] for name in choices}
        return keep_most_salient(start, saliency, lookup, counts)

    start = replace(current, budget_us=budget_us)
    widest, narrowest = plan_at(fractions[-1]), plan_at(fractions[0])
    if widest.latency_us <= budget_us:
        return replace(widest, bound=widest.saliency)
    if narrowest.latency_us > budget_us:  # the narrowest layers may be slow ones
        plans = [plan_at(fraction) for fraction in reversed(fractions)]
        best = next((plan for plan in plans if plan.latency_us <= budget_us), None)
        if best is None:
            raise infeasible(budget_us, min(plan.latency_us for plan in plans))
        return replace(best, bound=widest.saliency)
    low, high, best = 0, len(fractions) - 1, narrowest  # in budget, over budget
    while high - low > 1:
        middle = (low + high) // 2
        plan = plan_at(fractions[middle])
        low, high, best = (middle, high, plan) if plan.latency_us <= budget_us else (low, middle, best)
    return replace(best, bound=widest.saliency)
