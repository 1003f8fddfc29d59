"""A network's planning problem, from its graph, saliency and latencies at both widths; and the plan from a solution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.latency import graph_specs
from halp_trt.planning.amounts import ResourceBudgets
from halp_trt.planning.halp import halp_step
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.resources import RESOURCES
from halp_trt.planning.surfaces import PriceOf, RowCache
from halp_trt.planning.widths import check_request, keep_most_salient, width_choices
from halp_trt.solvers.blocks import Wire, find_blocks
from halp_trt.solvers.problem import (
    LATENCY,
    Axis,
    Block,
    Group,
    Limits,
    Problem,
    Solution,
    Term,
    choices_allowed,
)
from halp_trt.solvers.registry import SOLVERS, Solving
from halp_trt.specs import ChannelGraph, ChannelGroup, Layer, LayerSpec, PruningPlan, Saliency

__all__ = ["PlanConstraints", "joint_blocks_step", "joint_step", "network_problem", "plan_from", "removable_blocks"]


Floats = npt.NDArray[np.float64]

_MAX_ROUNDS = 16
"""Most tries of one pruning step: solve, look the chosen widths up, solve again."""
_FULL_BUDGET_ROUNDS = 6
"""Tries with the full budget; after that the budget is lowered by the interpolation error seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConstraints:
    """The constraints on a plan.

    Attributes:
        budgets: limit on ``latency_us``, and on any of ``RESOURCES``.
        steps: chunk of every prunable group.
        limits: limits on the channels removed from a group.
        batch_size: the target's batch size, for the resources.
        removes_blocks: True if groups inside residual blocks have removal among their choices, for ``joint_blocks``.
    """

    budgets: Mapping[str, float]
    steps: Mapping[str, int]
    limits: Limits = field(default_factory=lambda: Limits(least={}))
    batch_size: int = 1
    removes_blocks: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "budgets", MappingProxyType(dict(self.budgets)))
        object.__setattr__(self, "steps", MappingProxyType(dict(self.steps)))


def network_problem(current: PruningPlan, saliency: Saliency, surface: PriceOf, ask: PlanConstraints) -> Problem:
    """The planning problem: the widths and values of every group, and the costs of every layer at both widths.

    Groups stand in the order of the graph. A width keeps the most salient remaining channels. Scores of coupled
    channels do not tell a block's share outside of it, so a removed block loses the value of its own groups alone.

    Args:
        current: the current plan.
        saliency: scores of all channels.
        surface: latencies of a layer at pairs of widths.
        ask: budgets, chunks and limits.

    Raises:
        GraphMismatchError: the scores are not this network's.
        UsageError: a budget, a chunk or a limit makes no sense.
    """
    check_request(current, saliency, budget_us=ask.budgets[LATENCY], steps=ask.steps)
    graph = current.graph
    numbers = {group.name: number for number, group in enumerate(graph.groups)}
    blocks = _blocks(graph, numbers) if ask.removes_blocks else ()
    removable = {number for block in blocks for number in block.groups}
    groups = [
        _group(current, saliency, ask, group, is_removable=number in removable)
        for number, group in enumerate(graph.groups)
    ]
    pricer = _Pricer(surface=surface, resources=tuple(ask.budgets), batch_size=ask.batch_size)
    return Problem(
        groups=tuple(groups),
        terms=tuple(pricer.term(layer, numbers, groups) for layer in graph.layers),
        budgets=dict(ask.budgets),
        blocks=blocks,
        allowed=choices_allowed(groups, ask.limits),
    )


def _group(
    current: PruningPlan, saliency: Saliency, ask: PlanConstraints, group: ChannelGroup, *, is_removable: bool
) -> Group:
    """A group's widths and the saliency kept at each; a frozen group has its present width alone."""
    kept = current.kept[group.name]
    layers = tuple(
        layer.name for layer in current.graph.layers if any(name == group.name for name, _ in layer.out_groups)
    )
    if not group.prunable:
        return Group(name=group.name, widths=(len(kept),), values=(0.0,), dense=group.num_channels, layers=layers)
    scores = sorted((saliency.scores[group.name][channel] for channel in kept), reverse=True)
    widths = width_choices(len(kept), ask.steps[group.name])
    widths = (0, *widths) if is_removable and kept else widths
    values = tuple(math.fsum(scores[:width]) for width in widths)
    return Group(name=group.name, widths=widths, values=values, dense=group.num_channels, layers=layers)


