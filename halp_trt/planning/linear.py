"""HALP's problem: the width that a layer reads stands still while the width that it writes is chosen.

A choice costs what the layers that write its group take at that width, everything else as it is now, so what narrower
inputs save is not credited (arXiv:2210.06659, sec. 3.1). As in the papers width 0 is a choice like any other, where the
problem offers it: it may cut a network in two, and the value of a dead block's last layer counts all the same; limits
forbid it. Differs from HALP in that a plan is priced at its true widths in the end and planned again under less budget
where it breaks one, as it can where a narrower layer is slower.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning import knapsack
from halp_trt.planning.augmented import MOST_CELLS, augmented_knapsack
from halp_trt.planning.joint import Effort, maximise
from halp_trt.planning.model import model_of
from halp_trt.planning.problem import Axis, Problem, Solution, Term, above

__all__ = ["exact", "halp", "linearised"]

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

Clock = Callable[[], bool]
"""Whether the time is up."""

_ATTEMPTS = 200
_FIRST_STEP, _GROWTH, _HALVINGS, _CLOSE = 1e-9, 1.2, 12, 1e-4
"""How far budgets are lowered at first, as a part of what costs span, and how they are searched from there."""
_STRIDE = 1.08
_ROUNDING, _ROUNDINGS = 1e-14, 8
_FEWEST_CELLS, _MOST_STEPS = 1 << 12, 1 << 27
"""Cells in a row of the recurrence, and its cells in all rows, from where on they are made coarser."""
_WEIGHINGS, _WEIGHED_CELLS = 24, 1 << 14


def exact(problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
    """The optimum of HALP's problem.

    Args:
        problem: groups, layers, budgets.
        gap, seconds: see ``joint``; with one resource the optimum is found anyhow.

    Raises:
        InfeasibleBudgetError: no choice meets the budgets at the present input widths.
    """
    return _solution(problem, _best_of_linear, Effort(gap=gap, seconds=seconds))


def halp(problem: Problem, *, gap: float = 1e-4, seconds: float | None = None) -> Solution:
    """What the papers' augmented knapsack chooses; its bound is the optimum of the same problem.

    The papers know one resource. Here several are summed, each weighed so that none exceeds its budget.
    """
    return _solution(problem, _first_of_augmented, Effort(gap=gap, seconds=seconds))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Linear:
    """HALP's problem: ``costs[group][resource, choice]`` of the choices allowed, and what is left of the budgets.

    ``dense`` is what the network costs as it is, ``scale`` the size of the numbers that sums are made of.
    """

    problem: Problem
    choices: tuple[tuple[int, ...], ...]
    costs: tuple[Floats, ...]
    values: tuple[tuple[float, ...], ...]
    budgets: Floats
    dense: Floats
    scale: float

    def is_above(self, choices: Sequence[int], budget: float) -> bool:
        """Whether choices exceed what is left of the first budget, layers summed as they are and rounded once."""
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
    """HALP's problem as one in which every group has costs of its own, beside what cannot be changed."""
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
    """What a layer costs more than now when one of the groups that it writes is at each of its choices."""
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


def _solution(
    problem: Problem, choose: Callable[[_Linear, Effort, Clock], tuple[int, ...] | None], effort: Effort
) -> Solution:
    """What is chosen, priced at its true widths, with the optimum of the linear problem as its bound."""
    started = time.perf_counter()
    is_late = lambda: effort.seconds is not None and time.perf_counter() - started > effort.seconds  # noqa: E731
    linear = _linear(problem)
    bound = _optimum(linear, effort)[1]
    choices = choose(linear, effort, is_late) or _narrowest(linear)
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


def _best_of_linear(linear: _Linear, effort: Effort, is_late: Clock) -> tuple[int, ...] | None:
    """The optimum; where that breaks a budget at its true widths, the optimum of the highest budgets found to do.

    Budgets are lowered in growing steps until a plan fits, and what lies between the last two is then halved.
    """
    problem, span = linear.problem, np.sum([np.ptp(cost, axis=1) for cost in linear.costs], axis=0)
    above, found = linear.budgets, None
    step = _FIRST_STEP if len(span) == 1 else 1e-3
    for _ in range(_ATTEMPTS):
        choices = _optimum_if_any(linear, effort)
        if choices is not None and problem.fits(choices):
            found = choices
            break
        if choices is None or is_late():
            break
        positions = [options.index(choice) for options, choice in zip(linear.choices, choices, strict=True)]
        spent = np.sum([cost[:, at] for cost, at in zip(linear.costs, positions, strict=True)], axis=0)
        above = np.minimum(linear.budgets, spent)
        linear = replace(linear, budgets=above - step * span)
        step *= _GROWTH
    below = linear.budgets
    for _ in range(_HALVINGS):
        if is_late() or (above - below <= _CLOSE * span).all():
            break
        middle = (above + below) / 2
        choices = _optimum_if_any(replace(linear, budgets=middle), effort)
        if choices is None or problem.fits(choices):
            below, found = middle, max((plan for plan in (found, choices) if plan), key=problem.value, default=None)
        else:
            above = middle
    return found


