"""A problem as a graph of variables and tables, and the tree along which such a graph is solved.

Variables are groups and sums of groups (a concatenation's width; layers that read prefixes of one concatenation, as
in DenseNet, share the prefixes' sums). Tables depend on one, two or, for a sum, three of them. Eliminating variables
one by one (Bertele and Brioschi 1972; Dechter 1999) turns the graph into a tree of buckets: along a chain of residual
stages each holds few variables.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.solvers.problem import Axis, Problem

__all__ = [
    "MOST_ENTRIES",
    "Bucket",
    "Factor",
    "FactorGraph",
    "branches",
    "bucket_tree",
    "model_of",
    "narrowed",
    "undominated",
]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

MOST_ENTRIES = 20_000_000
"""Most combinations in a bucket; networks that tie more groups together go to HiGHS."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Factor:
    """Values and costs that depend on some variables.

    Attributes:
        scope: the variables, ascending.
        values: one axis per variable; minus infinity where the combination is forbidden.
        costs: ``[resource, *scope]``.
    """

    scope: tuple[int, ...]
    values: Floats
    costs: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FactorGraph:
    """A graph of tables.

    Attributes:
        states: states of every variable: a group's choices by index, a sum's widths. Groups come first.
        factors: one for every scope; the one without variables first.
        budgets: budget of every resource.
    """

    states: tuple[Indices, ...]
    factors: tuple[Factor, ...]
    budgets: Floats

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of states of every variable."""
        return tuple(len(states) for states in self.states)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bucket:
    """One variable's elimination: its tables, its children's results, and the variables they tie it to.

    Attributes:
        scope: the variable, then the variables its tables tie it to.
        factors: the tables, by number.
        children: the buckets handing their result to this one, by number; all come before it.
        parent: the bucket receiving this one's result, -1 for none.
        factor_views, child_views: views bringing their axes into the order of the scope.
    """

    scope: tuple[int, ...]
    factors: tuple[int, ...]
    children: tuple[int, ...]
    parent: int
    factor_views: tuple[View, ...]
    child_views: tuple[View, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Brings a table's axes into the order of another scope, with an axis of size 1 where it does not depend on it."""

    order: tuple[int, ...]
    places: tuple[slice | None, ...]

    def __call__(self, table: Floats) -> Floats:
        """The table with its axes in the new order."""
        return table.transpose(self.order)[self.places]


def _view(scope: Sequence[int], into: Sequence[int]) -> View:
    return View(
        order=tuple(scope.index(variable) for variable in into if variable in scope),
        places=tuple(slice(None) if variable in scope else None for variable in into),
    )


# ---- from a problem to tables ---------------------------------------------------------------------------------------


class _Builder:
    """Gathers tables by scope while a model is made."""

    def __init__(self, problem: Problem, states: list[Indices]) -> None:
        self.problem = problem
        self.states = states
        self.tables: dict[tuple[int, ...], tuple[Floats, Floats]] = {}
        self._sums: dict[tuple[object, ...], tuple[int, Indices]] = {}
        self.add((), 0.0, 0.0)

    def add(self, scope: tuple[int, ...], values: Floats | float, costs: Floats | float) -> None:
        """Adds a table; ``values`` and ``costs`` have axes in the order of ``scope``."""
        sizes = [len(self.states[variable]) for variable in scope]
        order = sorted(range(len(scope)), key=lambda axis: scope[axis])
        num_resources = len(self.problem.budgets)
        table_values = np.broadcast_to(values, sizes).transpose(order)
        table_costs = np.broadcast_to(costs, [num_resources, *sizes]).transpose([0, *(axis + 1 for axis in order)])
        key = tuple(sorted(scope))
        old = self.tables.get(key, (0.0, 0.0))
        self.tables[key] = (old[0] + table_values, old[1] + table_costs)

    def variable(self, axis: Axis) -> tuple[int | None, Indices]:
        """The variable that stands for a width, and the position along the axis of each of its states."""
        if not axis.groups:
            return None, np.zeros(1, np.intp)
        variable, widths = self._sum(axis.groups, axis.parts)
        return variable, np.searchsorted(np.asarray(axis.levels), widths)

    def _sum(self, groups: tuple[int, ...], parts: tuple[tuple[int, ...], ...]) -> tuple[int, Indices]:
        last = np.asarray(parts[-1], np.intp)[self.states[groups[-1]]]
        if len(groups) == 1:
            return groups[0], last
        if (groups, parts) not in self._sums:
            before, widths = self._sum(groups[:-1], parts[:-1])
            sums = np.add.outer(widths, last)
            levels = np.unique(sums)
            variable = len(self.states)
            self.states.append(levels)
            self.add((before, groups[-1], variable), np.where(sums[..., None] == levels, 0.0, -np.inf), 0.0)
            self._sums[groups, parts] = variable, levels
        return self._sums[groups, parts]


