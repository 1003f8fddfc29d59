"""Lagrangian relaxation: budgets become prices, and the rest is solved exactly along the tree of buckets.

For prices ``p >= 0`` the best of ``value - p·(costs - budgets)`` is an upper bound on the value of every plan within
the budgets (Everett 1963). The lowest such bound is the dual. A direction ``(a, p)`` weighs values by ``a`` and costs
by ``-p``; with ``a = 0`` it asks for the lowest costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.solvers.tables import Bucket, Factor, FactorGraph

__all__ = [
    "Direction",
    "Dual",
    "Point",
    "best_states",
    "downward",
    "dual",
    "lowest",
    "marginals",
    "point_at",
    "points_at",
    "solve_at",
    "tables",
    "upward",
]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Tree = Sequence[Bucket]

_AT_ONCE = 1 << 15
"""Most entries of a bucket maximised at once; a larger one goes state by state, which spares memory traffic."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Direction:
    """The objective of a pass: ``weight * value - prices · costs``."""

    weight: float
    prices: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """Some states of all variables, their value and costs."""

    states: Indices
    value: float
    costs: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dual:
    """The dual's solution.

    Attributes:
        prices: price of every resource.
        bound: no plan within the budgets is worth more.
        points: all plans met on the way.
    """

    prices: Floats
    bound: float
    points: tuple[Point, ...]


# ---- passes over the tree -------------------------------------------------------------------------------------------


def tables(model: FactorGraph, direction: Direction) -> list[Floats]:
    """Every factor's table weighed in a direction."""

    def weighed(factor: Factor) -> Floats:
        priced = sum(price * costs for price, costs in zip(direction.prices, factor.costs, strict=True))
        if direction.weight:
            result: Floats = direction.weight * factor.values - priced
            return result
        return np.where(np.isneginf(factor.values), -np.inf, -priced)

    return [weighed(factor) for factor in model.factors]


def _parts(tree: Tree, rank: int, weighed: list[Floats], messages: list[Floats]) -> list[Floats]:
    bucket = tree[rank]
    parts = [view(weighed[number]) for number, view in zip(bucket.factors, bucket.factor_views, strict=True)]
    return parts + [view(messages[child]) for child, view in zip(bucket.children, bucket.child_views, strict=True)]


def _added(parts: list[Floats], shape: tuple[int, ...]) -> Floats:
    """The sum of tables that broadcast to ``shape``, small ones first."""
    total: Floats = reduce(np.add, sorted(parts, key=lambda part: part.size), np.zeros((1,) * len(shape)))
    return total if total.shape == shape else np.broadcast_to(total, shape)


def _maximum(parts: list[Floats], shape: tuple[int, ...]) -> Floats:
    """The sum of tables, maximised over its first axis."""
    if np.prod(shape) <= _AT_ONCE:
        at_once: Floats = _added(parts, shape).max(axis=0)
        return at_once
    fixed = _added([part[0] for part in parts if part.shape[0] == 1], shape[1:])
    by_shape: dict[tuple[int, ...], Floats] = {}
    for part in (part for part in parts if part.shape[0] > 1):
        by_shape[part.shape] = by_shape[part.shape] + part if part.shape in by_shape else part
    slices = sorted(by_shape.values(), key=lambda part: part.size)
    best = np.full(shape[1:], -np.inf)
    buffer = np.empty(shape[1:])
    for state in range(shape[0]):
        buffer[...] = slices[0][state]
        for part in slices[1:]:
            buffer += part[state]
        np.maximum(best, buffer, out=best)
    return best + fixed


def upward(model: FactorGraph, tree: Tree, weighed: list[Floats]) -> tuple[float, list[Floats]]:
    """The best value over all variables, and every bucket's message to its parent."""
    sizes = model.sizes
    messages: list[Floats] = []
    best = float(weighed[0])
    for rank, bucket in enumerate(tree):
        parts = _parts(tree, rank, weighed, messages)
        messages.append(_maximum(parts, tuple(sizes[variable] for variable in bucket.scope)))
        if bucket.parent < 0:
            best += float(messages[-1])
    return best, messages


def downward(
    model: FactorGraph,
    tree: Tree,
    weighed: list[Floats],
    best: float,
    messages: list[Floats],
    visit: Callable[..., None],
) -> None:
    """Calls ``visit(rank, reach)`` for every bucket, parents first.

    ``reach`` is the best value over all variables for every combination of the bucket's own.
    """
    sizes = model.sizes
    outside: dict[int, Floats] = {}
    for rank in range(len(tree) - 1, -1, -1):
        bucket = tree[rank]
        parts = _parts(tree, rank, weighed, messages)
        rest = outside.pop(rank) if bucket.parent >= 0 else np.asarray(best - float(messages[rank]))
        reach = _added([*parts, rest[None]], tuple(sizes[variable] for variable in bucket.scope))
        for child in bucket.children:
            shared = tree[child].scope[1:]
            others = tuple(axis for axis, variable in enumerate(bucket.scope) if variable not in shared)
            seen = reach.max(axis=others) if others else reach
            left = [variable for variable in bucket.scope if variable in shared]
            seen = seen.transpose([left.index(variable) for variable in shared])
            blocked = np.isneginf(messages[child])
            outside[child] = np.where(blocked, -np.inf, seen - np.where(blocked, 0.0, messages[child]))
        visit(rank, reach)


