"""The corners of the frontier's concave hull: one pass over the tree finds one, over tables that shrink on the way.

A plan optimal at some price (largest ``value - price * cost``) is optimal among all plans of no higher cost; these
plans are the corners of the hull (Everett 1963). The slope of the line between two known corners is the next price to
try. The best value of all plans is convex in the price, and so is ``reach(state, price)``, the best value of all plans
with a given state. If the chord of ``reach`` between the prices of two corners lies below the corners' own line, no
corner between them has the state, and it is removed from their tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halp_trt.solvers.relaxation import Direction, Point, best_states, marginals, tables, upward
from halp_trt.solvers.tables import MOST_ENTRIES, Bucket, FactorGraph, branches, narrowed

__all__ = ["spans"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_ROUNDING = 1e-9
"""Relative rounding error of values and priced costs, with a wide margin."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """The best value in a direction: over all plans, and over the plans with each state of each variable.

    At an infinite price ``best`` and ``reach`` are the lowest costs, negated.
    """

    price: float
    best: float
    reach: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tables:
    """A model without states that no corner of a span has.

    Attributes:
        model, tree: tables and buckets.
        kept: for every variable, the numbers in the whole model of the states left in ``model``.
    """

    model: FactorGraph
    tree: tuple[Bucket, ...]
    kept: tuple[Indices, ...]

    def whole(self, point: Point) -> Point:
        """A plan with its states as the whole model numbers them."""
        states = np.asarray([kept[state] for kept, state in zip(self.kept, point.states, strict=True)], np.intp)
        return Point(states=states, value=point.value, costs=point.costs)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Span:
    """Two neighbouring corners, and the tables of the plans between them.

    Attributes:
        left, right: plans, with ``states`` numbered as in the whole model.
        tables: tables without states no corner between has.
        at_left, at_right: views whose prices enclose the prices of all corners between.
    """

    left: Point
    right: Point
    tables: _Tables
    at_left: _View
    at_right: _View

    @property
    def across(self) -> float:
        """The difference in cost between the corners."""
        return float(self.right.costs[0] - self.left.costs[0])

    @property
    def up(self) -> float:
        """The difference in value between the corners."""
        return self.right.value - self.left.value

    @property
    def slack(self) -> float:
        """An upper bound on the rounding error in ``value - price * cost``."""
        priced = self.up / self.across * float(np.abs(self.right.costs[0]))
        return _ROUNDING * (abs(self.left.value) + abs(self.right.value) + priced)

    def ends_at(self, point: Point) -> bool:
        """True if a plan has the cost and value of one of the corners."""
        return any(end.value == point.value and end.costs[0] == point.costs[0] for end in (self.left, self.right))


def spans(
    model: FactorGraph,
    tree: tuple[Bucket, ...],
    low: float,
    high: float,
    *,
    spacing: float,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Point, Point]]:
    """Pairs of neighbouring corners of the hull between two costs, ascending.

    Args:
        model, tree: tables with one resource, and buckets.
        low, high: costs; the first and the last pair may reach beyond them.
        spacing: corners closer than this are not told apart.
        is_over: asked before every pass; once True, no more corners are sought between known ones.
    """
    whole = _Tables(model=model, tree=tree, kept=tuple(np.arange(size) for size in model.sizes))
    cheapest, at_cheapest = _seen(whole, Direction(weight=0.0, prices=np.ones(1)))
    dearest, at_dearest = _seen(whole, Direction(weight=1.0, prices=np.zeros(1)))
    pending = [_Span(left=cheapest, right=dearest, tables=whole, at_left=at_cheapest, at_right=at_dearest)]

    def is_open(span: _Span) -> bool:
        return span.across > spacing and span.right.costs[0] >= low and span.left.costs[0] <= high

    while pending:
        span = pending.pop()
        if span.across <= 0 or span.up <= 0 or span.right.costs[0] < low or span.left.costs[0] > high:
            continue
        halves = () if not is_open(span) or is_over() else _halves(span, is_open)
        if not halves:
            yield span.left, span.right
        pending.extend(halves)


def _halves(span: _Span, is_open: Callable[[_Span], bool]) -> tuple[_Span, ...]:
    """A span's parts right and left of the corner that lies farthest above its line, if any does."""
    span, price = _cut(span), span.up / span.across
    known = span.tables
    weighed = tables(known.model, Direction(weight=1.0, prices=np.array([price])))
    best, messages = upward(known.model, known.tree, weighed)
    if best <= span.left.value - price * float(span.left.costs[0]) + span.slack:
        return ()
    middle = known.whole(best_states(known.model, known.tree, weighed, messages))
    if span.ends_at(middle):
        return ()
    right, left = replace(span, left=middle), replace(span, right=middle)
    if not is_open(right) and not is_open(left):
        return right, left
    view = _View(price=price, best=best, reach=_reach(known, weighed, best, messages))
    return replace(right, at_left=view), replace(left, at_right=view)


def _seen(whole: _Tables, direction: Direction) -> tuple[Point, _View]:
    weighed = tables(whole.model, direction)
    best, messages = upward(whole.model, whole.tree, weighed)
    point = best_states(whole.model, whole.tree, weighed, messages)
    price = float(direction.prices[0]) if direction.weight else math.inf
    return point, _View(price=price, best=best, reach=_reach(whole, weighed, best, messages))


def _reach(known: _Tables, weighed: list[Floats], best: float, messages: list[Floats]) -> Floats:
    reach = np.concatenate(marginals(known.model, known.tree, weighed, best, messages))
    return np.maximum(reach, -1e300)  # differences of what cannot be reached stay numbers


def _cut(span: _Span) -> _Span:
    """The span with its tables narrowed to states some corner between its ends may have."""
    left, right = span.at_left, span.at_right
    if not left.price > right.price:
        return span
    price, slack = span.up / span.across, span.slack
    line = span.left.value - price * float(span.left.costs[0])
    near = right.reach >= right.best - slack
    if math.isfinite(left.price):
        part = (price - right.price) / (left.price - right.price)
        chord = right.reach + part * (left.reach - right.reach)
        near |= (left.reach >= left.best - slack) | (chord >= line - slack)
    else:
        near |= right.reach + (price - right.price) * left.reach >= line - slack
    if near.all():
        return span
    old = span.tables
    keep = [np.flatnonzero(part) for part in np.split(near, np.cumsum(old.model.sizes)[:-1])]
    model = narrowed(old.model, keep)
    new = _Tables(
        model=model,
        tree=branches(model, old.tree, max_entries=MOST_ENTRIES),
        kept=tuple(states[left] for states, left in zip(old.kept, keep, strict=True)),
    )
    at_left, at_right = (replace(view, reach=view.reach[near]) for view in (left, right))
    return replace(span, tables=new, at_left=at_left, at_right=at_right)