def model_of(problem: Problem, *, removable: Collection[int] = ()) -> FactorGraph:
    """The tables of a problem over both widths.

    Args:
        problem: groups, layers and limits.
        removable: groups that may be removed; those of one block only together.

    Raises:
        UsageError: a group has no choice left.
    """
    states = []
    for index, group in enumerate(problem.groups):
        allowed = problem.allowed[index] if problem.allowed else range(len(group.widths))
        was_removed = not any(group.widths)
        choices = [choice for choice in allowed if group.widths[choice] or index in removable or was_removed]
        if not choices:
            raise UsageError(f"group {group.name!r} has no width left to choose; relax its limits")
        states.append(np.asarray(choices, np.intp))
    builder = _Builder(problem, states)
    for index, group in enumerate(problem.groups):
        builder.add((index,), np.asarray(group.values)[states[index]], 0.0)
    for term in problem.terms:
        (writes, rows), (reads, columns) = builder.variable(term.writes), builder.variable(term.reads)
        costs = term.costs[:, rows][:, :, columns]
        if writes is None or reads is None:
            scope = tuple(variable for variable in (writes, reads) if variable is not None)
            builder.add(scope, 0.0, costs.reshape(len(costs), *(len(states[variable]) for variable in scope)))
        elif writes == reads:
            builder.add((writes,), 0.0, np.einsum("rii->ri", costs))
        else:
            builder.add((writes, reads), 0.0, costs)
    if removable:
        _add_blocks(builder)
    factors = [Factor(scope=scope, values=v, costs=c) for scope, (v, c) in builder.tables.items()]
    return FactorGraph(
        states=tuple(builder.states),
        factors=tuple(sorted(factors, key=lambda factor: len(factor.scope))),
        budgets=np.asarray(list(problem.budgets.values())),
    )


def _add_blocks(builder: _Builder) -> None:
    """A block's groups are removed together, and what it earns elsewhere goes with them."""
    groups = builder.problem.groups

    def removed(group: int) -> npt.NDArray[np.bool_]:
        is_removed: npt.NDArray[np.bool_] = np.asarray(groups[group].widths)[builder.states[group]] == 0
        return is_removed

    for block in builder.problem.blocks:
        for first, second in zip(block.groups, block.groups[1:], strict=False):
            differ = removed(first)[:, None] != removed(second)
            builder.add((first, second), np.where(differ, -np.inf, 0.0), 0.0)
        for outside, values in block.shares:
            lost = removed(block.groups[-1])[:, None] * np.asarray(values)[builder.states[outside]]
            builder.add((block.groups[-1], outside), -lost, 0.0)


def narrowed(model: FactorGraph, keep: Sequence[Indices]) -> FactorGraph:
    """The model with ``keep[variable]`` of the states of every variable; tables lose the variables that are settled."""
    tables: dict[tuple[int, ...], tuple[Floats, Floats]] = {}
    for factor in model.factors:
        values, costs = factor.values, factor.costs
        for axis, variable in enumerate(factor.scope):
            if len(keep[variable]) < values.shape[axis]:
                values, costs = values.take(keep[variable], axis), costs.take(keep[variable], axis + 1)
        settled = tuple(axis for axis, size in enumerate(values.shape) if size == 1)
        values, costs = values.squeeze(settled), costs.squeeze(tuple(axis + 1 for axis in settled))
        scope = tuple(variable for axis, variable in enumerate(factor.scope) if axis not in settled)
        if scope in tables:
            values, costs = tables[scope][0] + values, tables[scope][1] + costs
        tables[scope] = values, costs
    factors = [Factor(scope=scope, values=v, costs=c) for scope, (v, c) in tables.items()]
    return FactorGraph(
        states=tuple(states[kept] for states, kept in zip(model.states, keep, strict=True)),
        factors=tuple(sorted(factors, key=lambda factor: len(factor.scope))),
        budgets=model.budgets,
    )