def marginals(
    model: FactorGraph, tree: Tree, weighed: list[Floats], best: float, messages: list[Floats]
) -> list[Floats]:
    """The max-marginals: for every state of every variable the best value over all variables."""
    best_by_state: dict[int, Floats] = {}

    def visit(rank: int, reach: Floats) -> None:
        best_by_state[tree[rank].scope[0]] = reach.reshape(len(reach), -1).max(axis=1)

    downward(model, tree, weighed, best, messages, visit)
    return [best_by_state.get(variable, np.array([best])) for variable in range(len(model.states))]


def best_states(model: FactorGraph, tree: Tree, weighed: list[Floats], messages: list[Floats]) -> Point:
    """The states with the best value, among equals the first."""
    chosen = np.zeros(len(model.states), np.intp)
    for rank in range(len(tree) - 1, -1, -1):
        variable, *others = tree[rank].scope
        fixed = tuple(chosen[other] for other in others)
        total = np.zeros(len(model.states[variable]))
        for part in _parts(tree, rank, weighed, messages):
            place = (at if size > 1 else 0 for at, size in zip(fixed, part.shape[1:], strict=True))
            total = total + part[(slice(None), *place)]
        chosen[variable] = np.argmax(total)
    return point_at(model, chosen)


def point_at(model: FactorGraph, states: Indices) -> Point:
    """The value and costs of some states."""
    return points_at(model, states[None])[0]


def points_at(model: FactorGraph, states: Indices) -> tuple[Point, ...]:
    """The values and costs of many plans, ``states`` being ``[plan, variable]``."""
    values, costs = np.zeros(len(states)), np.zeros((len(model.budgets), len(states)))
    for factor in model.factors:
        place: tuple[Any, ...] = tuple(states[:, variable] for variable in factor.scope)
        values += factor.values[place]
        costs += factor.costs[(slice(None), *place)].reshape(len(costs), -1)
    rows = zip(states, values.tolist(), costs.T, strict=True)
    return tuple(Point(states=row, value=value, costs=cost) for row, value, cost in rows)


# ---- the dual -------------------------------------------------------------------------------------------------------


def lowest(model: FactorGraph, tree: Tree, resource: int) -> Point:
    """The plan that costs least in one resource, whatever it costs in others."""
    return solve_at(model, tree, Direction(weight=0.0, prices=np.eye(len(model.budgets))[resource]))[1]


def dual(
    model: FactorGraph,
    tree: Tree,
    known: Sequence[Point] = (),
    *,
    most: int = 60,
    is_late: Callable[[], bool] = lambda: False,
) -> Dual:
    """The (nearly) lowest bound and its prices, by cutting planes (Kelley 1960), in at most ``most`` passes.

    For one resource the next price has a closed form, and few passes reach the optimum.

    Args:
        model, tree: tables and buckets.
        known: plans to cut with from the start, such as the cheapest.
        most: passes over the tree.
        is_late: asked after every pass; once True, the bound reached is returned.
    """
    points = list(known)
    prices = np.zeros(len(model.budgets))
    if len(prices) == 1 and points:
        prices, _ = _next_prices(points, model.budgets)
    bound, at = np.inf, prices
    for _ in range(most):
        best, point = solve_at(model, tree, Direction(weight=1.0, prices=prices))
        points.append(point)
        if best + float(prices @ model.budgets) < bound:
            bound, at = best + float(prices @ model.budgets), prices
        if is_late() or (not prices.any() and (point.costs <= model.budgets).all()):
            break
        prices, floor = _next_prices(points, model.budgets)
        if floor >= bound - 1e-12 * max(1.0, abs(bound)):
            break
    return Dual(prices=at, bound=bound, points=tuple(points))


def solve_at(model: FactorGraph, tree: Tree, direction: Direction) -> tuple[float, Point]:
    """The best value in a direction, and a plan with that value."""
    weighed = tables(model, direction)
    best, messages = upward(model, tree, weighed)
    return best, best_states(model, tree, weighed, messages)


def _next_prices(points: Sequence[Point], budgets: Floats) -> tuple[Floats, float]:
    """The prices with the lowest bound over the plans met so far, and the bound."""
    values = np.asarray([point.value for point in points])
    excess = np.asarray([point.costs for point in points]) - budgets
    if len(budgets) > 1:
        return _planes(values, excess)
    over = excess[:, 0]
    above, below = np.flatnonzero(over > 0), np.flatnonzero(over <= 0)
    crossings = np.subtract.outer(values[above], values[below]) / np.subtract.outer(over[above], over[below])
    candidates = np.append(np.maximum(crossings.ravel(), 0.0), 0.0)
    heights = (values[:, None] - np.outer(over, candidates)).max(axis=0)
    lowest = int(np.argmin(heights))
    return candidates[lowest : lowest + 1], float(heights[lowest])


def _planes(values: Floats, excess: Floats) -> tuple[Floats, float]:
    from scipy.optimize import linprog

    scale = np.maximum(np.abs(excess).max(axis=0), 1e-300)
    height = max(float(np.ptp(values)), 1e-300)
    solution = linprog(
        np.append(np.zeros(len(scale)), 1.0),
        A_ub=np.column_stack((-excess / scale, -np.ones(len(values)))),
        b_ub=-(values - values.min()) / height,
        bounds=[(0, 1e4)] * len(scale) + [(None, None)],
        method="highs",
    )
    return np.maximum(solution.x[:-1], 0.0) * height / scale, float(solution.x[-1] * height + values.min())
