"""The papers' augmented knapsack (arXiv:2210.06659, sec. 3.2, alg. 1), as numbers only.

An item is one more chunk of a group, with what it adds to value and cost. Items of a group stand in the order of their
saliency, and ``V[i][w] = max(V[i-1][w], v_i + V[i-1][w - c_i])``, where item i may be taken if it is the first of its
group, or if item i-1 was taken in the cell ``(i-1, w - c_i)`` that it builds on. That cell holds one best plan only, so
the recurrence is greedy: it can miss the optimum, which is what ``exact`` finds.

Differs from HALP's released form in that what must stay is paid for before anything is chosen, so that keeping it
cannot break the budget; that costs are rounded up, never down; that one quantum is as fine as the table's size allows;
and that cells are computed a row at a time, with one bit kept for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["augmented_knapsack"]

_MOST_CELLS = 1 << 18  # in a row


def augmented_knapsack(
    costs: Sequence[Sequence[float]], values: Sequence[Sequence[float]], capacity: float
) -> tuple[int, ...] | None:
    """The choice of every group, or None where the recurrence finds none within the capacity.

    Args:
        costs, values: ``[group][choice]``, cumulative: choice k is the first of a group (which has to be paid for) and
            k chunks more.
        capacity: the most that the chosen costs may sum to.
    """
    room = math.fsum([capacity, *(-group[0] for group in costs)])
    quantum = _quantum(costs, room)
    added = [[math.ceil((cost - group[0]) / quantum) for cost in group] for group in costs]
    weights = [after - before for group in added for before, after in zip(group, group[1:], strict=False)]
    gains = [after - before for group in values for before, after in zip(group, group[1:], strict=False)]
    firsts = {sum(len(group) - 1 for group in costs[:index]) for index in range(len(costs))}
    below = sum(-weight for weight in weights if weight < 0)
    top = max(math.floor(room / quantum), -below) + below
    return _backtrack(costs, weights, _table(weights, gains, firsts, below, top), below, math.floor(room / quantum))


def _quantum(costs: Sequence[Sequence[float]], room: float) -> float:
    """One where all costs are whole and few enough, else a share of the room."""
    whole = all(float(cost).is_integer() for group in costs for cost in group)
    spread = math.fsum(max(group) - group[0] for group in costs)
    reach = max(min(room, spread), 0.0)
    return 1.0 if whole and reach < _MOST_CELLS else max(reach / _MOST_CELLS, 1e-12 * max(spread, 1.0))


def _table(
    weights: Sequence[int], gains: Sequence[float], firsts: set[int], below: int, top: int
) -> list[npt.NDArray[np.uint8]]:
    """For every item the cells, of capacities ``-below .. top``, in which it is taken, eight to a byte.

    Capacities below zero and beyond the budget are there for items that save: they build on cells with more room.
    """
    size = below + top + 1
    value = np.where(np.arange(size) >= below, 0.0, -np.inf)
    taken = np.zeros(size, bool)
    rows = []
    for item, (weight, gain) in enumerate(zip(weights, gains, strict=True)):
        source = np.arange(size) - weight
        inside = source >= 0
        source = np.clip(source, 0, size - 1)
        candidate = np.where(inside, value[source] + gain, -np.inf)
        if item not in firsts:
            candidate[~taken[source]] = -np.inf
        taken = (candidate > value) | ((candidate == value) & (weight <= 0) & (candidate > -np.inf))
        value = np.where(taken, candidate, value)
        rows.append(np.packbits(taken))
    return rows


def _backtrack(
    costs: Sequence[Sequence[float]],
    weights: Sequence[int],
    rows: Sequence[npt.NDArray[np.uint8]],
    below: int,
    room: int,
) -> tuple[int, ...] | None:
    cell = room + below
    if cell < 0:
        return None
    taken = []
    for weight, row in zip(reversed(weights), reversed(rows), strict=True):
        taken.append(bool(row[cell // 8] >> (7 - cell % 8) & 1))
        cell -= weight * taken[-1]
    if cell < below:
        return None
    counts = iter(reversed(taken))
    return tuple(sum(next(counts) for _ in group[1:]) for group in costs)