def undominated(model: FactorGraph) -> FactorGraph:
    """The model without states that another of the same variable makes useless.

    The other is worth no less and costs no more, whatever the variables beside it do. Variables in a sum are left
    alone, because their states are not interchangeable there.
    """
    summed = {variable for factor in model.factors if len(factor.scope) > 2 for variable in factor.scope}
    near: dict[int, list[tuple[Floats, Floats]]] = defaultdict(list)
    for factor in model.factors:
        for axis, variable in enumerate(factor.scope):
            size = factor.values.shape[axis]
            costs = np.moveaxis(factor.costs, axis + 1, 0).reshape(size, -1)
            near[variable].append((np.moveaxis(factor.values, axis, 0).reshape(size, -1), costs))
    return narrowed(
        model,
        [
            np.arange(len(states)) if variable in summed or variable not in near else _useful(near[variable])
            for variable, states in enumerate(model.states)
        ],
    )


def _useful(beside: list[tuple[Floats, Floats]]) -> Indices:
    size = len(beside[0][0])
    total = sum((costs.sum(axis=1) for _, costs in beside), np.zeros(size))
    first = [values[:, 0] for values, _ in beside]
    useful = np.ones(size, bool)
    for state in range(size):
        rivals = useful & (total <= total[state])
        for values in first:
            rivals &= values >= values[state]
        rivals[state] = False
        for rival in np.flatnonzero(rivals):
            if all((v[rival] >= v[state]).all() and (c[rival] <= c[state]).all() for v, c in beside):
                useful[state] = False
                break
    return np.flatnonzero(useful)


# ---- the tree -------------------------------------------------------------------------------------------------------


_MOST_VARIABLES = 40
"""Most variables in a bucket: NumPy's arrays have a few dozen axes at most."""


def bucket_tree(model: FactorGraph, *, max_entries: int, order: Sequence[int] = ()) -> tuple[Bucket, ...] | None:
    """Buckets in the order of elimination, or None where one would have more than ``max_entries`` combinations.

    The next variable is the one whose bucket is smallest, of equals the first. None, too, where a bucket would tie more
    variables together than an array has axes. Variables with one state that no table depends on have no bucket.
    """
    sizes = model.sizes
    used = {variable for factor in model.factors for variable in factor.scope}
    neighbours: dict[int, set[int]] = {v: set() for v, size in enumerate(sizes) if size > 1 or v in used}
    for factor in model.factors:
        for variable in factor.scope:
            neighbours[variable] |= {*factor.scope} - {variable}
    weights = {v: math.prod(sizes[n] for n in near) * sizes[v] for v, near in neighbours.items()}
    scopes: list[tuple[int, ...]] = []
    given = (variable for variable in order if variable in neighbours)
    while neighbours:
        variable = next(given) if order else min(neighbours, key=lambda v: (weights[v], v))
        near = neighbours.pop(variable)
        if weights.pop(variable) > max_entries or len(near) >= _MOST_VARIABLES:
            return None
        scopes.append((variable, *sorted(near)))
        for other in near:
            neighbours[other] = (neighbours[other] | near) - {other, variable}
        for other in near:
            weights[other] = math.prod(sizes[n] for n in neighbours[other]) * sizes[other]
    return _joined(model, scopes)


def branches(part: FactorGraph, tree: Sequence[Bucket], *, max_entries: int) -> tuple[Bucket, ...]:
    """The tree of a model that was ``narrowed`` from the one of ``tree``; in the same order, no bucket grows."""
    buckets = bucket_tree(part, max_entries=max_entries)
    if buckets is None:
        buckets = bucket_tree(part, max_entries=max_entries, order=[bucket.scope[0] for bucket in tree])
    assert buckets is not None
    return buckets


def _joined(model: FactorGraph, scopes: list[tuple[int, ...]]) -> tuple[Bucket, ...]:
    ranks = {scope[0]: rank for rank, scope in enumerate(scopes)}
    parents = [min((ranks[variable] for variable in scope[1:]), default=-1) for scope in scopes]
    children, factors = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for rank, parent in enumerate(parents):
        children[parent].append(rank)
    for number, factor in enumerate(model.factors):
        if factor.scope:
            factors[min(ranks[variable] for variable in factor.scope)].append(number)
    return tuple(
        Bucket(
            scope=scope,
            factors=tuple(factors[rank]),
            children=tuple(children[rank]),
            parent=parents[rank],
            factor_views=tuple(_view(model.factors[number].scope, scope) for number in factors[rank]),
            child_views=tuple(_view(scopes[child][1:], scope) for child in children[rank]),
        )
        for rank, scope in enumerate(scopes)
    )
