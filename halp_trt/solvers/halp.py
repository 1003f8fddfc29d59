"""HALP's problem: output widths are chosen while input widths stand still; solvers ``halp`` and ``exact``.

The cost of a choice is the cost of the layers writing its group at that width, at their present input widths; savings
by narrower inputs are not credited (arXiv:2210.06659, sec. 3.1). As in the papers, width 0 is a choice like any other
if the problem offers it: it may cut a network in two, and the value of a dead block's last layer counts all the same;
limits forbid it. Differs from HALP: plans have to meet the budgets at their true widths, too; the linear optimum may
break them where a narrower layer is slower.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halp_trt.errors import HalpError, InfeasibleBudgetError
from halp_trt.solvers import knapsack
from halp_trt.solvers.augmented_knapsack import MOST_CELLS, augmented_knapsack
from halp_trt.solvers.joint import Effort, maximise
from halp_trt.solvers.problem import Axis, Problem, Solution, Term, above
from halp_trt.solvers.tables import MOST_ENTRIES, bucket_tree, model_of, undominated

__all__ = ["exact", "halp", "linearised"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

Clock = Callable[[], bool]
"""A function that returns True when the time is up."""

_Chosen = tuple[tuple[int, ...] | None, float]
"""Choices (None: none found), and a bound on the value."""

_ATTEMPTS = 200
"""Most plans of the recurrence priced at their true widths."""
_STRIDE = 1.08
"""Growth of the number of plans skipped between two attempts, after the first quarter of the attempts."""
_ROUNDING = 1e-14
"""Relative rounding error of sums, as a fraction of the numbers summed."""
_ROUNDINGS = 8
"""Most tries with less room, for choices above the budget by rounding."""
_FEWEST_CELLS = 1 << 12
"""Fewest cells in a row of the recurrence; also the cells of the coarse recurrence under a time limit."""
_MOST_STEPS = 1 << 27
"""Most cells in all rows of the recurrence; more items get coarser rows."""
_WEIGHINGS = {2: 8, 3: 4}
"""Number of parts into which the weight is divided, by the number of resources."""
_WEIGHED_CELLS = 1 << 14
"""Most cells in a row for each weighting of several resources."""
_WEIGHED_PLANS = 40
"""Plans tried of each weighting."""


def exact(problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
    """The optimum of HALP's problem among the plans that meet the budgets at their true widths too.

    If the linear optimum breaks a budget and the network ties too many groups together for a proof, the plan is the one
    of ``halp``.

    Args:
        problem: groups, layers, budgets.
        gap, seconds: see ``joint``; with one resource the optimum is found in any case.

    Raises:
        InfeasibleBudgetError: no choice meets the budgets at the present input widths.
    """
    return _solution(problem, _best_of_linear, Effort(gap=gap, seconds=seconds))


def halp(problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
    """The plan of the papers' augmented knapsack, with the optimum of the same problem as its bound.

    The papers know one resource. Several are summed here under several weightings, and the best plan within all budgets
    is taken.
    """
    return _solution(problem, _first_of_augmented, Effort(gap=gap, seconds=seconds))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Linear:
    """HALP's problem as numbers: ``costs[group][resource, choice]`` relative to the present width.

    ``dense`` is the network's cost at its present widths, ``budgets`` the remainder beyond it, ``scale`` the sum of the
    terms' magnitudes, for rounding errors.
    """

    problem: Problem
    choices: tuple[tuple[int, ...], ...]
    costs: tuple[Floats, ...]
    values: tuple[tuple[float, ...], ...]
    budgets: Floats
    dense: Floats
    scale: float

    def is_above(self, choices: Sequence[int], budget: float) -> bool:
        """True if choices exceed the first budget, with all layers' costs summed exactly and rounded once."""
        rows = []
        full = [len(group.widths) - 1 for group in self.problem.groups]
        for term in self.problem.terms:
            rows.append(float(term.costs[0, -1, -1]))
            for group in term.writes.groups:
                chosen = list(full)
                chosen[group] = choices[group]
                rows += [float(term.costs[0, term.writes.position(chosen), -1]), -float(term.costs[0, -1, -1])]
        limit = next(iter(self.problem.budgets.values()))
        lowered = budget - (limit - float(self.dense[0]))
        return math.fsum([*rows, -lowered]) > limit

    def chosen(self, positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(choices[position] for choices, position in zip(self.choices, positions, strict=True))


def linearised(problem: Problem) -> Problem:
    """HALP's problem as a separable one: one constant term, and one term per group over its own choices."""
    full = [len(group.widths) - 1 for group in problem.groups]
    dense = np.sum([term.at(full) for term in problem.terms], axis=0) + np.zeros(len(problem.budgets))
    costs = [np.zeros((len(problem.budgets), len(group.widths))) for group in problem.groups]
    for term in problem.terms:
        for group in term.writes.groups:
            costs[group] += _along(term, group, full, len(problem.groups[group].widths))
    terms = [Term(name="the network as it is", costs=dense[:, None, None])]
    for index, (member, cost) in enumerate(zip(problem.groups, costs, strict=True)):
        axis = Axis(groups=(index,), parts=(member.widths,))
        terms.append(Term(name=member.name, costs=cost[:, :, None], writes=axis))
    return replace(problem, terms=tuple(terms), blocks=())


def _along(term: Term, group: int, full: Sequence[int], num_choices: int) -> Floats:
    """A layer's extra cost over now for each choice of one of the groups it writes, ``[resource, choice]``."""
    rows = []
    for choice in range(num_choices):
        chosen = list(full)
        chosen[group] = choice
        rows.append(term.costs[:, term.writes.position(chosen), -1])
    return np.stack(rows, axis=1) - rows[-1][:, None]


def _linear(problem: Problem) -> _Linear:
    lines = linearised(problem)
    choices = problem.allowed or tuple(tuple(range(len(group.widths))) for group in problem.groups)
    return _Linear(
        problem=problem,
        choices=choices,
        costs=tuple(term.costs[:, list(options), 0] for term, options in zip(lines.terms[1:], choices, strict=True)),
        values=tuple(
            tuple(group.values[choice] for choice in options)
            for group, options in zip(problem.groups, choices, strict=True)
        ),
        budgets=np.asarray(list(problem.budgets.values())) - lines.terms[0].costs[:, 0, 0],
        dense=lines.terms[0].costs[:, 0, 0],
        scale=math.fsum(float(np.abs(term.costs[0]).max()) for term in problem.terms),
    )


def _solution(problem: Problem, choose: Callable[[_Linear, Effort, Clock], _Chosen], effort: Effort) -> Solution:
    """The chosen plan, priced at its true widths, with the optimum of the linear problem as its bound."""
    started = time.perf_counter()

    def is_late() -> bool:
        return effort.seconds is not None and time.perf_counter() - started > effort.seconds

    linear = _linear(problem)
    choices, bound = choose(linear, effort, is_late)
    choices = choices or _narrowest(linear)
    value = problem.value(choices)
    gap = (bound - value) / abs(value or bound or 1.0)
    return Solution(
        choices=choices,
        value=value,
        bound=max(bound, value),
        costs=problem.costs(choices),
        seconds=time.perf_counter() - started,
        status="optimal" if gap <= 1e-12 else "gap" if gap <= effort.gap else "limit",
    )


def _narrowest(linear: _Linear) -> tuple[int, ...]:
    """The last resort: every group at its cheapest, by its share of the first budget."""
    problem = linear.problem
    choices = linear.chosen([int(np.argmin(costs[0])) for costs in linear.costs])
    costs = problem.costs(choices)
    for name, cost in costs.items():
        if cost > problem.budgets[name]:
            raise InfeasibleBudgetError(
                f"no plan found meets the budget of {problem.budgets[name]:.6g} for {name}: the lowest that HALP's "
                f"costs reach is {above(cost)}; raise the budget, or choose the solver joint"
            )
    return choices


def _best_of_linear(linear: _Linear, effort: Effort, is_late: Clock) -> _Chosen:
    """The linear optimum; if it breaks a budget at its true widths, the optimum among plans within the budgets."""
    choices, bound = _optimum(linear, effort)
    if linear.problem.fits(choices):
        return choices, bound
    try:
        return _best_that_fits(linear, effort)
    except InfeasibleBudgetError:
        return None, bound
    except HalpError:  # out of time, or of space
        return _first_of_augmented(linear, effort, is_late)[0], bound


def _best_that_fits(linear: _Linear, effort: Effort) -> _Chosen:
    """The most valuable choices that meet every budget twice: at the present input widths and at the true ones."""
    problem, lines = linear.problem, linearised(linear.problem)
    terms = [replace(term, costs=np.concatenate([term.costs, np.zeros_like(term.costs)])) for term in problem.terms]
    terms += [replace(term, costs=np.concatenate([np.zeros_like(term.costs), term.costs])) for term in lines.terms]
    twice = dict(problem.budgets) | {
        f"{name} at the present input widths": most for name, most in problem.budgets.items()
    }
    both = replace(problem, terms=tuple(terms), budgets=twice, blocks=(), allowed=linear.choices)
    if bucket_tree(undominated(model_of(both, removable=range(len(both.groups)))), max_entries=MOST_ENTRIES) is None:
        raise HalpError("too many groups are tied together; choose the solver joint")
    return _maximum(both, effort)


def _maximum(problem: Problem, effort: Effort) -> tuple[tuple[int, ...], float]:
    """The best choices of a problem in which any group may be removed, and a bound."""

    def price(states: Indices) -> float | None:
        choices = states[: len(problem.groups)].tolist()
        return problem.value(choices) if problem.fits(choices) else None

    standing = maximise(model_of(problem, removable=range(len(problem.groups))), price, effort, tuple(problem.budgets))
    assert standing.states is not None
    return tuple(int(state) for state in standing.states[: len(problem.groups)]), standing.bound


def _optimum(linear: _Linear, effort: Effort) -> tuple[tuple[int, ...], float]:
    """The best choices of the linear problem, and a bound.

    Costs are rounded differences. So a little more than the budget is allowed, then the cost of the choices at the
    present input widths is summed anew, and choices above the budget are solved again with less room.
    """
    if len(linear.budgets) == 1:
        budget = float(linear.budgets[0])
        costs = tuple(tuple(cost[0].tolist()) for cost in linear.costs)
        slack = _ROUNDING * (linear.scale + abs(budget))
        least = math.fsum(min(cost) for cost in costs)
        if least > budget + slack:
            raise _out_of_reach(linear, least - budget)
        room = budget + slack
        for _ in range(_ROUNDINGS):
            answer = knapsack.solve(knapsack.Knapsack(costs=costs, values=linear.values, budget=room))
            choices = linear.chosen(answer.choices)
            if answer.cost <= budget - slack or not linear.is_above(choices, budget):
                break
            room = answer.cost - slack
            if least > room:
                raise _out_of_reach(linear, max(least - budget, math.ulp(budget)))
        return choices, answer.bound
    lines = linearised(linear.problem)
    names = tuple(linear.problem.budgets)
    limits = linear.budgets + lines.terms[0].costs[:, 0, 0]
    lines = replace(lines, allowed=linear.choices, budgets=dict(zip(names, limits.tolist(), strict=True)))

    try:
        return _maximum(lines, effort)
    except InfeasibleBudgetError as error:
        raise InfeasibleBudgetError(
            f"at the present input widths {error}; or choose the solver joint, which counts what narrower inputs save"
        ) from error


def _out_of_reach(linear: _Linear, missing: float) -> InfeasibleBudgetError:
    name, budget = next(iter(linear.problem.budgets.items()))
    return InfeasibleBudgetError(
        f"no plan meets the budget of {budget:.6g} for {name}: the lowest reachable at the present input widths is "
        f"{above(budget + missing)}; raise the budget, or choose the solver joint, which counts what narrower inputs "
        "save"
    )


def _first_of_augmented(linear: _Linear, effort: Effort, is_late: Clock) -> _Chosen:
    """The first of the recurrence's plans, best first, within the budgets at its true widths; skips grow on the way.

    Under a time limit, a coarse recurrence goes before the fine one; the latter may not end in time.
    """
    bound = _optimum(linear, effort)[1]
    coarse = None
    if effort.seconds is not None:
        coarse = _first_that_fits(linear, _augmented(linear, _FEWEST_CELLS), is_late)
    return _first_that_fits(linear, _augmented(linear, MOST_CELLS, is_late), is_late) or coarse, bound


def _first_that_fits(linear: _Linear, plans: Iterator[tuple[int, ...]], is_late: Clock) -> tuple[int, ...] | None:
    stride = 1.0
    for attempt in range(_ATTEMPTS):
        choices = next(plans, None)
        if choices is None or linear.problem.fits(choices):
            return choices
        if is_late():
            return None
        if attempt >= _ATTEMPTS // 4:
            stride *= _STRIDE
            next(itertools.islice(plans, int(stride) - 1, int(stride) - 1), None)
    return None


def _augmented(linear: _Linear, most_cells: int, is_late: Clock = lambda: False) -> Iterator[tuple[int, ...]]:
    """Yields the recurrence's plans, best first; several resources are summed under several weightings."""
    if len(linear.budgets) == 1:
        costs = [cost[0].tolist() for cost in linear.costs]
        num_items = sum(len(group) - 1 for group in costs)
        most_cells = min(most_cells, max(_FEWEST_CELLS, _MOST_STEPS // max(num_items, 1)))
        room = float(linear.budgets[0])
        plans = augmented_knapsack(costs, linear.values, room, most_cells=most_cells, is_late=is_late)
        yield from map(linear.chosen, plans)
        return
    spans = np.sum([np.ptp(cost, axis=1) for cost in linear.costs], axis=0)
    values: dict[tuple[int, ...], float] = {}
    for weights in _directions(len(spans)):
        weighed = [(weights / np.where(spans > 0, spans, 1.0)) @ cost for cost in linear.costs]
        plans = augmented_knapsack(
            [cost.tolist() for cost in weighed],
            linear.values,
            float(sum(cost.max() for cost in weighed)),
            most_cells=min(most_cells, _WEIGHED_CELLS),
            is_late=is_late,
            beside=linear.costs,
            budgets=linear.budgets,
        )
        for positions in itertools.islice(plans, _WEIGHED_PLANS):
            choices = linear.chosen(positions)
            values[choices] = linear.problem.value(choices)
    yield from sorted(values, key=lambda choices: (-values[choices], choices))


def _directions(num_resources: int) -> Iterator[Floats]:
    """Yields the weightings of several resources: all vectors of multiples of ``1 / parts`` with sum 1."""
    parts = _WEIGHINGS.get(num_resources, 2)
    for shares in itertools.product(range(parts + 1), repeat=num_resources):
        if sum(shares) == parts:
            yield np.asarray(shares) / parts
