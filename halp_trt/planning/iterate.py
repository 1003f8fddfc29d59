"""The iterative schedule: many small cuts with training in between, each planned at the widths of the moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning.amounts import ResourceBudgets
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.step import Step, Timed
from halp_trt.specs import PruningPlan, Saliency

__all__ = ["Choice", "Measure", "Schedule", "iterate"]

Choice = Callable[[Saliency, Callable[[Callable[..., PruningPlan], Saliency], PruningPlan]],
                  tuple[Callable[..., PruningPlan], Saliency]]  # fmt: skip
"""A function that gets a step's scores, and a function from method and scores to a plan for the step's budget. It gives
the method and the scores that the step is planned by."""

Measure = Callable[[PruningPlan], tuple[float, float]]
"""Latencies in microseconds of the dense engine and of a plan's engine, timed in turns."""

_SPENT_SHARE = 0.98
"""A plan that uses this share of its budget is not planned again."""
_LEAST_SHARE = 0.97
"""Smallest share of the budget that the last step's engine, as measured, should use."""
_AIMED_SHARE = 0.982
"""Share of the budget that the last step's engine is planned for."""
_MOST_SHARE = 0.99
"""Largest share of the budget that the last step's engine, as measured, should use; the rest is for noise."""
_LIMIT_GROWTH = 1.03
"""Factor by which the limit of a plan grows as long as no engine was too slow."""
_LEAST_GAP = 0.002
"""Relative gap between a met and a missed limit below which bisection stops."""
_ROUNDING = 1e-9
"""Relative rounding error allowed to a sum of latencies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The budgets of an iteration, and limits on its retries.

    Attributes:
        budgets: budget of every scheduled step, on the table's scale; the last is the target.
        resources: limits on other resources in every scheduled step; empty for none.
        num_extra: most further steps, taken while the measured engine is above the budget.
        num_retries: most times a step is planned again if its plan leaves budget over; 0 is the papers' way.
        num_closing: most times the last step is planned again if its engine, as measured, misses the budget or leaves
            too much of it.
    """

    budgets: tuple[float, ...]
    resources: tuple[ResourceBudgets, ...] = ()
    num_extra: int = 6
    num_retries: int = 3
    num_closing: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A plan and, if it was timed, the latencies of the dense engine and its own."""

    plan: PruningPlan
    measured: tuple[float, float] | None
    correction: float

    @classmethod
    def of(cls, plan: PruningPlan, dense_us: float, measure: Measure | None) -> _Trial:
        """The trial of a plan, timed if ``measure`` is given."""
        if measure is None:
            return cls(plan=plan, measured=None, correction=1.0)
        beside_us, engine_us = measured = measure(plan)
        timed = Timed(step=0, sum_us=plan.latency_us, dense_us=beside_us, engine_us=engine_us)
        return cls(plan=plan, measured=measured, correction=timed.correction(dense_us))


def iterate(
    start: Step,
    schedule: Schedule,
    *,
    method: Callable[..., PruningPlan],
    score: Callable[[PruningPlan], Saliency],
    lookup: Lookup,
    chunks: Mapping[str, int],
    measure: Measure | None = None,
    choose: Choice | None = None,
) -> Iterator[Step]:
    """Plans step by step (arXiv:2210.06659, sec. 3.3): score, plan under the step's budget, yield the plan.

    Between two steps the caller masks the network and trains it; ``score`` reads the gradients of that training.
    Differences from HALP:

    - A step whose plan leaves budget over is planned again.
    - The engine of every step may be timed. The next budget is then divided by ``measured / predicted`` latency.
    - The last step is planned again until its engine, as measured, uses the budget.
    - Steps are added while the engine does not meet the budget and a plan can be found that is narrower.

    Args:
        start: the dense network's step, or the last step of an earlier iteration.
        schedule: budgets on the table's scale.
        method: the step of one of ``METHODS``.
        score: function that gives the saliency of all channels at the present plan.
        lookup: measurements of layers.
        chunks: chunk of every prunable group, from ``channel_steps``.
        measure: function that times the engine of a plan; None trusts the table.
        choose: chooses method and scores of every step; None takes ``method`` and ``score``.

    Raises:
        InfeasibleBudgetError: a step cannot meet its budget.
    """
    budgets, step = schedule.budgets, start
    while step.index < len(budgets) or _too_slow(step, schedule):
        limit_us = budgets[min(step.index, len(budgets) - 1)] / step.correction
        by, saliency = method, score(step.plan)
        of_step = partial(_plan_at, step, schedule, lookup=lookup, chunks=chunks)
        if choose is not None:
            by, saliency = choose(saliency, partial(_plan_by, of_step, limit_us))
        plan_at = partial(of_step, method=by, saliency=saliency)
        trial_of = partial(_Trial.of, dense_us=step.dense_us, measure=measure)
        if step.index + 1 < len(budgets):
            trials = [trial_of(plan_at(limit_us))]
            chosen = trials[0]
        else:
            try:
                chosen, trials = _close(plan_at, trial_of, budgets[-1], step.correction, schedule.num_closing)
            except InfeasibleBudgetError:
                if step.index < len(budgets):
                    raise
                return  # an added step finds nothing narrower: the plan there is stands, and its engine is judged
        step = _after(step, chosen, trials)
        yield step


def _plan_by(
    of_step: Callable[..., PruningPlan], limit_us: float, method: Callable[..., PruningPlan], saliency: Saliency
) -> PruningPlan:
    """The plan of a step by some method and scores, for its budget on the table's scale."""
    return of_step(limit_us, method=method, saliency=saliency)


