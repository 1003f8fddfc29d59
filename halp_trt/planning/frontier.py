"""The frontier of value against cost: what every budget of a range can buy, in little more than the time of one plan.

A plan that is best at some price is the best of all plans that cost no more than it does. These plans are the corners
of the frontier's concave hull, and between two of them no plan lies above the straight line (Everett 1963). One pass
over the tree finds one, so the hull takes no search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.planning.joint import MOST_ENTRIES
from halp_trt.planning.model import Bucket, Model, bucket_tree, model_of, undominated
from halp_trt.planning.problem import Problem, Solution
from halp_trt.planning.relaxation import Direction, Point, lowest, solve_at
from halp_trt.planning.solvers import SOLVERS

__all__ = ["FrontierPoint", "frontier"]

_SPACING = 0.01
"""Corners closer than this share of the dense cost are not told apart."""
_STEP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """What a budget buys."""

    budget: float
    solution: Solution


def frontier(problem: Problem, solver: str, low: float, high: float, *, dense: float) -> tuple[FrontierPoint, ...]:
    """Plans for budgets from ``low`` to ``high`` of the first resource, ascending in cost and value.

    Of ``joint`` and ``joint-blocks`` with one resource these are the plans for the two ends and every corner of the
    hull between, at most ``_SPACING`` apart, each with the budget that it spends. Otherwise they are solved one by one.

    Args:
        problem: its own budget for the first resource does not matter.
        solver: of ``SOLVERS``.
        low, high: budgets; where ``low`` cannot be met the range begins at what can.
        dense: the cost of the dense network.

    Raises:
        InfeasibleBudgetError: not even ``high`` can be met.
        UsageError: the range is empty.
    """
    if not 0 < low <= high:
        raise UsageError(f"a sweep goes from a lower budget to a higher one, got {low:.6g} to {high:.6g}")
    model = None
    if solver.startswith("joint") and len(problem.budgets) == 1:
        removable = {group for block in problem.blocks for group in block.groups} if solver == "joint-blocks" else ()
        model = undominated(model_of(problem, removable=removable))
    tree = bucket_tree(model, max_entries=MOST_ENTRIES) if model else None
    if model is not None and tree is not None:
        found = [_at(problem, solver, high)]
        found += _if_met(problem, solver, low)
        found += _corners(problem, model, tree, low, high, _SPACING * dense)
    else:
        budgets = np.linspace(low, high, max(2, round((high - low) / dense / _STEP) + 1)).tolist()
        found = [_at(problem, solver, high)]
        found += [point for budget in budgets[:-1] for point in _if_met(problem, solver, budget)]
    return _rising(found)


def _rising(found: list[FrontierPoint]) -> tuple[FrontierPoint, ...]:
    """By budget, without those that are worth no more than one of a lower budget."""
    points: list[FrontierPoint] = []
    for point in sorted(found, key=lambda point: (point.budget, -point.solution.value)):
        if not points or point.solution.value > points[-1].solution.value:
            points.append(point)
    return tuple(points)


def _with_budget(problem: Problem, budget: float) -> Problem:
    first = next(iter(problem.budgets))
    return replace(problem, budgets={**problem.budgets, first: budget})


def _at(problem: Problem, solver: str, budget: float) -> FrontierPoint:
    return FrontierPoint(budget=budget, solution=SOLVERS[solver](_with_budget(problem, budget)))


def _if_met(problem: Problem, solver: str, budget: float) -> list[FrontierPoint]:
    try:
        return [_at(problem, solver, budget)]
    except InfeasibleBudgetError:
        return []


def _corners(
    problem: Problem, model: Model, tree: tuple[Bucket, ...], low: float, high: float, spacing: float
) -> Iterator[FrontierPoint]:
    """The hull's corners within the range: a line between two known plans shows by its slope where to look next."""
    pending = [(lowest(model, tree, 0), solve_at(model, tree, Direction(weight=1.0, prices=np.zeros(1)))[1])]
    while pending:
        left, right = pending.pop()
        across, up = float(right.costs[0] - left.costs[0]), right.value - left.value
        if across <= spacing or up <= 0 or right.costs[0] < low or left.costs[0] > high:
            continue
        started = time.perf_counter()
        price = up / across
        best, point = solve_at(model, tree, Direction(weight=1.0, prices=np.array([price])))
        if best <= left.value - price * float(left.costs[0]) + 1e-9 * abs(right.value):
            continue
        pending += [(left, point), (point, right)]
        if low <= point.costs[0] <= high:
            yield _corner(problem, model, point, time.perf_counter() - started)


def _corner(problem: Problem, model: Model, point: Point, seconds: float) -> FrontierPoint:
    names = zip(model.states, point.states, strict=True)
    choices = tuple(int(states[state]) for states, state in names)[: len(problem.groups)]
    costs, value = problem.costs(choices), problem.value(choices, live=True)
    solution = Solution(choices=choices, value=value, bound=value, costs=costs, seconds=seconds, status="optimal")
    return FrontierPoint(budget=next(iter(costs.values())), solution=solution)
