"""One pruning step of HALP (Shen et al., NeurIPS 2022, arXiv:2210.06659, sec. 3).

Every prunable group is cut to its k most salient remaining channels, k a multiple of its chunk. The value of a choice
is the saliency it keeps. Its cost is the latency of the layers that write the group, at k channels and with everything
else, input widths included (sec. 3.1), as before the step; savings in the layers that read the group are not credited.
A layer that reads the group it writes (depthwise convolution, pooling, addition) has k channels on both sides.

Differences from HALP:

- Choices are cumulative, so higher-ranked channels come first by construction.
- The knapsack is solved exactly.
- A layer that writes several groups is paid for once; each choice adds its difference.
- The plan's true latency has to meet the budget.
- If no choice saves enough at the current input widths (on a coarse staircase a narrower output may save nothing while
  every reader of it would), the saving in the layers that read the group is added to it.
- At the end, if the table has surfaces, each group takes the largest width at which the network is no slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from halp_trt.latency import Surface
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.surfaces import Surveyed
from halp_trt.planning.widths import check_request, infeasible, keep_most_salient, lowest_counts, width_choices
from halp_trt.solvers.knapsack import Knapsack, solve
from halp_trt.specs import ChannelGraph, Layer, LayerSpec, PruningPlan, Saliency

__all__ = ["halp_step", "step_problem"]

_GRAINS_PER_US = 2.0**20
"""Grid points of costs in a microsecond; costs are rounded up to this binary grid, so sums of doubles are exact."""

Choices = Mapping[str, tuple[int, ...]]
"""Counts that every prunable group may take, ascending."""


def halp_step(
    current: PruningPlan,
    saliency: Saliency,
    lookup: Lookup,
    *,
    budget_us: float,
    steps: Mapping[str, int],
    least: Mapping[str, int] | None = None,
) -> PruningPlan:
    """The most salient plan within a budget that keeps only channels of the current one; a ``PlanStep``.

    A plan that meets the budget already is returned as it is, with its latency and saliency. If the budget is out of
    reach at the present input widths, a choice is also credited with the savings in the layers that read the group.
    Such credits overlap, so the true latency tends to end above the budget, and the step goes on from there at the new
    widths. It also goes on if a narrower layer proves slower. The budget of each knapsack is at least
    ``sqrt(present * lowest)``, the geometric mean of the present latency and the lowest one that credits promise.

    Returns:
        A plan with its true latency (never above the budget), its saliency, and the bound of the last knapsack solved.

    Raises:
        InfeasibleBudgetError, GraphMismatchError, UsageError: as every ``PlanStep``.
    """
    check_request(current, saliency, budget_us=budget_us, steps=steps)
    plan = keep_most_salient(replace(current, budget_us=budget_us), saliency, lookup, current.counts())
    plan = replace(plan, bound=plan.saliency)
    while plan.latency_us > budget_us:
        choices = _choices(plan.graph, plan.counts(), steps, least)
        problem = step_problem(plan, saliency, lookup, choices)
        if plan.latency_us - _most_saved_us(problem) > budget_us:
            problem = step_problem(plan, saliency, lookup, choices, credit_readers=True)
        saved_us = _most_saved_us(problem)
        if saved_us <= 0:
            return _narrowest(plan, saliency, lookup, lowest_counts(plan, steps=steps, least=least))
        halfway_us = math.sqrt(max(0.0, plan.latency_us - saved_us) * plan.latency_us)
        solution = solve(replace(problem, budget=max(budget_us, halfway_us) - plan.latency_us))
        chosen = {group: choices[group][index] for group, index in zip(choices, solution.choices, strict=True)}
        plan = replace(keep_most_salient(plan, saliency, lookup, chosen), bound=solution.bound)
    return _on_right_edges(plan, current, saliency, lookup, _choices(plan.graph, current.counts(), steps, least))


def _on_right_edges(
    plan: PruningPlan, current: PruningPlan, saliency: Saliency, lookup: Lookup, choices: Choices
) -> PruningPlan:
    """The plan with every group widened as long as the network gets no slower, the other widths fixed.

    Choices were priced at the input widths before the step. A wider group that is no slower by the surfaces is looked
    up, and taken if its measured latency confirms it.
    """
    if not isinstance(lookup, Surveyed) or plan.counts() == current.counts():
        return plan
    whole, tried = replace(current, budget_us=plan.budget_us, bound=plan.bound), set[tuple[str, int]]()
    while True:
        wider = [pair for pair in _no_slower(plan, lookup.surfaces, choices) if pair not in tried]
        if not wider:
            return plan
        tried.add(wider[0])
        widened = keep_most_salient(whole, saliency, lookup, {**plan.counts(), **dict(wider[:1])})
        if widened.latency_us <= plan.latency_us:
            plan, tried = widened, set()


def _no_slower(plan: PruningPlan, surfaces: Sequence[Surface], choices: Choices) -> Iterator[tuple[str, int]]:
    """Yields ``(group, count)`` for all wider counts at which the network is no slower by the surfaces."""
    counts = plan.counts()
    for group, options in choices.items():
        wider = (counts[group], *(count for count in options if count > counts[group]))
        latencies_us = np.zeros(len(wider))
        for layer in plan.graph.layers:
            if group in _groups_priced(layer, with_readers=True) and layer.lives_at(counts):
                specs = [layer.spec_at({**counts, group: count}) for count in wider]
                surface = next((surface for surface in surfaces if all(map(surface.covers, specs))), None)
                widths = [(spec.in_channels, spec.out_channels) for spec in specs]
                latencies_us += math.inf if surface is None else surface.latencies_us(widths)
        if math.isfinite(latencies_us[0]):
            yield from ((group, count) for count, us in reversed([*zip(wider, latencies_us, strict=True)][1:])
                        if us <= latencies_us[0])  # fmt: skip


def step_problem(
    plan: PruningPlan, saliency: Saliency, lookup: Lookup, choices: Choices, *, credit_readers: bool = False
) -> Knapsack:
    """The knapsack of a step from ``plan``; costs and budget are differences to the plan's latency, the budget 0.

    Args:
        plan: the current plan.
        saliency: scores of all channels.
        lookup: measurements of the specs asked for.
        choices: counts that every prunable group may take, ascending, the present one last.
        credit_readers: True if a choice is priced by the layers that read its group and those that write it; False for
            the writers alone.
    """
    priced = _priced(plan.graph, plan.counts(), choices, with_readers=credit_readers)
    rows = lookup([spec for options in priced.values() for option in options for spec in option])
    costs, values = [], []
    for group, options in priced.items():
        sums = [math.fsum(rows[spec].latency_us for spec in option) for option in options]
        costs.append(tuple(math.ceil((cost - sums[-1]) * _GRAINS_PER_US) / _GRAINS_PER_US for cost in sums))
        scores = sorted((saliency.scores[group][channel] for channel in plan.kept[group]), reverse=True)
        values.append(tuple(math.fsum(scores[:count]) for count in choices[group]))
    return Knapsack(costs=tuple(costs), values=tuple(values), budget=0.0)


def _choices(
    graph: ChannelGraph, counts: Mapping[str, int], steps: Mapping[str, int], least: Mapping[str, int] | None
) -> dict[str, tuple[int, ...]]:
    groups = [group.name for group in graph.prunable_groups]
    return {group: width_choices(counts[group], steps[group], (least or {}).get(group)) for group in groups}


def _most_saved_us(problem: Knapsack) -> float:
    """The largest saving of all choices together, each group at its cheapest."""
    return -math.fsum(min(costs) for costs in problem.costs)


def _priced(
    graph: ChannelGraph, counts: Mapping[str, int], choices: Choices, *, with_readers: bool = False
) -> dict[str, list[tuple[LayerSpec, ...]]]:
    """For every choice of every group, the layers it is priced by, at its count and all else at ``counts``."""
    priced = {}
    for group, options in choices.items():
        layers = [layer for layer in graph.layers if group in _groups_priced(layer, with_readers)]
        widths = [{**counts, group: count} for count in options]
        priced[group] = [tuple(layer.spec_at(at) for layer in layers if layer.lives_at(at)) for at in widths]
    return priced


def _groups_priced(layer: Layer, with_readers: bool) -> set[str]:
    """The groups whose choices are priced by a layer."""
    return {name for name, _ in (*layer.out_groups, *(layer.in_groups if with_readers else ()))}


def _narrowest(plan: PruningPlan, saliency: Saliency, lookup: Lookup, counts: Mapping[str, int]) -> PruningPlan:
    """The plan with all groups at their narrowest, the last resort if no single choice makes it faster."""
    narrowest = keep_most_salient(plan, saliency, lookup, counts)
    if narrowest.latency_us > plan.budget_us:
        raise infeasible(plan.budget_us, min(narrowest.latency_us, plan.latency_us))
    return narrowest
