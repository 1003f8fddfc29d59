"""The frontier of value against cost: what every budget of a range can buy, in little more than the time of one plan.

A plan that is best at some price is the best of all plans that cost no more than it does. These plans are the corners
of the frontier's concave hull, and between two of them no plan lies above the straight line (Everett 1963). One pass
over the tree finds one, so the hull takes no search. Where two corners lie far apart, a search below their line finds
the plans between them, each with the line above it as its bound.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.planning.joint import MOST_ENTRIES, Effort
from halp_trt.planning.labels import search
from halp_trt.planning.model import Bucket, Model, bucket_tree, model_of, narrowed, undominated
from halp_trt.planning.problem import Problem, Solution
from halp_trt.planning.relaxation import Direction, Point, lowest, marginals, point_at, solve_at, tables, upward
from halp_trt.planning.solvers import SOLVERS

__all__ = ["FrontierPoint", "frontier"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_SPACING = 0.01
"""Corners closer than this share of the dense cost are not told apart."""
_CELLS = 4
"""Between corners one plan is shown for each such part of the spacing."""
_SMALL_RISE = 1e-2
"""Between corners that differ less in value nothing is looked for."""
_SLICE = 0.15
"""Plans are looked for so far below the line, as a part of what its ends differ by in value."""
_MOST_LABELS = 50
_STEP = 0.05
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierPoint:
    """What a budget buys."""

    budget: float
    solution: Solution


def frontier(
    problem: Problem, solver: str, low: float, high: float, *, dense: float, effort: Effort | None = None
) -> tuple[FrontierPoint, ...]:
    """Plans for budgets from ``low`` to ``high`` of the first resource, ascending in cost and value.

    Of ``joint`` and ``joint-blocks`` with one resource these are the plans for the two ends, every corner of the hull
    between, at most ``_SPACING`` apart, and where corners are further apart the best plans found between them; each
    with the budget that it spends. Otherwise plans are solved one by one.

    Args:
        problem: its own budget for the first resource does not matter.
        solver: of ``SOLVERS``.
        low, high: budgets; where ``low`` cannot be met the range begins at what can.
        dense: the cost of the dense network.
        effort: the gap for plans that are solved, and the seconds after which what is known is returned.

    Raises:
        InfeasibleBudgetError: not even ``high`` can be met.
        UsageError: the range is empty.
    """
    if not 0 < low <= high:
        raise UsageError(f"a sweep goes from a lower budget to a higher one, got {low:.6g} to {high:.6g}")
    hurry = _Hurry(effort or Effort())
    model = None
    if solver.startswith("joint") and len(problem.budgets) == 1:
        removable = {group for block in problem.blocks for group in block.groups} if solver == "joint-blocks" else ()
        model = undominated(model_of(problem, removable=removable))
    tree = bucket_tree(model, max_entries=MOST_ENTRIES) if model else None
    found = [_at(problem, solver, high, hurry)]
    if model is not None and tree is not None:
        least = float(lowest(model, tree, 0).costs[0]) * (1 + _ROUNDING)
        found += _if_met(problem, solver, low, hurry) or _if_met(problem, solver, least, hurry)
        ask = _Range(problem=problem, low=low, high=high, spacing=_SPACING * dense)
        corners = list(_corners(ask, model, tree, hurry))
        found += [point for _, point in corners if low <= point.budget <= high]
        found += _between_corners(ask, model, tree, [corner for corner, _ in corners], hurry)
    else:
        budgets = np.linspace(low, high, max(2, round((high - low) / dense / _STEP) + 1)).tolist()
        for budget in reversed(budgets[:-1]):
            found += [] if hurry.is_over() else _if_met(problem, solver, budget, hurry)
    return _rising(found)


class _Hurry:
    """How much time is left."""

    def __init__(self, effort: Effort) -> None:
        self.gap, self._seconds, self._started = effort.gap, effort.seconds, time.perf_counter()

    def left(self) -> float | None:
        """Seconds, at least a moment; None where there is no limit."""
        return None if self._seconds is None else max(self._seconds - (time.perf_counter() - self._started), 1e-9)

    def is_over(self) -> bool:
        """Whether none is left."""
        left = self.left()
        return left is not None and left <= 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """A problem, and where its frontier is looked at how finely."""

    problem: Problem
    low: float
    high: float
    spacing: float


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


def _at(problem: Problem, solver: str, budget: float, hurry: _Hurry) -> FrontierPoint:
    solution = SOLVERS[solver](_with_budget(problem, budget), gap=hurry.gap, seconds=hurry.left())
    return FrontierPoint(budget=budget, solution=solution)


def _if_met(problem: Problem, solver: str, budget: float, hurry: _Hurry) -> list[FrontierPoint]:
    try:
        return [_at(problem, solver, budget, hurry)]
    except InfeasibleBudgetError:
        return []


# ---- the hull and what lies below it --------------------------------------------------------------------------------


def _corners(
    ask: _Range, model: Model, tree: tuple[Bucket, ...], hurry: _Hurry
) -> Iterator[tuple[Point, FrontierPoint]]:
    """The hull's corners within the range: a line between two known plans shows by its slope where to look next."""
    pending = [(lowest(model, tree, 0), solve_at(model, tree, Direction(weight=1.0, prices=np.zeros(1)))[1])]
    while pending and not hurry.is_over():
        left, right = pending.pop()
        across, up = float(right.costs[0] - left.costs[0]), right.value - left.value
        if across <= ask.spacing or up <= 0 or right.costs[0] < ask.low or left.costs[0] > ask.high:
            continue
        started = time.perf_counter()
        price = up / across
        best, point = solve_at(model, tree, Direction(weight=1.0, prices=np.array([price])))
        if best <= left.value - price * float(left.costs[0]) + 1e-9 * abs(right.value):
            yield left, _shown(ask, model, left, time.perf_counter() - started)
            yield right, _shown(ask, model, right, 0.0)
            continue
        pending += [(left, point), (point, right)]
        yield point, _shown(ask, model, point, time.perf_counter() - started)


