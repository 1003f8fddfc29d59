"""The optimum over the widths that layers write and read together, with a certificate.

Lagrangian relaxation gives a bound and prices. A search for plans worth nearly as much as the bound follows, in rounds:
a round that finds none lowers the bound to its target and the next looks further, until a plan and the bound meet.
Differs from MDP (arXiv:2406.12079, sec. 3), which hands the same problem to a non-convex solver without a guarantee.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halp_trt.errors import HalpError, InfeasibleBudgetError
from halp_trt.solvers.problem import Problem, Solution
from halp_trt.solvers.refusal import infeasible
from halp_trt.solvers.relaxation import Direction, Point, dual, lowest, marginals, point_at, tables, upward
from halp_trt.solvers.search import MOST_POINTS, search
from halp_trt.solvers.tables import (
    MOST_ENTRIES,
    Bucket,
    Factor,
    FactorGraph,
    branches,
    bucket_tree,
    model_of,
    narrowed,
    undominated,
)

__all__ = ["Effort", "joint", "joint_blocks", "maximise", "prepared", "solved"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

_MOST_LABELS = 200_000
"""Most partial plans kept at a time."""
_CHEAP_LABELS = 4_000
"""Most labels of the first searches. A search that drops some still finds good plans, which narrow the next one. While
these labels suffice, the proof goes on past the gap asked for, so small problems end with the optimum."""
_MORE_SPACE = 5
"""Factor on the number of labels after a search that dropped some without finding a better plan."""
_TOO_FEW_PLANS = math.log(10_000)
"""Logarithm of the number of combinations below which a round is skipped for a deeper one."""
_SPREAD = (1.0, 0.8, 1.25, 0.6, 1.7)
"""Factors on the dual's prices; several prices bound labels that spend more or less than their share."""
_FIRST_STEP = 1e-6
"""Depth of the first round below the bound, as a fraction of the bound."""
_GROWTH = 2.0
"""Growth of the depth from round to round."""
_ROUNDING = 1e-12
"""Relative rounding error of sums."""
_PART_FOR_CHEAPEST = 0.4
"""Fraction of the time limit for finding the cheapest plan if the narrowest one does not fit."""
_CERTAIN = 1e-5
"""A refusal names the lowest reachable cost if it is known to this relative gap."""


