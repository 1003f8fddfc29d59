"""The papers' augmented knapsack (arXiv:2210.06659, sec. 3.2, alg. 1), as numbers only.

An item is one more chunk of a group, with its marginal value and cost. Items of a group stand in the order of their
saliency, and ``V[i][w] = max(V[i-1][w], v_i + V[i-1][w - c_i])``. Item i may be taken if it is the first of its group,
or if item i-1 was taken in cell ``(i-1, w - c_i)``. A cell holds a single plan, so the recurrence is greedy and can
miss the optimum; ``exact`` finds it.

Differs from HALP's released form in four points. The first choice of every group is paid for before anything is chosen,
so keeping it cannot break the budget. Costs are rounded up, never down, to a quantum as fine as the table's size
allows. Cells are computed a row at a time, with one bit kept for each. The best cell within the capacity is taken, not
the last one: a greedy recurrence may do worse with more room.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_CELLS", "augmented_knapsack"]

MOST_CELLS = 1 << 18
"""Most cells in a row of the table."""
Floats = npt.NDArray[np.float64]

_FINEST = 20
"""Most binary digits after the point of a common divisor of costs."""


def augmented_knapsack(
    costs: Sequence[Sequence[float]],
    values: Sequence[Sequence[float]],
    capacity: float,
    *,
    most_cells: int = MOST_CELLS,
    is_late: Callable[[], bool] = lambda: False,
    beside: Sequence[Floats] = (),
    budgets: Floats | None = None,
) -> Iterator[tuple[int, ...]]:
    """Yields every group's choices: the recurrence's best plan first, then its other cells' by falling value.

    Yields nothing if the time is up before the table is full.

    Args:
        costs, values: ``[group][choice]``, cumulative: choice k is a group's first choice (always paid for) and k
            chunks more.
        capacity: the largest sum of chosen costs.
        most_cells: most cells in a row of the table.
        is_late: asked at every row.
        beside: ``[group][resource, choice]``: costs in other resources, if there are any.
        budgets: limits of those resources; plans exceeding one are passed over.
    """
    room = math.fsum([capacity, *(-group[0] for group in costs)])
    quantum = _quantum(costs, most_cells)
    added = [[math.ceil((cost - group[0]) / quantum) for cost in group] for group in costs]
    weights = [after - before for group in added for before, after in itertools.pairwise(group)]
    gains = [after - before for group in values for before, after in itertools.pairwise(group)]
    firsts = {sum(len(group) - 1 for group in costs[:index]) for index in range(len(costs))}
    below = sum(-weight for weight in weights if weight < 0)
    most = sum(max(group) for group in added)
    last = min(math.floor(room / quantum), most)
    sums = np.sum([group[:, 0] for group in beside], axis=0) if len(beside) else np.zeros(0)
    steps = np.concatenate([np.diff(group) for group in beside], axis=1) if len(beside) else np.zeros((0, len(weights)))
    value, rows, spent = _table(weights, gains, firsts, below, max(last, -below) + below, is_late, sums, steps)
    if len(rows) < len(weights):
        return
    reached = value[: max(last + below + 1, 0)]
    if budgets is not None:
        reached = np.where((spent[:, : len(reached)] <= budgets[:, None]).all(axis=0), reached, -np.inf)
    _, cells = np.unique(-reached, return_index=True)
    for cell in cells[np.isfinite(reached[cells])]:
        is_taken = iter(_backtrack(weights, rows, int(cell)))
        yield tuple(sum(next(is_taken) for _ in group[1:]) for group in costs)


def _quantum(costs: Sequence[Sequence[float]], most_cells: int) -> float:
    """The largest common divisor of all costs if it makes few enough cells, else ``span / most_cells``.

    It does not depend on the budget, so the cells of every budget hold the same plans.
    """
    differences = [cost - group[0] for group in costs for cost in group]
    span = math.fsum(max(group) - min(group) for group in costs)
    for shift in range(_FINEST):
        scaled = [math.ldexp(difference, shift) for difference in differences]
        if all(number.is_integer() for number in scaled):
            quantum = math.ldexp(math.gcd(*map(int, scaled)), -shift)
            if span <= quantum * most_cells:
                return quantum or 1.0
            break
    return span / most_cells or 1.0


def _table(
    weights: Sequence[int],
    gains: Sequence[float],
    firsts: set[int],
    below: int,
    top: int,
    is_late: Callable[[], bool],
    sums: Floats,
    steps: Floats,
) -> tuple[Floats, list[npt.NDArray[np.uint8]], Floats]:
    """The value of every cell, a bit row per item (taken or not, eight cells to a byte), and the costs beside.

    Cells stand for capacities ``-below .. top``. Costs in other resources begin at ``sums``; an item adds
    ``steps[resource, item]``.

    Capacities below zero and beyond the budget serve items of negative cost: these build on cells with more room.
    """
    size = below + top + 1
    value = np.where(np.arange(size) >= below, 0.0, -np.inf)
    is_taken = np.zeros(size, bool)
    rows, spent = [], np.repeat(sums[:, None], size, axis=1)
    for item, (weight, gain) in enumerate(zip(weights, gains, strict=True)):
        if is_late():
            break
        candidate = _moved(value, weight, -np.inf) + gain
        if item not in firsts:
            candidate[~_moved(is_taken, weight, False)] = -np.inf
        is_taken = (candidate > value) | ((candidate == value) & (weight <= 0) & (candidate > -np.inf))
        np.copyto(value, candidate, where=is_taken)
        if len(sums):
            np.copyto(spent, _moved(spent, weight, 0.0) + steps[:, item, None], where=is_taken)
        rows.append(np.packbits(is_taken))
    return value, rows, spent


def _moved(cells: npt.NDArray[Any], weight: int, outside: float | bool) -> npt.NDArray[Any]:
    """For every cell of the last axis, the one with ``weight`` less room: below the first cell, ``outside``.

    Beyond the last cell, where a negative weight leads, it is the last one.
    """
    size = cells.shape[-1]
    moved = np.empty_like(cells)
    if weight > 0:
        kept = max(size - weight, 0)
        moved[..., size - kept :] = cells[..., :kept]
        moved[..., : size - kept] = outside
    else:
        kept = size - min(-weight, size - 1)
        moved[..., :kept] = cells[..., size - kept :]
        moved[..., kept:] = cells[..., -1:]
    return moved


def _backtrack(weights: Sequence[int], rows: Sequence[npt.NDArray[np.uint8]], cell: int) -> list[bool]:
    """For every item, whether it is taken on the way to a cell of the last row."""
    is_taken = []
    for weight, row in zip(reversed(weights), reversed(rows), strict=True):
        is_taken.append(bool(row[cell // 8] >> (7 - cell % 8) & 1))
        cell -= weight * is_taken[-1]
    return is_taken[::-1]