def plan_from(
    current: PruningPlan, saliency: Saliency, lookup: Lookup, problem: Problem, solution: Solution
) -> PruningPlan:
    """The plan that a solution stands for: the most salient channels of every group, none of removed blocks."""
    chosen = {group.name: group.widths[choice] for group, choice in zip(problem.groups, solution.choices, strict=True)}
    plan = keep_most_salient(replace(current, budget_us=problem.budgets[LATENCY]), saliency, lookup, chosen)
    return replace(plan, bound=max(solution.bound, plan.saliency))


def joint_step(
    current: PruningPlan,
    saliency: Saliency,
    lookup: Lookup,
    *,
    budget_us: float,
    steps: Mapping[str, int],
    least: Mapping[str, int] | None = None,
    resources: ResourceBudgets | None = None,
    solver: Solving = SOLVERS["joint"],
) -> PruningPlan:
    """The plan of one pruning step, optimised over input and output widths together; a ``PlanStep``.

    Layers with few pairs of widths are measured at all of them, others by adaptive surfaces. The chosen widths are
    looked up and the problem is solved again with their true latencies, until every layer of the plan was measured.
    A solver prefers layers whose interpolated latency is too low. If its plans are therefore too slow again and again,
    the budget is multiplied by ``interpolated / true`` latency of the last plan. Limits on ``resources`` need no
    measurement and are kept by every plan.
    """
    check_request(current, saliency, budget_us=budget_us, steps=steps)
    known, others = RowCache(lookup), resources or ResourceBudgets(limits={})
    whole = keep_most_salient(replace(current, budget_us=budget_us), saliency, known.lookup, current.counts())
    if whole.latency_us <= budget_us and others.fits(current.graph, current.counts()):
        return replace(whole, bound=whole.saliency)
    ask = PlanConstraints(
        budgets={LATENCY: budget_us, **others.limits},
        steps=steps,
        limits=Limits(least=least or {}),
        batch_size=others.batch_size,
        removes_blocks=solver.removes_blocks,
    )
    best: PruningPlan | None = None
    bound, allowed_us = math.inf, budget_us
    for number in range(_MAX_ROUNDS):
        now = replace(ask, budgets={**ask.budgets, LATENCY: allowed_us})
        problem = network_problem(current, saliency, known.surface, now)
        try:
            solution = solver(problem)
        except InfeasibleBudgetError:
            if allowed_us == budget_us:
                raise
            break
        bound = solution.bound if allowed_us == budget_us else bound
        chosen = {group.name: group.widths[c] for group, c in zip(problem.groups, solution.choices, strict=True)}
        is_measured = known.knows(graph_specs(current.graph, chosen))
        plan = plan_from(current, saliency, known.lookup, problem, solution)
        if plan.latency_us <= budget_us and (best is None or plan.saliency > best.saliency):
            best = plan
        if is_measured:
            break
        if number + 1 >= _FULL_BUDGET_ROUNDS and best is None:
            allowed_us = budget_us * min(1.0, solution.costs[LATENCY] / plan.latency_us)
    if best is None:  # every round's plan was slower than interpolated
        best = halp_step(current, saliency, known.lookup, budget_us=budget_us, steps=steps, least=least)
        others.check(best)
        return best
    return replace(best, bound=max(bound, best.saliency))


joint_blocks_step = partial(joint_step, solver=SOLVERS["joint-blocks"])
"""The function ``joint_step`` with a solver that may also remove residual blocks."""