def _after(step: Step, chosen: _Trial, trials: Sequence[_Trial]) -> Step:
    """The step that ends with the chosen trial; all timed trials are among its engines."""
    engines = [
        Timed(
            step=step.index + 1,
            sum_us=trial.plan.latency_us,
            dense_us=trial.measured[0],
            engine_us=trial.measured[1],
            is_chosen=trial is chosen,
        )
        for trial in trials
        if trial.measured is not None
    ]
    return replace(step, index=step.index + 1, plan=chosen.plan, engines=(*step.engines, *engines))


def _plan_at(
    step: Step,
    schedule: Schedule,
    budget_us: float,
    *,
    method: Callable[..., PruningPlan],
    saliency: Saliency,
    lookup: Lookup,
    chunks: Mapping[str, int],
) -> PruningPlan:
    """The plan of one step for a budget on the table's scale."""
    due = schedule.resources[step.index : step.index + 1] or schedule.resources[-1:]
    others = {"resources": due[0]} if due else {}
    return _spend(
        lambda limit_us: method(step.plan, saliency, lookup, budget_us=limit_us, steps=chunks, **others),
        budget_us,
        step.plan.latency_us or step.dense_us,
        schedule.num_retries,
    )


def _close(
    plan_at: Callable[[float], PruningPlan],
    trial_of: Callable[[PruningPlan], _Trial],
    target_us: float,
    correction: float,
    num_retries: int,
) -> tuple[_Trial, list[_Trial]]:
    """The chosen trial of the last step, and all its trials.

    The step is planned again, at a limit found by bisection, until its engine, as measured, uses the budget. The most
    salient plan is chosen among those whose engines meet the budget; the fastest plan if none does.
    """
    limit_us, low_us, high_us = target_us / correction, 0.0, math.inf
    tried: list[tuple[float, _Trial]] = []
    for _ in range(1 + num_retries):
        try:
            plan = plan_at(limit_us)
        except InfeasibleBudgetError:
            if not tried:
                raise
            break
        before = next((trial for _, trial in tried if trial.plan.kept == plan.kept), None)
        trial = before or trial_of(plan)
        used = plan.latency_us * trial.correction / target_us
        if before is None:
            tried.append((used, trial))
        if _LEAST_SHARE <= used <= _MOST_SHARE:
            break
        if used > _MOST_SHARE:
            high_us = min(high_us, plan.latency_us)
        else:
            low_us = max(low_us, limit_us)
        limit_us = _AIMED_SHARE * target_us / trial.correction
        if not low_us < limit_us < high_us:
            limit_us = (low_us + high_us) / 2 if math.isfinite(high_us) else low_us * _LIMIT_GROWTH
        if high_us - low_us < _LEAST_GAP * low_us:
            break
    trials = [trial for _, trial in tried]
    met = [trial for used, trial in tried if used <= _MOST_SHARE] or [t for used, t in tried if used <= 1 + _ROUNDING]
    if met:
        return max(met, key=lambda trial: trial.plan.saliency), trials
    return min(tried, key=itemgetter(0))[1], trials


def _spend(plan_at: Callable[[float], PruningPlan], budget_us: float, from_us: float, num_retries: int) -> PruningPlan:
    """A plan that uses its budget: planned again at a higher limit as long as its true latency stays in budget.

    HALP prices a step at the input widths before it, so its plan is faster than the budget by the savings in the
    layers that read the pruned groups. Over few steps this wastes saliency, and removed channels do not return, so
    every step spends its own budget.
    """
    best = plan_at(budget_us)
    low_us, high_us = budget_us, from_us
    for attempt in range(num_retries):
        if best.latency_us >= _SPENT_SHARE * budget_us or high_us - low_us < (1 - _SPENT_SHARE) * budget_us:
            break
        limit_us = (low_us + high_us) / 2
        if attempt == 0 and best.latency_us < from_us:
            limit_us = from_us - (from_us - budget_us) ** 2 / (from_us - best.latency_us)
        plan = plan_at(limit_us)
        if plan.latency_us <= budget_us:
            low_us, best = limit_us, plan if plan.saliency > best.saliency else best
        else:
            high_us = limit_us
    return replace(best, budget_us=budget_us)


def _too_slow(step: Step, schedule: Schedule) -> bool:
    """True if the engine, as measured, exceeds the target and extra steps are left."""
    late = step.index - len(schedule.budgets)
    return late < schedule.num_extra and step.plan.latency_us * step.correction > schedule.budgets[-1] * (1 + _ROUNDING)
