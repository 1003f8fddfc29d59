"""Exact search along the tree of buckets: labels are partial plans, kept while they may still win.

For every combination of the variables that tie a bucket to the rest, a label is dropped where another costs no more in
any resource and is worth no less (Nemhauser and Ullmann 1969), or where the Lagrangian bound of its best completion,
known exactly for every combination from one pass up and down the tree, falls short of the target (Handler and Zang
1980). Several prices bound at once, and so does the lowest cost of a completion in every resource.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.solvers.relaxation import Direction, Point, downward, points_at, tables, upward
from halp_trt.solvers.tables import Bucket, FactorGraph

__all__ = ["MOST_POINTS", "Found", "search"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

Pick = Callable[[Floats, Floats], Indices]

_BLOCK_SIZE = 1 << 17
"""Most extensions computed at once; bounds the memory of a step."""
_NUM_NEIGHBOURS = 24
"""Neighbours by cost to test a label's dominance against if there are several resources."""
MOST_POINTS = 32
"""Most plans a search returns by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The result of a search.

    Attributes:
        points: the picked plans within the budgets; some may lie below the target.
        lost: bound on the value of all plans dropped for want of space.
        num_labels: number of labels kept in all.
    """

    points: tuple[Point, ...]
    lost: float
    num_labels: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labels:
    """Partial plans.

    Attributes:
        places: for each label the combination of the bucket's variables (later of its separator's).
        costs: ``[label, resource]``.
        values: ``[label]``.
        states: for each label the state of the bucket's own variable.
        parents: ``[label, child]``: the children's labels it was made from.
    """

    places: Indices
    costs: Floats
    values: Floats
    states: Indices
    parents: npt.NDArray[np.int32]

    def at(self, which: npt.NDArray[Any]) -> _Labels:
        return _Labels(
            places=self.places[which],
            costs=self.costs[which],
            values=self.values[which],
            states=self.states[which],
            parents=self.parents[which],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Bounds:
    """Lagrangian bounds on the completions of labels, one per direction.

    Attributes:
        directions: the directions; those with weight 1 come first.
        thresholds: the value to reach in every direction.
        slack: ``prices · budgets`` of every direction.
        best: best value of every direction.
        messages: ``[direction][bucket]``, see ``relaxation.upward``.
        alive: combinations of each bucket that may still win.
        reach: per bucket ``[direction, alive combination]``: the best value over all variables.
    """

    directions: Sequence[Direction]
    thresholds: Floats
    slack: Floats
    best: Floats
    messages: list[list[Floats]]
    alive: list[Indices]
    reach: list[Floats]


@dataclass(slots=True, kw_only=True)
class _Progress:
    """The finished buckets, and the best bound among labels dropped."""

    max_labels: int
    is_late: Callable[[], bool]
    done: list[_Labels] = field(default_factory=list)
    lost: float = -np.inf
    num_labels: int = 0


class _TooLate(Exception):
    """The time is up."""


def search(
    model: FactorGraph,
    tree: Sequence[Bucket],
    prices: Sequence[Floats],
    target: float,
    *,
    max_labels: int,
    is_late: Callable[[], bool] = lambda: False,
    pick: Pick = lambda costs, values: np.argsort(-values, kind="stable")[:MOST_POINTS],
) -> Found | None:
    """The undominated plans within the budgets with a value of at least ``target``; None if the time ran out.

    Args:
        model, tree: tables and buckets.
        prices: prices of the resources, one vector per bound to use.
        target: the least value of a plan.
        max_labels: labels kept at a time; beyond it the least promising are dropped.
        is_late: asked now and then; once True, the search ends.
        pick: indices of the plans to return, from their costs ``[plan, resource]`` and values; by default the most
            valuable.
    """
    bounds = _bounds(model, tree, prices, target)
    progress = _Progress(max_labels=max_labels, is_late=is_late)
    try:
        for rank in range(len(tree)):
            progress.done.append(_finish(model, tree, rank, _open(model, tree, rank, bounds, progress)))
        roots = tuple(rank for rank, bucket in enumerate(tree) if bucket.parent < 0)
        front = _close(model, tree, roots, bounds, progress)
    except _TooLate:
        return None
    points = _points(model, tree, roots, front.at(pick(front.costs, front.values)), progress)
    return Found(points=points, lost=progress.lost, num_labels=progress.num_labels)


def _bounds(model: FactorGraph, tree: Sequence[Bucket], prices: Sequence[Floats], target: float) -> _Bounds:
    """Bounds from one pass up and down the tree for every direction: ``prices``, then the lowest cost per resource.

    A combination stays alive if its ``reach`` meets the threshold of every direction:
    ``weight * target - prices · budgets``, less the rounding error.
    """
    directions = [Direction(weight=1.0, prices=price) for price in prices]
    directions += [Direction(weight=0.0, prices=unit) for unit in np.eye(len(model.budgets))]
    scale = sum(float(np.abs(f.values[np.isfinite(f.values)]).max(initial=0)) for f in model.factors) + abs(target)
    magnitudes = np.sum([np.abs(f.costs).reshape(len(f.costs), -1).max(axis=1) for f in model.factors], axis=0)
    alive: list[Indices] = [np.zeros(0, np.intp)] * len(tree)
    reach: list[list[Floats]] = [[] for _ in tree]
    messages: list[list[Floats]] = []
    best: list[float] = []
    thresholds: list[float] = []
    for direction in directions:
        weighed = tables(model, direction)
        top, sent = upward(model, tree, weighed)
        rounding = 1e-12 * (direction.weight * scale + float(direction.prices @ (magnitudes + np.abs(model.budgets))))
        thresholds.append(direction.weight * target - float(direction.prices @ model.budgets) - rounding)

        def visit(rank: int, reached: Floats, limit: float = thresholds[-1], first: bool = not messages) -> None:
            flat = reached.ravel()
            if first:
                alive[rank] = np.flatnonzero(flat >= limit)
            reach[rank].append(flat[alive[rank]])

        downward(model, tree, weighed, top, sent, visit)
        messages.append(sent)
        best.append(top)
    stacked = [np.stack(rows) for rows in reach]
    fits = [(rows >= np.asarray(thresholds)[:, None]).all(axis=0) for rows in stacked]
    return _Bounds(
        directions=directions,
        thresholds=np.asarray(thresholds),
        slack=np.asarray([float(direction.prices @ model.budgets) for direction in directions]),
        best=np.asarray(best),
        messages=messages,
        alive=[combinations[fit] for combinations, fit in zip(alive, fits, strict=True)],
        reach=[rows[:, fit] for rows, fit in zip(stacked, fits, strict=True)],
    )


# ---- one bucket -----------------------------------------------------------------------------------------------------


def _open(
    model: FactorGraph, tree: Sequence[Bucket], rank: int, bounds: _Bounds, progress: _Progress
) -> tuple[_Labels, Indices]:
    """The labels of a bucket by combination of its variables, and the place of each combination in its separator."""
    bucket, sizes = tree[rank], model.sizes
    at = dict(zip(bucket.scope, np.unravel_index(bounds.alive[rank], [sizes[v] for v in bucket.scope]), strict=True))
    count = len(bounds.alive[rank])
    values, costs = np.zeros(count), np.zeros((count, len(model.budgets)))
    for factor in (model.factors[number] for number in bucket.factors):
        place: tuple[Any, ...] = tuple(at[variable] for variable in factor.scope)
        values += factor.values[place]
        costs += factor.costs[(slice(None), *place)].T
    labels = _Labels(
        places=np.arange(count),
        costs=costs,
        values=values,
        states=at[bucket.scope[0]],
        parents=np.zeros((count, 0), np.int32),
    )
    places = {child: _flat(tree[child].scope[1:], at, sizes, count) for child in bucket.children}
    labels = _with_children(labels, bounds.reach[rank] - _weighed(labels, bounds), places, bounds, progress)
    return labels, _flat(bucket.scope[1:], at, sizes, count)


def _flat(scope: Sequence[int], at: dict[int, Indices], sizes: Sequence[int], count: int) -> Indices:
    if not scope:
        return np.zeros(count, np.intp)
    return np.ravel_multi_index([at[variable] for variable in scope], [sizes[variable] for variable in scope])


def _finish(model: FactorGraph, tree: Sequence[Bucket], rank: int, opened: tuple[_Labels, Indices]) -> _Labels:
    """The undominated labels by place in the separator: the bucket's own variable is decided."""
    labels, separators = opened
    return _undominated(replace(labels, places=separators[labels.places]))


def _close(
    model: FactorGraph, tree: Sequence[Bucket], roots: Sequence[int], bounds: _Bounds, progress: _Progress
) -> _Labels:
    """The labels of all trees joined: whole plans."""
    constant = model.factors[0]
    whole = _Labels(
        places=np.zeros(1, np.intp),
        costs=constant.costs[None],
        values=constant.values[None],
        states=np.zeros(1, np.intp),
        parents=np.zeros((1, 0), np.int32),
    )
    places = {root: np.zeros(1, np.intp) for root in roots}
    return _with_children(whole, bounds.best[:, None] - _weighed(whole, bounds), places, bounds, progress)


def _weighed(labels: _Labels, bounds: _Bounds) -> Floats:
    """The labels' objective in every direction, ``[direction, label]``."""
    weights = np.asarray([direction.weight for direction in bounds.directions])
    prices = np.asarray([direction.prices for direction in bounds.directions])
    return weights[:, None] * labels.values - prices @ labels.costs.T


def _with_children(
    labels: _Labels, rest: Floats, places: dict[int, Indices], bounds: _Bounds, progress: _Progress
) -> _Labels:
    """Every label with every matching label of every child, less those dominated or bounded away.

    Args:
        labels: labels before any child, by place.
        rest: ``[direction, place]``: the best value of everything but the label.
        places: for every child, the place in its separator of each place here.
        bounds, progress: bounds and state of the search.
    """
    columns: list[int] = []
    for child in sorted(places, key=lambda child: (len(progress.done[child].places), child)):
        sent = np.stack([messages[child].ravel()[places[child]] for messages in bounds.messages])
        rest = rest - np.where(np.isneginf(sent), 0.0, sent)
        labels = _joined(labels, progress.done[child], places[child], rest, bounds, progress)
        columns.append(child)
    order = np.argsort(np.asarray(columns, np.intp), kind="stable")
    return replace(labels, parents=labels.parents[:, order])


def _joined(
    labels: _Labels, others: _Labels, places: Indices, rest: Floats, bounds: _Bounds, progress: _Progress
) -> _Labels:
    starts = np.searchsorted(others.places, places, side="left")[labels.places]
    counts = np.searchsorted(others.places, places, side="right")[labels.places] - starts
    ends = np.cumsum(counts)
    kept = [_extended(labels.at(np.zeros(0, np.intp)), others, np.zeros(0, np.intp))]
    first = 0
    while first < len(counts):
        if progress.is_late():
            raise _TooLate
        before = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, before + _BLOCK_SIZE, side="right")), first + 1)
        left = np.repeat(np.arange(first, last), counts[first:last])
        offsets = np.arange(len(left)) - np.repeat(ends[first:last] - counts[first:last] - before, counts[first:last])
        right = starts[left] + offsets
        costs, values = labels.costs[left] + others.costs[right], labels.values[left] + others.values[right]
        promising = np.flatnonzero(_promising(labels.places[left], costs, values, rest, bounds))
        left, right = left[promising], right[promising]
        extended = _extended(labels.at(left), others, right)
        kept.append(_undominated(extended))
        first = last
    return _thinned(_undominated(_stacked(kept)) if len(kept) > 2 else kept[-1], rest, bounds, progress)