def _between_corners(
    ask: _Range, model: Model, tree: tuple[Bucket, ...], corners: list[Point], hurry: _Hurry
) -> Iterator[FrontierPoint]:
    """The best plans found below the lines between corners that lie far apart."""
    corners = sorted(corners, key=lambda corner: float(corner.costs[0]))
    for left, right in itertools.pairwise(corners):
        across, up = float(right.costs[0] - left.costs[0]), right.value - left.value
        is_outside = right.costs[0] < ask.low or left.costs[0] > ask.high
        if is_outside or across <= ask.spacing or up <= _SMALL_RISE * abs(right.value) or hurry.is_over():
            continue
        started = time.perf_counter()
        price, start = up / across, float(left.costs[0])
        points = _below(ask, model, tree, right, price, up)
        seconds = time.perf_counter() - started
        for point in points:
            if not ask.low <= point.costs[0] <= ask.high:
                continue
            line = left.value + price * (float(point.costs[0]) - start)
            yield _shown(ask, model, point, seconds / len(points), bound=line)


def _below(
    ask: _Range, model: Model, tree: tuple[Bucket, ...], right: Point, price: float, up: float
) -> tuple[Point, ...]:
    """Plans near the line with slope ``price`` that rises by ``up`` to ``right``; the best of each cell."""
    prices = np.array([price])
    weighed = tables(model, Direction(weight=1.0, prices=prices))
    best, messages = upward(model, tree, weighed)
    target = best - _SLICE * up - 1e-9 * abs(right.value)
    keep = [np.flatnonzero(v >= target) for v in marginals(model, tree, weighed, best, messages)]
    small = replace(narrowed(model, keep), budgets=np.asarray(right.costs))
    branches = bucket_tree(small, max_entries=MOST_ENTRIES) or tree

    def pick(costs: Floats, values: Floats) -> Indices:
        cells = np.floor(costs[:, 0] / (ask.spacing / _CELLS))
        order = np.lexsort((-values, cells))
        firsts: Indices = order[np.diff(cells[order], prepend=-np.inf) > 0]
        return firsts

    limit = target + price * float(right.costs[0])
    found = search(small, branches, [prices], limit, max_labels=_MOST_LABELS, pick=pick)
    assert found is not None
    return tuple(
        point_at(model, np.asarray([kept[state] for kept, state in zip(keep, point.states, strict=True)], np.intp))
        for point in found.points
    )


def _shown(ask: _Range, model: Model, point: Point, seconds: float, bound: float = -np.inf) -> FrontierPoint:
    """A plan with the budget that it spends; without a bound it is a corner, and the best of its cost."""
    names = zip(model.states, point.states, strict=True)
    choices = tuple(int(states[state]) for states, state in names)[: len(ask.problem.groups)]
    costs, value = ask.problem.costs(choices), ask.problem.value(choices, live=True)
    solution = Solution(
        choices=choices,
        value=value,
        bound=max(value, bound),
        costs=costs,
        seconds=seconds,
        status="optimal" if bound <= value else "limit",
    )
    return FrontierPoint(budget=next(iter(costs.values())), solution=solution)
