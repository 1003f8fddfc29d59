"""The Pareto front of value against cost over a range of budgets, in the time of several plans.

A plan optimal at some price (largest ``value - price * cost``) is optimal among all plans of no higher cost. These
plans are the corners of the front's concave hull, and no plan between two of them lies above their line (Everett 1963).
One pass over the tree finds one, so the hull takes no search. Between corners far apart, a search below their line
finds plans, each with the line above it as its bound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.solvers.hull import spans
from halp_trt.solvers.joint import Effort, prepared, solved
from halp_trt.solvers.problem import Problem, Solution
from halp_trt.solvers.registry import SOLVERS
from halp_trt.solvers.relaxation import Direction, Point, lowest, marginals, tables, upward
from halp_trt.solvers.search import search
from halp_trt.solvers.tables import MOST_ENTRIES, Bucket, FactorGraph, branches, narrowed

__all__ = ["FrontierPoint", "frontier"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_SPACING = 0.01
"""Corners closer than this share of the dense cost are not told apart."""
_CELLS = 8
"""Between corners, one plan is shown for each eighth of the spacing."""
_SMALL_RISE = 3e-3
"""No search runs between corners whose values differ by a smaller fraction."""
_SLICE = 0.1
"""Depth of the search below a line, as a fraction of its rise in value."""
_MOST_LABELS = 200
"""Most labels of a search between two corners."""
_FEW_PLANS = math.log(1e9)
"""Logarithm of the number of plans up to which the whole front of a network is sought."""
_MOST_FRONT_LABELS = 4_000
"""Most labels of a search for the whole front of a small network; if it needs more, the hull takes over."""
_STEP = 0.05
"""Distance between the budgets of solvers that plan one by one, as a share of the dense cost."""
_ROUNDING = 1e-12
"""Relative rounding error of sums."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """The best plan found for one budget."""

    budget: float
    solution: Solution


def frontier(
    problem: Problem, solver: str, low: float, high: float, *, dense: float, effort: Effort | None = None
) -> tuple[FrontierPoint, ...]:
    """Plans for budgets from ``low`` to ``high`` of the first resource, ascending in cost and value.

    Solvers that follow the hull, with one resource, give a small network its whole Pareto front. A larger one gets the
    plans of both ends, the corners of the hull between, told apart down to ``_SPACING``, and the best plans found
    between corners farther apart; each inner plan's budget is its own cost. Other solvers plan budget by budget.

    Args:
        problem: groups, layers and budgets; its own budget for the first resource does not matter.
        solver: a key of ``SOLVERS``.
        low, high: budgets; if ``low`` cannot be met, the range begins at the lowest reachable cost.
        dense: the cost of the dense network.
        effort: the gap of solved plans, and the seconds after which the plans known so far are returned.

    Raises:
        InfeasibleBudgetError: not even ``high`` can be met.
        UsageError: the range is empty.
    """
    if not 0 < low <= high:
        raise UsageError(f"a sweep goes from a lower budget to a higher one, got {low:.6g} to {high:.6g}")
    deadline = _Deadline(effort or Effort())
    row = SOLVERS[solver]
    if row.follows_hull and len(problem.budgets) == 1:
        model, tree = prepared(problem, blocks=row.removes_blocks)
        if tree is not None:
            ask = _Range(problem=problem, low=low, high=high, spacing=_SPACING * dense)
            return _rising(_along_the_hull(ask, model, tree, deadline))
    points = [_at(problem, solver, high, deadline)]
    budgets = np.linspace(low, high, max(2, round((high - low) / dense / _STEP) + 1)).tolist()
    for budget in reversed(budgets[:-1]):
        points += [] if deadline.is_over() else _if_met(problem, solver, budget, deadline)
    return _rising(points)


class _Deadline:
    """The time limit of a sweep, counted from its start."""

    def __init__(self, effort: Effort) -> None:
        self.gap, self._seconds, self._started = effort.gap, effort.seconds, time.perf_counter()

    def left(self) -> float | None:
        """Seconds left, at least 1e-9; None without a limit."""
        return None if self._seconds is None else max(self._seconds - (time.perf_counter() - self._started), 1e-9)

    def is_over(self) -> bool:
        """True if no time is left."""
        left = self.left()
        return left is not None and left <= 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """A problem, the range of budgets to sweep, and the spacing of its plans."""

    problem: Problem
    low: float
    high: float
    spacing: float


def _rising(candidates: list[FrontierPoint]) -> tuple[FrontierPoint, ...]:
    """The undominated points by ascending cost and value."""
    points: list[FrontierPoint] = []
    for point in sorted(candidates, key=lambda point: (_cost(point), -point.solution.value)):
        if not points or point.solution.value > points[-1].solution.value:
            points.append(point)
    return tuple(points)


def _cost(point: FrontierPoint) -> float:
    return next(iter(point.solution.costs.values()))


def _with_budget(problem: Problem, budget: float) -> Problem:
    first = next(iter(problem.budgets))
    return replace(problem, budgets={**problem.budgets, first: budget})


def _at(problem: Problem, solver: str, budget: float, deadline: _Deadline) -> FrontierPoint:
    solution = SOLVERS[solver](_with_budget(problem, budget), gap=deadline.gap, seconds=deadline.left())
    return FrontierPoint(budget=budget, solution=solution)


def _if_met(problem: Problem, solver: str, budget: float, deadline: _Deadline) -> list[FrontierPoint]:
    try:
        return [_at(problem, solver, budget, deadline)]
    except InfeasibleBudgetError:
        return []


# ---- the hull and what lies below it --------------------------------------------------------------------------------


def _along_the_hull(
    ask: _Range, model: FactorGraph, tree: tuple[Bucket, ...], deadline: _Deadline
) -> list[FrontierPoint]:
    """The plans of both ends, the corners between, and plans found below the lines between far corners."""
    if all_of_them := _every_plan(ask, model, tree):
        return all_of_them
    started = time.perf_counter()
    pairs = list(spans(model, tree, ask.low, ask.high, spacing=ask.spacing, is_over=deadline.is_over))
    corners = list({id(corner): corner for pair in pairs for corner in pair}.values())
    seconds = (time.perf_counter() - started) / max(len(corners), 1)
    shown = _shown(ask, model, [corner for corner in corners if ask.low <= corner.costs[0] <= ask.high], seconds)

    def end(budget: float) -> FrontierPoint:
        asked = _with_budget(ask.problem, budget)
        effort = Effort(gap=deadline.gap, seconds=deadline.left())
        there = replace(model, budgets=np.array([budget]))
        return FrontierPoint(budget=budget, solution=solved(asked, there, tree, effort=effort, known=corners))

    shown.append(end(ask.high))
    try:
        shown.append(end(ask.low))
    except InfeasibleBudgetError:
        shown.append(end(float(lowest(model, tree, 0).costs[0]) * (1 + _ROUNDING)))
    for left, right in pairs:
        across, up = float(right.costs[0] - left.costs[0]), right.value - left.value
        if across <= ask.spacing or up <= _SMALL_RISE * abs(right.value) or deadline.is_over():
            continue
        started = time.perf_counter()
        price = up / across
        points = [p for p in _below(ask, model, tree, right, price, up) if ask.low <= p.costs[0] <= ask.high]
        seconds = (time.perf_counter() - started) / max(len(points), 1)
        shown += _shown(ask, model, points, seconds, line=(left, price))
    return shown


def _every_plan(ask: _Range, model: FactorGraph, tree: tuple[Bucket, ...]) -> list[FrontierPoint]:
    """The whole Pareto front of a small network; nothing for a larger one, or if no plan meets the budgets."""
    if sum(map(math.log, model.sizes)) > _FEW_PLANS:
        return []
    started = time.perf_counter()
    worth = sum(float(np.abs(f.values[np.isfinite(f.values)]).max(initial=0.0)) for f in model.factors)
    there = replace(model, budgets=np.array([ask.high]))
    front = search(
        there,
        tree,
        [np.zeros(1)],
        -worth - 1.0,
        max_labels=_MOST_FRONT_LABELS,
        pick=lambda costs, _: np.argsort(costs[:, 0], kind="stable"),
    )
    if front is None or front.lost > -np.inf:
        return []
    seconds = (time.perf_counter() - started) / max(len(front.points), 1)
    first = sum(float(point.costs[0]) <= ask.low for point in front.points)
    shown = _shown(ask, model, front.points[max(first - 1, 0) :], seconds)
    return [point for point in shown if _cost(point) <= ask.high]


def _below(
    ask: _Range, model: FactorGraph, tree: tuple[Bucket, ...], right: Point, price: float, up: float
) -> tuple[Point, ...]:
    """Plans near the line with slope ``price`` that rises by ``up`` to ``right``; the best of each cell."""
    prices = np.array([price])
    weighed = tables(model, Direction(weight=1.0, prices=prices))
    best, messages = upward(model, tree, weighed)
    target = best - _SLICE * up - 1e-9 * abs(right.value)
    keep = [np.flatnonzero(v >= target) for v in marginals(model, tree, weighed, best, messages)]
    small = replace(narrowed(model, keep), budgets=np.asarray(right.costs))
    rest = branches(small, tree, max_entries=MOST_ENTRIES)

    def pick(costs: Floats, values: Floats) -> Indices:
        cells = np.floor(costs[:, 0] / (ask.spacing / _CELLS))
        order = np.lexsort((-values, cells))
        firsts: Indices = order[np.diff(cells[order], prepend=-np.inf) > 0]
        return firsts

    limit = target + price * float(right.costs[0])
    front = search(small, rest, [prices], limit, max_labels=_MOST_LABELS, pick=pick)
    assert front is not None
    return tuple(
        replace(
            point, states=np.asarray([kept[state] for kept, state in zip(keep, point.states, strict=True)], np.intp)
        )
        for point in front.points
    )


def _shown(
    ask: _Range, model: FactorGraph, points: Sequence[Point], seconds: float, line: tuple[Point, float] | None = None
) -> list[FrontierPoint]:
    """Plans as frontier points, each with its own cost as its budget.

    Args:
        ask, model: the problem and its tables.
        points: the plans.
        seconds: wall time of each.
        line: start and slope (price) of the line bounding them from above; None for corners, which are optimal at their
            cost.
    """
    num_groups = len(ask.problem.groups)
    states = np.asarray([point.states for point in points], np.intp).reshape(-1, len(model.states))
    plans = np.column_stack([names[states[:, group]] for group, names in enumerate(model.states[:num_groups])])
    shown = []
    for point, choices, costs in zip(points, plans.tolist(), ask.problem.costs_of(plans), strict=True):
        value = ask.problem.value(choices, live=True)
        bound = value if line is None else line[0].value + line[1] * float(point.costs[0] - line[0].costs[0])
        solution = Solution(
            choices=tuple(choices),
            value=value,
            bound=max(value, bound),
            costs=costs,
            seconds=seconds,
            status="optimal" if bound <= value else "limit",
        )
        shown.append(FrontierPoint(budget=next(iter(costs.values())), solution=solution))
    return shown