def _promising(places: Indices, costs: Floats, values: Floats, rest: Floats, bounds: _Bounds) -> npt.NDArray[np.bool_]:
    promising = np.ones(len(places), bool)
    for direction, limit, more in zip(bounds.directions, bounds.thresholds, rest, strict=True):
        promising &= direction.weight * values - costs @ direction.prices + more[places] >= limit
    return promising


def _extended(labels: _Labels, others: _Labels, right: Indices) -> _Labels:
    return _Labels(
        places=labels.places,
        costs=labels.costs + others.costs[right],
        values=labels.values + others.values[right],
        states=labels.states,
        parents=np.column_stack((labels.parents, right.astype(np.int32))),
    )


def _stacked(parts: Sequence[_Labels]) -> _Labels:
    return _Labels(
        places=np.concatenate([part.places for part in parts]),
        costs=np.concatenate([part.costs for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        states=np.concatenate([part.states for part in parts]),
        parents=np.concatenate([part.parents for part in parts]),
    )


# ---- dominance ------------------------------------------------------------------------------------------------------


def _undominated(labels: _Labels) -> _Labels:
    """The labels not dominated by another of their place, by place and cost; among equals the first."""
    num_labels = len(labels.places)
    costs = labels.costs.T
    order = np.lexsort((-labels.values, *costs[1:], costs[0], labels.places))
    labels = labels.at(order)
    if labels.costs.shape[1] == 1:
        ranks = np.unique(labels.values, return_inverse=True)[1] + labels.places * np.intp(num_labels + 1)
        before = np.maximum.accumulate(np.append(np.intp(-1), ranks))[:-1]
        return labels.at(ranks > before)
    dominated = np.zeros(num_labels, bool)
    for shift in range(1, min(_NUM_NEIGHBOURS, num_labels - 1) + 1):
        dominated[shift:] |= (
            (labels.places[:-shift] == labels.places[shift:])
            & (labels.values[:-shift] >= labels.values[shift:])
            & (labels.costs[:-shift] <= labels.costs[shift:]).all(axis=1)
        )
    return labels.at(~dominated)


def _thinned(labels: _Labels, rest: Floats, bounds: _Bounds, progress: _Progress) -> _Labels:
    """The labels with the highest bounds, at most ``max_labels``."""
    progress.num_labels += len(labels.places)
    if len(labels.places) <= progress.max_labels:
        return labels
    promise = (_weighed(labels, bounds) + rest[:, labels.places] + bounds.slack[:, None])[: -labels.costs.shape[1]]
    promise = promise.min(axis=0)
    order = np.argsort(-promise, kind="stable")
    progress.lost = max(progress.lost, float(promise[order[progress.max_labels]]))
    return labels.at(np.sort(order[: progress.max_labels]))


# ---- whole plans ----------------------------------------------------------------------------------------------------


def _points(
    model: FactorGraph, tree: Sequence[Bucket], roots: Sequence[int], front: _Labels, progress: _Progress
) -> tuple[Point, ...]:
    """The plans of some labels, read back from the roots down."""
    states = np.zeros((len(front.values), len(model.states)), np.intp)
    labels: dict[int, npt.NDArray[np.int32]] = dict(zip(sorted(roots), front.parents.T, strict=True))
    for rank in range(len(tree) - 1, -1, -1):
        chosen, done = labels.pop(rank), progress.done[rank]
        states[:, tree[rank].scope[0]] = done.states[chosen]
        labels.update(zip(sorted(tree[rank].children), done.parents[chosen].T, strict=True))
    return points_at(model, states)