def joint(problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
    """The most valuable plan within the budgets in which every group keeps something.

    Args:
        problem: groups, layers, budgets.
        gap: largest ``(bound - value) / value`` to accept; 0 asks for the optimum.
        seconds: time limit; the best plan so far is returned, with its gap.

    Raises:
        InfeasibleBudgetError: no plan meets the budgets; the message names the lowest reachable cost and the binding
            budget.
    """
    return _solution(problem, blocks=False, effort=Effort(gap=gap, seconds=seconds))


def joint_blocks(problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
    """Like ``joint``, and every residual block may be removed as a whole: it then neither costs nor earns anything."""
    return _solution(problem, blocks=True, effort=Effort(gap=gap, seconds=seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The stopping rule of a solver.

    Attributes:
        gap: relative gap between plan and bound to accept.
        seconds: wall time, None for as long as it takes.
        max_labels: partial plans kept at a time.
    """

    gap: float = 1e-4
    seconds: float | None = None
    max_labels: int = _MOST_LABELS


def _solution(problem: Problem, *, blocks: bool, effort: Effort) -> Solution:
    started = time.perf_counter()
    model, tree = prepared(problem, blocks=blocks)
    if effort.seconds is not None:
        effort = replace(effort, seconds=max(effort.seconds - (time.perf_counter() - started), 0.0))
    return replace(solved(problem, model, tree, effort=effort), seconds=time.perf_counter() - started)


def prepared(problem: Problem, *, blocks: bool) -> tuple[FactorGraph, tuple[Bucket, ...] | None]:
    """The problem's tables without dominated states, and their tree; None where it would be too large."""
    removable = {group for block in problem.blocks for group in block.groups} if blocks else frozenset[int]()
    model = undominated(model_of(problem, removable=removable))
    return model, bucket_tree(model, max_entries=MOST_ENTRIES)


def solved(
    problem: Problem,
    model: FactorGraph,
    tree: tuple[Bucket, ...] | None,
    *,
    effort: Effort,
    known: Sequence[Point] = (),
) -> Solution:
    """The best plan of a problem over ``prepared`` tables; ``known`` plans spare passes over the tree.

    Raises:
        InfeasibleBudgetError: as :func:`joint`.
    """
    started = time.perf_counter()

    def price(states: Indices) -> float | None:
        choices = _choices(states, problem)
        return problem.value(choices, live=True) if problem.fits(choices) else None

    incumbent = _maximum(model, tree, price, effort, tuple(problem.budgets), known)
    assert incumbent.states is not None
    choices = _choices(incumbent.states, problem)
    return Solution(
        choices=choices,
        value=incumbent.value,
        bound=max(incumbent.bound, incumbent.value),
        costs=problem.costs(choices),
        seconds=time.perf_counter() - started,
        status=incumbent.status(effort.gap),
    )


def _choices(states: Indices, problem: Problem) -> tuple[int, ...]:
    return tuple(int(state) for state in states[: len(problem.groups)])


@dataclass(slots=True, kw_only=True)
class Incumbent:
    """The incumbent and the bound so far.

    Attributes:
        price: gives the exact value of a plan, or None if it breaks a budget.
        bound: no plan is worth more.
        value, states: the incumbent; states as the whole model names them.
    """

    price: Callable[[Indices], float | None]
    bound: float = math.inf
    value: float = -math.inf
    states: Indices | None = None

    def offer(self, model: FactorGraph, point: Point) -> bool:
        """Makes a plan the incumbent if it is better; returns True if it fits."""
        states = np.asarray([names[state] for names, state in zip(model.states, point.states, strict=True)])
        value = self.price(states)
        if value is not None and value > self.value:
            self.value, self.states = value, states
        return value is not None

    def proven(self, gap: float) -> bool:
        """True if the incumbent is within a gap of the bound."""
        return self.states is not None and self.bound - self.value <= max(gap, _ROUNDING) * abs(
            self.value or self.bound
        )

    def status(self, gap: float) -> str:
        """The outcome as ``Solution.status`` states it."""
        return "optimal" if self.proven(0.0) else "gap" if self.proven(gap) else "limit"


def maximise(
    model: FactorGraph, price: Callable[[Indices], float | None], effort: Effort, resources: tuple[str, ...]
) -> Incumbent:
    """The incumbent and bound after a search for a model's best states within its budgets.

    Raises:
        InfeasibleBudgetError: there are none.
        HalpError: none was found in time, but there may be some.
    """
    model = undominated(model)
    return _maximum(model, bucket_tree(model, max_entries=MOST_ENTRIES), price, effort, resources)


def _maximum(
    model: FactorGraph,
    tree: tuple[Bucket, ...] | None,
    price: Callable[[Indices], float | None],
    effort: Effort,
    resources: tuple[str, ...],
    known: Sequence[Point] = (),
) -> Incumbent:
    started = time.perf_counter()

    def is_late() -> bool:
        return effort.seconds is not None and time.perf_counter() - started > effort.seconds

    def rest() -> Effort:
        spent = time.perf_counter() - started
        return effort if effort.seconds is None else replace(effort, seconds=max(effort.seconds - spent, 0.0))

    incumbent = Incumbent(price=price)
    if tree is None:
        _by_integers(model, incumbent, rest, resources)
    else:
        _by_tree(model, tree, incumbent, effort, is_late, resources, known)
    if incumbent.states is None:
        if incumbent.bound > -math.inf:
            how = "in the time given" if effort.seconds is not None else "to the precision of sums"
            raise HalpError(f"no plan within the budgets was found {how}; there may be one, so allow more")
        raise _infeasible_together(model, rest(), resources)
    return incumbent


def _by_integers(
    model: FactorGraph, incumbent: Incumbent, rest: Callable[[], Effort], resources: tuple[str, ...]
) -> None:
    """Plans with HiGHS; if its plan breaks a budget within HiGHS's tolerance, plans again with a lower budget.

    The narrowest plan is the first incumbent; if it does not fit, the cheapest one is tried. ``rest`` gives the
    remaining effort.
    """
    from halp_trt.solvers.integer import TOLERANCE, maximise_by_integers

    top = float(sum(f.values[np.isfinite(f.values)].max(initial=-math.inf) for f in model.factors))
    incumbent.bound = top
    narrowest = Point(states=np.zeros(len(model.sizes), np.intp), value=0.0, costs=np.zeros(len(model.budgets)))
    cheapest, least = None, -math.inf
    if not incumbent.offer(model, narrowest):
        effort = rest()
        part = None if effort.seconds is None else effort.seconds * _PART_FOR_CHEAPEST
        cheapest, least = _cheapest(model, replace(effort, seconds=part))
        if cheapest is not None:
            incumbent.offer(model, cheapest)
    for reserve in (0.0, 2 * TOLERANCE):
        outcome = maximise_by_integers(model, gap=rest().gap, seconds=rest().seconds, reserve=reserve)
        incumbent.bound = min(incumbent.bound, outcome.bound) if reserve == 0.0 else incumbent.bound
        if outcome.point is None or incumbent.offer(model, outcome.point):
            break
    if incumbent.states is not None:
        incumbent.bound = top if incumbent.bound == -math.inf else incumbent.bound  # it fits to HiGHS's tolerance alone
    elif len(resources) == 1:
        cost = math.nan if cheapest is None else float(cheapest.costs[0])
        is_lowest = cost - least <= _CERTAIN * abs(cost)
        if is_lowest or least > model.budgets[0] or incumbent.bound == -math.inf:
            raise infeasible(resources[0], float(model.budgets[0]), cost if is_lowest else math.nan)


def _by_tree(
    model: FactorGraph,
    tree: tuple[Bucket, ...],
    incumbent: Incumbent,
    effort: Effort,
    is_late: Callable[[], bool],
    resources: tuple[str, ...],
    known: Sequence[Point],
) -> None:
    cheapest = [lowest(model, tree, resource) for resource in range(len(resources))]
    for resource, (point, name) in enumerate(zip(cheapest, resources, strict=True)):
        if point.costs[resource] > model.budgets[resource] * (1 + _ROUNDING) + _ROUNDING:
            raise infeasible(name, float(model.budgets[resource]), float(point.costs[resource]))
    relaxed = dual(model, tree, [*cheapest, *known], is_late=is_late)
    incumbent.bound = relaxed.bound
    for point in sorted(relaxed.points, key=lambda point: -point.value):
        if (point.costs <= model.budgets).all() and incumbent.offer(model, point):
            break
    priced = relaxed.prices > 0
    if 0 < priced.sum() < len(priced):  # the other budgets do not bind: without them far fewer plans compare
        fewer = [replace(factor, costs=factor.costs[priced]) for factor in model.factors]
        simpler = FactorGraph(states=model.states, factors=tuple(fewer), budgets=model.budgets[priced])
        _search_in_rounds(simpler, tree, relaxed.prices[priced], incumbent, effort, is_late, is_whole=False)
    if not incumbent.proven(effort.gap):
        _search_in_rounds(model, tree, relaxed.prices, incumbent, effort, is_late)


def _search_in_rounds(
    model: FactorGraph,
    tree: tuple[Bucket, ...],
    prices: Floats,
    incumbent: Incumbent,
    effort: Effort,
    is_late: Callable[[], bool],
    *,
    is_whole: bool = True,
) -> None:
    """Searches further below the bound in every round, until incumbent and bound meet.

    Not ``is_whole`` means that ``model`` leaves budgets out; the search then ends with a plan that breaks one of them.
    """
    weighed = tables(model, Direction(weight=1.0, prices=prices))
    best, messages = upward(model, tree, weighed)
    reach = [values + float(prices @ model.budgets) for values in marginals(model, tree, weighed, best, messages)]
    top = incumbent.bound
    floor = -float(sum(np.abs(f.values[np.isfinite(f.values)]).max(initial=0.0) for f in model.factors)) - 1.0
    step, cap = max(_FIRST_STEP * abs(top), -1e-9 * floor), min(_CHEAP_LABELS, effort.max_labels)
    while not incumbent.proven(0.0) and not is_late():
        if incumbent.proven(effort.gap) and cap > _CHEAP_LABELS:
            return
        target = max(top - step, incumbent.value, floor)
        slack = _ROUNDING * (abs(target) + abs(floor) + float(prices @ np.abs(model.budgets)))
        keep = [np.flatnonzero(values >= target - slack) for values in reach]
        if not all(map(len, keep)):  # the bound lies below every plan's value: the budgets exclude each other
            incumbent.bound = incumbent.value
            return
        if target > max(incumbent.value, floor) and sum(map(math.log, map(len, keep))) < _TOO_FEW_PLANS:
            step *= _GROWTH
            continue
        small = narrowed(model, keep)
        before = incumbent.value
        rest = branches(small, tree, max_entries=MOST_ENTRIES)
        result = search(small, rest, [prices * s for s in _SPREAD], target, max_labels=cap, is_late=is_late)
        if result is None:
            return
        fits, unfit = False, -math.inf
        for point in result.points:  # most valuable first
            if fits := incumbent.offer(small, point):
                break
            unfit = max(unfit, point.value)
        if is_whole and (fits or len(result.points) < MOST_POINTS):
            unfit = -math.inf  # unfit plans are over a budget by rounding alone, and the search found all
        reached = target if target > floor else -math.inf
        incumbent.bound = min(incumbent.bound, max(reached, result.lost, unfit, incumbent.value))
        if unfit > -math.inf:
            return
        if result.lost > -math.inf:
            if incumbent.value == before and (incumbent.proven(effort.gap) or cap == effort.max_labels):
                return
            cap = cap if incumbent.value > max(before, target) else min(_MORE_SPACE * cap, effort.max_labels)
        elif target == floor:
            return
        else:
            step *= _GROWTH


# ---- refusals -------------------------------------------------------------------------------------------------------


def _cheapest(model: FactorGraph, effort: Effort) -> tuple[Point | None, float]:
    """The cheapest plan found in the first resource, whatever it costs in others, and a lower bound on that cost."""
    tree = bucket_tree(model, max_entries=MOST_ENTRIES)
    if tree is not None:
        point = lowest(model, tree, 0)
        return point, float(point.costs[0])
    from halp_trt.solvers.integer import maximise_by_integers

    def turned(factor: Factor) -> Factor:
        values = np.where(np.isneginf(factor.values), -np.inf, -factor.costs[0])
        return Factor(scope=factor.scope, values=values, costs=np.zeros_like(factor.costs[:1]))

    rest = FactorGraph(states=model.states, factors=tuple(map(turned, model.factors)), budgets=np.ones(1))
    outcome = maximise_by_integers(rest, gap=0.0, seconds=effort.seconds)
    return None if outcome.point is None else point_at(model, outcome.point.states), -outcome.bound


def _infeasible_together(model: FactorGraph, effort: Effort, resources: tuple[str, ...]) -> InfeasibleBudgetError:
    """The error for budgets that exclude each other; it names the lowest first cost while the others are met."""
    if len(resources) == 1:
        return infeasible(resources[0], float(model.budgets[0]), _cheapest(model, effort)[1])

    def turned(factor: Factor) -> Factor:
        values = np.where(np.isneginf(factor.values), -np.inf, -factor.costs[0])
        return Factor(scope=factor.scope, values=values, costs=factor.costs[1:])

    rest = FactorGraph(states=model.states, factors=tuple(map(turned, model.factors)), budgets=model.budgets[1:])

    def price(states: Indices) -> float | None:
        at = np.asarray([np.flatnonzero(names == state)[0] for names, state in zip(rest.states, states, strict=True)])
        point = point_at(rest, at)
        return point.value if (point.costs <= rest.budgets).all() else None

    try:
        incumbent = maximise(rest, price, effort, resources[1:])
    except InfeasibleBudgetError as error:
        return error
    except HalpError:  # out of time
        incumbent = Incumbent(price=price)
    least = -incumbent.value if incumbent.proven(max(effort.gap, _CERTAIN)) else math.nan
    return infeasible(resources[0], float(model.budgets[0]), least, f" while {' and '.join(resources[1:])} meet theirs")
