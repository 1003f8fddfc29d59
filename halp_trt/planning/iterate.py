"""The iterative schedule: many small cuts with training in between, each planned at the widths of the moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.step import Step, Timed
from halp_trt.specs import PruningPlan, Saliency

__all__ = ["Measure", "Schedule", "iterate"]

Measure = Callable[[PruningPlan], tuple[float, float]]
"""Latencies in microseconds of the dense engine and of a plan's engine, timed in turns."""

_SPENT = 0.98
"""A plan that uses this share of its budget is not planned again."""
_CLOSE, _AIM, _SAFE = 0.97, 0.982, 0.99
"""Shares of the budget that the last step's engine, as measured, should use: at least, about, at most."""
_STRIDE, _NARROW = 1.03, 0.002
"""How far a limit is raised where nothing was too slow yet, and the gap between limits that is not searched."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How far to prune and in how many steps.

    Attributes:
        budgets: of every scheduled step, on the table's scale; the last is the target.
        num_extra: how many more there may be, where the measured engine is still above the budget.
        num_retries: how often a step is planned again where its plan leaves budget over; 0 is the papers' way.
        num_closing: how often the last step is planned again for what its engine, as measured, leaves or lacks.
    """

    budgets: tuple[float, ...]
    num_extra: int = 6
    num_retries: int = 3
    num_closing: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A plan and, where it was timed, the latencies of the dense engine and its own."""

    plan: PruningPlan
    measured: tuple[float, float] | None
    correction: float

    @classmethod
    def of(cls, plan: PruningPlan, dense_us: float, measure: Measure | None) -> _Trial:
        """The plan, timed where it can be."""
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
) -> Iterator[Step]:
    """Plans step by step (arXiv:2210.06659, sec. 3.3): score, plan under the step's budget, hand the plan out.

    Between two steps the caller masks the network and trains it; ``score`` reads what that training gathered. Differs
    from HALP in that a step whose plan leaves budget over is planned again, and that the engine of every step may be
    timed: the next budget is divided by how much slower than predicted it ran, the last step is planned again until its
    engine uses the budget as measured, and steps are added while it does not meet it.

    Args:
        start: of the dense network, or where an earlier iteration stopped.
        schedule: budgets on the table's scale.
        method: the step of one of ``METHODS``.
        score: saliency of all channels at the present plan.
        lookup: measurements of layers.
        chunks: of every prunable group, from ``channel_steps``.
        measure: times an engine of a plan; None trusts the table.

    Raises:
        InfeasibleBudgetError: a step cannot meet its budget.
    """
    budgets, step = schedule.budgets, start
    while step.index < len(budgets) or _too_slow(step, schedule):
        plan_at = partial(
            _plan_at, step, schedule, method=method, saliency=score(step.plan), lookup=lookup, chunks=chunks
        )
        trial_of = partial(_Trial.of, dense_us=step.dense_us, measure=measure)
        if step.index + 1 < len(budgets):
            trials = [trial_of(plan_at(budgets[step.index] / step.correction))]
            chosen = trials[0]
        else:
            chosen, trials = _close(plan_at, trial_of, budgets[-1], step.correction, schedule.num_closing)
        step = _after(step, chosen, trials)
        yield step


def _after(step: Step, chosen: _Trial, trials: Sequence[_Trial]) -> Step:
    """The step that ends with a plan, all that were timed on the way written down."""
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
    """One step's plan on the table's scale."""
    return _spend(
        lambda limit_us: method(step.plan, saliency, lookup, budget_us=limit_us, steps=chunks),
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
    """The last step's trial and all that were made: it is planned again until its engine uses the budget, as measured.

    Of the plans whose engines meet the budget the most salient; the fastest if none does.
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
        if _CLOSE <= used <= _SAFE:
            break
        low_us, high_us = (low_us, min(high_us, plan.latency_us)) if used > _SAFE else (max(low_us, limit_us), high_us)
        limit_us = _AIM * target_us / trial.correction
        if not low_us < limit_us < high_us:
            limit_us = (low_us + high_us) / 2 if math.isfinite(high_us) else low_us * _STRIDE
        if high_us - low_us < _NARROW * low_us:
            break
    trials = [trial for _, trial in tried]
    met = [trial for used, trial in tried if used <= _SAFE] or [t for used, t in tried if used <= 1 + _ROUNDING]
    if met:
        return max(met, key=lambda trial: trial.plan.saliency), trials
    return min(tried, key=itemgetter(0))[1], trials


def _spend(plan_at: Callable[[float], PruningPlan], budget_us: float, from_us: float, num_retries: int) -> PruningPlan:
    """A plan that uses its budget: planned again at a higher one as long as the true latency stays within.

    HALP prices a step at the input widths before it, so that its plan is faster than its budget by what the consumers
    save; over few steps that throws saliency away. Channels that are gone do not return, so every step spends its own.
    """
    best = plan_at(budget_us)
    low_us, high_us = budget_us, from_us
    for attempt in range(num_retries):
        if best.latency_us >= _SPENT * budget_us or high_us - low_us < (1 - _SPENT) * budget_us:
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
    late = step.index - len(schedule.budgets)
    return late < schedule.num_extra and step.plan.latency_us * step.correction > schedule.budgets[-1] * (1 + _ROUNDING)
