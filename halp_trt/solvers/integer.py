"""Mixed-integer programming by HiGHS, for graphs that tie too many groups together for a tree of buckets.

Every state of every variable is a binary number and every entry of a table a share; the shares of a table sum to its
variables' states along each axis (the local polytope; Koster, van Hoesel and Kolen 1998).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.solvers.relaxation import Point, point_at
from halp_trt.solvers.tables import Factor, FactorGraph

__all__ = ["TOLERANCE", "Outcome", "maximise_by_integers"]

TOLERANCE = 1e-6
"""Tolerance of HiGHS's constraints; budgets are scaled to 1."""
_DUAL_TOLERANCE = 1e-7
"""Tolerance of HiGHS's dual constraints, values being scaled to 1; bounds allow for it in every table."""
_ROUNDING = 1e-12
"""Relative rounding error of sums of costs."""
_MOST_SHARES = 3_000_000
"""Above this number of entries in all tables nothing is tried: HiGHS would not look at its clock in a day."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The best plan found, None where there is none, and a bound; minus infinity where no plan fits."""

    point: Point | None
    bound: float


def maximise_by_integers(model: FactorGraph, *, gap: float, seconds: float | None, reserve: float = 0.0) -> Outcome:
    """The most valuable states within the budgets, to a gap or as far as the time allows.

    Costs are counted from the lowest in their table, budgets are lowered by these and scaled to 1, and entries above a
    budget are left out, so HiGHS sees numbers between 0 and 1. ``reserve`` is the fraction of each scaled budget to
    keep unspent.
    """
    if sum(factor.values.size for factor in model.factors) > _MOST_SHARES:
        return Outcome(point=None, bound=math.inf)
    reduced = _reduced(model)
    if reduced is None:
        return Outcome(point=None, bound=-math.inf)
    programme = _programme(model, reduced)
    gains = np.concatenate(programme.values)
    worth = float(np.abs(gains).max(initial=0.0)) or 1.0
    result = _solved(programme, reduced, gains / worth, gap=gap, seconds=seconds, reserve=reserve)
    if result.status == 2:
        return Outcome(point=None, bound=-math.inf)
    bound = math.inf
    if result.mip_dual_bound is not None:
        slack = _DUAL_TOLERANCE * (len(model.sizes) + len(model.factors))
        bound = float(model.factors[0].values) + worth * (slack - float(result.mip_dual_bound))
    if result.x is None:
        return Outcome(point=None, bound=bound)
    starts = np.cumsum([0, *model.sizes])
    states = [int(np.argmax(result.x[first:last])) for first, last in itertools.pairwise(starts)]
    return Outcome(point=point_at(model, np.asarray(states, np.intp)), bound=bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reduced:
    """Budgets lowered by the lowest costs of all tables, and the entries that can still fit.

    Attributes:
        room: of every budget, above the lowest costs.
        rounded: rounding error of every budget's sums.
        lows: lowest costs of every table but the constant first.
        fitting: entries of every such table that are within the room.
    """

    room: Floats
    rounded: Floats
    lows: list[Floats]
    fitting: list[npt.NDArray[np.bool_]]


def _reduced(model: FactorGraph) -> _Reduced | None:
    """The reduced budgets and tables; None where the lowest costs break a budget or a table has no entry left."""
    constant, room, lows, fitting = model.factors[0], model.budgets - model.factors[0].costs, [], []
    for factor in model.factors[1:]:
        lows.append(np.where(np.isfinite(factor.values), factor.costs, np.inf).min(axis=_inner(factor), initial=np.inf))
        room = room - lows[-1]
    rounded = _ROUNDING * (np.abs(model.budgets) + np.sum(np.abs([constant.costs, *lows]), axis=0))
    for factor, low in zip(model.factors[1:], lows, strict=True):
        above = _beside(low + np.maximum(room, 0.0) + rounded, factor)
        fitting.append(np.isfinite(factor.values) & (factor.costs <= above).all(axis=0))
    if (room < -rounded).any() or not all(entries.any() for entries in fitting):
        return None
    return _Reduced(room=room, rounded=rounded, lows=lows, fitting=fitting)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Programme:
    """The columns (states, then shares) and the tying rows of the integer programme, in pieces.

    Attributes:
        num_states: columns that are states, and integers.
        allowed: upper bounds of the states.
        values, costs: of all columns.
        ties: the matrix of rows that tie shares to states.
        right: its right-hand side.
    """

    num_states: int
    allowed: Floats
    values: list[Floats]
    costs: list[Floats]
    ties: Any
    right: Floats


def _programme(model: FactorGraph, reduced: _Reduced) -> _Programme:
    """The integer programme of a model: one state a variable, and the shares of each table that sum to its states."""
    from scipy.sparse import coo_array

    starts = np.cumsum([0, *model.sizes])
    allowed = np.ones(starts[-1])
    values, costs = [np.zeros(starts[-1])], [np.zeros((len(model.budgets), starts[-1]))]
    rows = [np.repeat(np.arange(len(model.sizes)), model.sizes)]
    columns, signs, ones = [np.arange(starts[-1])], [np.ones(starts[-1])], [np.ones(len(model.sizes))]
    num_rows, num_columns = len(model.sizes), int(starts[-1])
    for factor, low, fits in zip(model.factors[1:], reduced.lows, reduced.fitting, strict=True):
        entries = np.argwhere(fits)
        place: tuple[Any, ...] = tuple(entries.T)
        added = factor.costs[(slice(None), *place)] - low[:, None]
        if len(factor.scope) == 1:
            states = starts[factor.scope[0]] + place[0]
            values[0][states] += factor.values[place]
            costs[0][:, states] += added
            allowed[starts[factor.scope[0]] + np.flatnonzero(~fits)] = 0.0
            continue
        values.append(factor.values[place])
        costs.append(added)
        shares = num_columns + np.arange(len(entries))
        for variable, states in zip(factor.scope, place, strict=True):
            size = model.sizes[variable]
            rows += [num_rows + states, num_rows + np.arange(size)]
            columns += [shares, starts[variable] + np.arange(size)]
            signs += [np.ones(len(shares)), -np.ones(size)]
            ones.append(np.zeros(size))
            num_rows += size
        num_columns += len(entries)
    entries_of_ties = (np.concatenate(signs), (np.concatenate(rows), np.concatenate(columns)))
    ties, right = coo_array(entries_of_ties, shape=(num_rows, num_columns)), np.concatenate(ones)
    return _Programme(num_states=int(starts[-1]), allowed=allowed, values=values, costs=costs, ties=ties, right=right)


def _solved(
    programme: _Programme, reduced: _Reduced, gains: Floats, *, gap: float, seconds: float | None, reserve: float
) -> Any:
    """HiGHS's result for a programme, its budgets scaled to 1."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array, vstack

    room, right, num_columns = reduced.room, programme.right, len(gains)
    scale = np.maximum(np.maximum(room, reduced.rounded), np.finfo(float).tiny)
    spent = coo_array(np.concatenate(programme.costs, axis=1) / scale[:, None])
    with _silence():
        return milp(
            -gains,
            integrality=np.arange(num_columns) < programme.num_states,
            bounds=Bounds(0, np.append(programme.allowed, np.ones(num_columns - len(programme.allowed)))),
            constraints=LinearConstraint(
                vstack([programme.ties, spent]).tocsr(),
                np.append(right, np.full(len(room), -np.inf)),
                np.append(right, np.maximum(room, 0.0) / scale - reserve),
            ),
            options={"mip_rel_gap": gap, **({} if seconds is None else {"time_limit": seconds})},
        )


def _inner(factor: Factor) -> tuple[int, ...]:
    """The axes of a table of costs that stand for variables."""
    return tuple(range(1, factor.costs.ndim))


def _beside(numbers: Floats, factor: Factor) -> Floats:
    """One number per resource, shaped to broadcast with a table of costs."""
    return np.expand_dims(numbers, _inner(factor))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps HiGHS's own lines off the standard output, lest they end up in a verb's JSON."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