def _optimum_if_any(linear: _Linear, effort: Effort) -> tuple[int, ...] | None:
    try:
        return _optimum(linear, effort)[0]
    except InfeasibleBudgetError:
        return None


def _optimum(linear: _Linear, effort: Effort) -> tuple[tuple[int, ...], float]:
    """The best choices of the linear problem, and a bound.

    Costs are differences, which are rounded. So a little more than the budget is allowed, and what the choices cost at
    the present input widths is summed anew; choices that are above the budget by rounding are not counted.
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
            found = knapsack.solve(knapsack.Problem(costs=costs, values=linear.values, budget=room))
            choices = linear.chosen(found.choices)
            if found.cost <= budget - slack or not linear.is_above(choices, budget):
                break
            room = found.cost - slack
            if least > room:
                raise _out_of_reach(linear, max(least - budget, math.ulp(budget)))
        return choices, found.bound
    lines = linearised(linear.problem)
    names = tuple(linear.problem.budgets)
    limits = linear.budgets + lines.terms[0].costs[:, 0, 0]
    lines = replace(lines, allowed=linear.choices, budgets=dict(zip(names, limits.tolist(), strict=True)))

    def price(states: Indices) -> float | None:
        choices = states.tolist()
        return lines.value(choices) if lines.fits(choices) else None

    try:
        standing = maximise(model_of(lines, removable=range(len(lines.groups))), price, effort, names)
    except InfeasibleBudgetError as error:
        raise InfeasibleBudgetError(
            f"at the present input widths {error}; or choose the solver joint, which counts what narrower inputs save"
        ) from error
    assert standing.states is not None
    return tuple(int(state) for state in standing.states[: len(lines.groups)]), standing.bound


def _out_of_reach(linear: _Linear, missing: float) -> InfeasibleBudgetError:
    name, budget = next(iter(linear.problem.budgets.items()))
    return InfeasibleBudgetError(
        f"no plan meets the budget of {budget:.6g} for {name}: the lowest reachable at the present input widths is "
        f"{above(budget + missing)}; raise the budget, or choose the solver joint, which counts what narrower inputs "
        "save"
    )


def _first_of_augmented(linear: _Linear, effort: Effort, is_late: Clock) -> tuple[int, ...] | None:
    """Of the recurrence's plans, best first, one that meets the budgets at its true widths; ever more are skipped.

    Under a time limit a coarse recurrence goes before the fine one, which may not end in time.
    """
    coarse = None
    if effort.seconds is not None:
        coarse = _first_that_fits(linear, _augmented(linear, _FEWEST_CELLS), is_late)
    return _first_that_fits(linear, _augmented(linear, MOST_CELLS, is_late), is_late) or coarse


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
    """The papers' recurrence; with several resources on their sum, weighed by what they exceed their budgets."""
    if len(linear.budgets) == 1:
        costs = [cost[0].tolist() for cost in linear.costs]
        num_items = sum(len(group) - 1 for group in costs)
        most_cells = min(most_cells, max(_FEWEST_CELLS, _MOST_STEPS // max(num_items, 1)))
        room = float(linear.budgets[0])
        plans = augmented_knapsack(costs, linear.values, room, most_cells=most_cells, is_late=is_late)
        yield from map(linear.chosen, plans)
        return
    most_cells = min(most_cells, _WEIGHED_CELLS)
    weights = np.eye(len(linear.budgets))[0]
    scale = np.maximum(np.abs(linear.budgets), 1e-12)
    for _ in range(_WEIGHINGS):
        costs = [(weights / scale @ cost).tolist() for cost in linear.costs]
        room = float(weights / scale @ linear.budgets)
        plans = augmented_knapsack(costs, linear.values, room, most_cells=most_cells, is_late=is_late)
        positions = next(plans, None)
        if positions is None:
            return
        spent = np.sum([cost[:, at] for cost, at in zip(linear.costs, positions, strict=True)], axis=0)
        over = np.maximum(spent - linear.budgets, 0) / scale
        if not over.any():
            yield linear.chosen(positions)
        weights = weights + (over / over.max() if over.any() else np.ones(len(over))) * weights.sum() / 2
