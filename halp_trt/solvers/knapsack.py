"""Multiple-choice knapsack, solved exactly: one choice of every group, the most value within a budget.

Numbers only; it knows no channels. Costs and values are real, of any sign, monotone or not.

Method: partial solutions ("labels") are extended group by group and only Pareto-optimal ones are kept (Nemhauser and
Ullmann 1969). Bounds keep the Pareto fronts short. The linear relaxation of the remaining groups is a concave,
piecewise linear function of the capacity left: interpolating it gives the Dantzig bound of every label at once. Its
breakpoints are whole solutions: stepping down to the nearest one gives a feasible completion of every label at once
(Dyer 1984, Zemel 1984, Pisinger 1995). A label is dropped if its bound lies below the incumbent, the best completion so
far.

Differs from HALP (arXiv:2210.06659, alg. 1 and 2), whose table over quantised capacity holds one item per channel group
with its marginal cost: cumulative costs need neither the precedence test nor the quantum, and negative or zero
marginal costs need no special case.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from halp_trt.errors import InfeasibleBudgetError, UsageError

__all__ = ["Knapsack", "Picked", "solve"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_MAX_LABELS = 20_000
"""Most partial solutions kept at a time."""
_BLOCK_SIZE = 1 << 20
"""Most extensions computed at once; bounds the memory of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knapsack:
    """A multiple-choice knapsack: one choice has to be made in every group.

    Attributes:
        costs: ``costs[group][choice]``.
        values: ``values[group][choice]``, of the same shape.
        budget: the largest sum of the chosen costs, in the unit of the costs.
    """

    costs: tuple[tuple[float, ...], ...]
    values: tuple[tuple[float, ...], ...]
    budget: float

    def __post_init__(self) -> None:
        if [len(costs) for costs in self.costs] != [len(values) for values in self.values]:
            raise UsageError("a knapsack needs one value for every cost")
        if not all(self.costs):
            raise UsageError("a knapsack group has no choice; give every group at least one")
        numbers = (number for group in (*self.costs, *self.values, (self.budget,)) for number in group)
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError("a knapsack needs finite costs, values and budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """The choices of a knapsack and the bound on any other.

    Attributes:
        choices: the chosen index in every group.
        value: their total value.
        cost: their total cost; ``math.fsum`` of it never exceeds the budget.
        bound: no solution has a higher value; equal to ``value`` when the optimum was proved.
        seconds: wall time of the solver.
    """

    choices: tuple[int, ...]
    value: float
    cost: float
    bound: float
    seconds: float = field(default=0.0, compare=False)


def solve(problem: Knapsack, *, max_labels: int = _MAX_LABELS) -> Picked:
    """The most valuable choices within the budget; among equals the cheapest.

    Sums are taken in double precision. If they are exact (costs on a binary grid, as planning makes them), so is the
    optimum; otherwise a solution within rounding of the budget can be missed.

    Args:
        problem: costs, values and budget.
        max_labels: partial solutions kept at a time. Beyond it the least promising are dropped, and ``bound`` covers
            them.

    Raises:
        InfeasibleBudgetError: even the cheapest choices exceed the budget.
    """
    started = time.perf_counter()
    lowest = math.fsum(min(costs) for costs in problem.costs)
    if lowest > problem.budget:
        raise InfeasibleBudgetError(
            f"the cheapest choices cost {lowest:.6g}, above the budget of {problem.budget:.6g}; raise the budget"
        )
    groups = [_undominated(costs, values) for costs, values in zip(problem.costs, problem.values, strict=True)]
    capacity = math.fsum((problem.budget, *(-min(costs) for costs in problem.costs)))
    order = sorted(range(len(groups)), key=lambda index: -len(groups[index].costs))
    front, trail, lost = _search([groups[index] for index in order], capacity, _rounding(problem), max_labels)

    choices = tuple(int(group.choices[0]) for group in groups)  # the cheapest, should rounding leave nothing better
    for label in range(len(front.costs) - 1, -1, -1):  # most valuable first; over the budget by rounding alone
        picked = dict(zip(order, _walk_back(trail, label), strict=True))
        candidate = tuple(int(groups[index].choices[picked[index]]) for index in range(len(groups)))
        if _total(problem.costs, candidate) <= problem.budget:
            choices = candidate
            break
    value = _total(problem.values, choices)
    return Picked(
        choices=choices,
        value=value,
        cost=_total(problem.costs, choices),
        bound=max(value, lost),
        seconds=time.perf_counter() - started,
    )


def _total(numbers: tuple[tuple[float, ...], ...], choices: tuple[int, ...]) -> float:
    return math.fsum(group[choice] for group, choice in zip(numbers, choices, strict=True))


@dataclass(frozen=True, slots=True)
class _Group:
    """Undominated choices by ascending cost (of the cheapest: 0) and value, and their indices in the problem."""

    costs: Floats
    values: Floats
    choices: Indices


@dataclass(frozen=True, slots=True)
class _Front:
    """Pareto-optimal labels by ascending cost and value, with the label and choice each was extended from."""

    costs: Floats
    values: Floats
    parents: Indices
    choices: Indices


@dataclass(frozen=True, slots=True)
class _Tail:
    """Linear relaxation of the groups not merged yet: most value ``values[i]`` for ``costs[i]``, concave between."""

    costs: Floats
    values: Floats

    def upper(self, room: Floats) -> Floats:
        """No choices of these groups within ``room`` are worth more."""
        return np.interp(room, self.costs, self.values)

    def lower(self, room: Floats) -> Floats:
        """Some choices of these groups within ``room`` are worth this; minus infinity where none fits."""
        reached = np.searchsorted(self.costs, room, side="right") - 1
        return np.where(reached >= 0, self.values[reached], -np.inf)


@dataclass(frozen=True, slots=True)
class _Rounding:
    """Bounds on the rounding error of a sum of costs and of a sum of values."""

    cost: float
    value: float


def _rounding(problem: Knapsack) -> _Rounding:
    unit = 4 * (len(problem.costs) + 2) * np.finfo(float).eps
    costs = math.fsum(max(map(abs, costs)) for costs in problem.costs) + abs(problem.budget)
    values = math.fsum(max(map(abs, values)) for values in problem.values)
    return _Rounding(cost=unit * costs, value=unit * values)


def _pareto(costs: Floats, values: Floats) -> Indices:
    """Indices of the undominated points by ascending cost; of equal points the first."""
    order = np.lexsort((-values, costs))
    sorted_values = values[order]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(sorted_values)[:-1]))
    return order[sorted_values > best_before]


def _undominated(costs: tuple[float, ...], values: tuple[float, ...]) -> _Group:
    above_cheapest, all_values = np.asarray(costs, float) - min(costs), np.asarray(values, float)
    kept = _pareto(above_cheapest, all_values)
    return _Group(above_cheapest[kept], all_values[kept], kept)


def _hull(group: _Group) -> Indices:
    """Corners of the upper concave hull of the choices."""
    corners: list[int] = []
    for point in range(len(group.costs)):
        while len(corners) > 1 and _slope(group, corners[-1], point) >= _slope(group, corners[-2], corners[-1]):
            corners.pop()
        corners.append(point)
    return np.asarray(corners, np.intp)


def _slope(group: _Group, first: int, second: int) -> float:
    with np.errstate(over="ignore"):  # infinitely steep is steep enough
        return float((group.values[second] - group.values[first]) / (group.costs[second] - group.costs[first]))


def _tails(groups: list[_Group]) -> list[_Tail]:
    """The relaxation of ``groups[i + 1:]`` for every i: hull edges, steepest first, laid end to end."""
    hulls = [_hull(group) for group in groups]
    costs = np.concatenate([np.diff(group.costs[hull]) for group, hull in zip(groups, hulls, strict=True)])
    values = np.concatenate([np.diff(group.values[hull]) for group, hull in zip(groups, hulls, strict=True)])
    owners = np.repeat(np.arange(len(groups)), [len(hull) - 1 for hull in hulls])
    with np.errstate(over="ignore"):
        steepest = np.argsort(-values / costs, kind="stable")
    costs, values, owners = costs[steepest], values[steepest], owners[steepest]
    floors = np.cumsum([float(group.values[0]) for group in groups][::-1])[::-1]
    tails = []
    for index in range(len(groups)):
        later = owners > index
        floor = float(floors[index + 1]) if index + 1 < len(groups) else 0.0
        tails.append(
            _Tail(
                np.concatenate(([0.0], np.cumsum(costs[later]))),
                np.concatenate(([floor], floor + np.cumsum(values[later]))),
            )
        )
    return tails


def _search(
    groups: list[_Group], capacity: float, rounding: _Rounding, max_labels: int
) -> tuple[_Front, list[_Front], float]:
    """The last front, all fronts, and a bound on the value of every label dropped for want of space."""
    root = np.zeros(1)
    front = _Front(root, root, np.zeros(1, np.intp), np.zeros(1, np.intp))
    trail: list[_Front] = []
    incumbent = lost = -math.inf
    for group, tail in zip(groups, _tails(groups) if groups else [], strict=True):
        front, incumbent = _extend(front, group, tail, capacity, rounding, incumbent)
        if len(front.costs) > max_labels:
            front, dropped = _thin(front, tail, capacity, rounding, max_labels)
            lost = max(lost, dropped)
        trail.append(front)
    return front, trail, lost


def _extend(
    front: _Front, group: _Group, tail: _Tail, capacity: float, rounding: _Rounding, incumbent: float
) -> tuple[_Front, float]:
    """Every label with every choice of one more group, less those dominated or bounded away; the best completion."""
    blocks = []
    num_choices = len(group.costs)
    for start in range(0, len(front.costs), block := max(1, _BLOCK_SIZE // num_choices)):
        rows = slice(start, start + block)
        costs = np.add.outer(front.costs[rows], group.costs).ravel()
        values = np.add.outer(front.values[rows], group.values).ravel()
        room = capacity - costs
        fits = np.flatnonzero(room >= -rounding.cost)
        costs, values, room = costs[fits], values[fits], room[fits]
        completed = values + tail.lower(room - rounding.cost)
        incumbent = max(incumbent, float(completed.max(initial=-np.inf)))
        promising = values + tail.upper(room + rounding.cost) >= incumbent - rounding.value
        costs, values, origin = costs[promising], values[promising], fits[promising] + start * num_choices
        undominated = _pareto(costs, values)
        blocks.append((costs[undominated], values[undominated], origin[undominated]))
    costs, values, origin = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    kept = _pareto(costs, values)
    return _Front(costs[kept], values[kept], origin[kept] // num_choices, origin[kept] % num_choices), incumbent


def _thin(front: _Front, tail: _Tail, capacity: float, rounding: _Rounding, max_labels: int) -> tuple[_Front, float]:
    """The labels with the highest bounds, and the one with the best completion; the highest bound of those dropped."""
    room = capacity - front.costs
    bounds = front.values + tail.upper(room + rounding.cost) + rounding.value
    order = np.argsort(-bounds, kind="stable")
    best = np.argmax(front.values + tail.lower(room - rounding.cost))
    kept = np.unique(np.append(order[:max_labels], best))
    thinned = _Front(front.costs[kept], front.values[kept], front.parents[kept], front.choices[kept])
    return thinned, float(bounds[order[max_labels]])


def _walk_back(trail: list[_Front], label: int) -> list[int]:
    """The choice of every merged group that led to a label of the last front."""
    choices = []
    for front in reversed(trail):
        choices.append(int(front.choices[label]))
        label = int(front.parents[label])
    return choices[::-1]