def removable_blocks(graph: ChannelGraph) -> dict[str, tuple[str, ...]]:
    """The groups inside every removable residual block, by the name of the block's last layer."""
    numbers = {group.name: number for number, group in enumerate(graph.groups)}
    blocks = _blocks(graph, numbers)
    return {block.name: tuple(graph.groups[number].name for number in block.groups) for block in blocks}


# ---- layers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pricer:
    """Prices of layers at pairs of widths; equal layers at equal widths are priced once.

    Attributes:
        surface: latencies of a layer at pairs of widths.
        resources: names of the budgeted resources, in order.
        batch_size: the target's batch size.
        known: prices so far.
    """

    surface: PriceOf
    resources: tuple[str, ...]
    batch_size: int
    known: dict[tuple[LayerSpec | None, tuple[tuple[int, int], ...]], Floats] = field(default_factory=dict)

    def term(self, layer: Layer, numbers: Mapping[str, int], groups: Sequence[Group]) -> Term:
        """The costs of a layer at every pair of widths that it may write and read."""
        writes, reads = (_axis(pairs, numbers, groups) for pairs in (layer.out_groups, layer.in_groups))
        pairs: list[tuple[int, int]]
        if layer.is_one_sided:
            pairs = list(zip(reads.levels, writes.levels, strict=True)) if writes.groups else []
            shape, reads = (len(writes.levels), 1), _axis((), numbers, groups)
        else:
            in_levels = reads.levels if reads.groups else (layer.spec.in_channels,)
            out_levels = writes.levels if writes.groups else (layer.spec.out_channels,)
            pairs = [(level, other) for other in out_levels for level in in_levels]
            shape = (len(writes.levels), len(reads.levels))
        pairs = pairs or [(layer.spec.in_channels, layer.spec.out_channels)]
        return Term(name=layer.name, costs=self.prices(layer.spec, tuple(pairs)).reshape(-1, *shape),
                    writes=writes, reads=reads)  # fmt: skip

    def prices(self, spec: LayerSpec, pairs: tuple[tuple[int, int], ...]) -> Floats:
        """Costs ``[resource, pair]`` of a layer; pairs with a width of 0 cost nothing."""
        alive = [position for position, pair in enumerate(pairs) if all(pair)]  # what is removed costs nothing
        key = (spec.with_widths(*pairs[alive[-1]]) if alive else None, pairs)
        if key not in self.known:
            priced = np.zeros((len(self.resources), len(pairs)))
            for row, name in zip(priced, self.resources, strict=True):
                row[alive] = self.price(name, spec, [pairs[position] for position in alive]) if alive else ()
            self.known[key] = priced
        return self.known[key]

    def price(self, resource: str, spec: LayerSpec, pairs: Sequence[tuple[int, int]]) -> Floats:
        """Costs ``[pair]`` of a layer in one resource."""
        if resource == LATENCY:
            return self.surface(spec, pairs)
        batch = spec.batch_at(self.batch_size)
        return np.asarray([RESOURCES[resource](spec.with_widths(*pair), batch) for pair in pairs])


def _axis(pairs: Sequence[tuple[str, int]], numbers: Mapping[str, int], groups: Sequence[Group]) -> Axis:
    """One side of a layer: the groups on it, and the width that each adds at every choice."""
    times: dict[int, int] = {}
    for name, multiplicity in pairs:
        times[numbers[name]] = times.get(numbers[name], 0) + multiplicity
    return Axis(
        groups=tuple(times),
        parts=tuple(tuple(width * count for width in groups[number].widths) for number, count in times.items()),
    )


def _blocks(graph: ChannelGraph, numbers: Mapping[str, int]) -> tuple[Block, ...]:
    """The residual blocks whose inner groups are all prunable."""
    frozen = {numbers[group.name] for group in graph.groups if not group.prunable}
    wires = [
        Wire(
            name=layer.name,
            writes=tuple(numbers[name] for name, _ in layer.out_groups),
            reads=tuple(numbers[name] for name, _ in layer.in_groups) or None,
        )
        for layer in graph.layers
    ]
    return tuple(
        Block(name=block.layer, groups=block.groups) for block in find_blocks(wires) if not frozen & {*block.groups}
    )
