"""The iterative schedule: many small cuts with training in between, each planned at the widths of the moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.schedule import exponential_budgets
from halp_trt.specs import PruningPlan, Saliency

__all__ = ["Schedule", "Step", "iterate"]

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
        dense_us: latency of the dense network by the table.
        target_us: the budget on the same scale.
        num_steps: scheduled steps.
        num_extra: how many more there may be, where the measured engine is still above the budget.
        num_retries: how often a step is planned again where its plan leaves budget over; 0 is the papers' way.
        num_closing: how often the last step is planned again for what its engine, as measured, leaves or lacks.
    """

    dense_us: float
    target_us: float
    num_steps: int
    num_extra: int = 6
    num_retries: int = 3
    num_closing: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where the iteration stands; enough to go on from.

    Attributes:
        index: steps done.
        plan: the plan of the last one.
        correction: measured share of the dense latency / share that the table predicts, of that plan; 1 unmeasured.
    """

    index: int
    plan: PruningPlan
    correction: float = 1.0


def iterate(
    start: Step,
    schedule: Schedule,
    *,
    method: Callable[..., PruningPlan],
    score: Callable[[PruningPlan], Saliency],
    lookup: Lookup,
    chunks: Mapping[str, int],
    correct: Callable[[PruningPlan], float] = lambda plan: 1.0,
) -> Iterator[Step]:
    """Plans step by step (arXiv:2210.06659, sec. 3.3): score, plan under the step's budget, hand the plan out.

    Between two steps the caller masks the network and trains it; ``score`` reads what that training gathered. Differs
    from HALP in that a step whose plan leaves budget over is planned again, and that the engine of every step may be
    timed: the next budget is divided by how much slower than predicted it ran, the last step is planned again until its
    engine uses the budget as measured, and steps are added while it does not meet it.

    Args:
        start: ``Step(index=0, plan=PruningPlan.dense(graph))``, or where an earlier iteration stopped.
        schedule: budgets on the table's scale.
        method: ``halp_step`` or another of ``METHODS``.
        score: saliency of all channels at the present plan.
        lookup: measurements of layers.
        chunks: of every prunable group, from ``channel_steps``.
        correct: measures an engine of the plan; see ``Step.correction``.

    Raises:
        InfeasibleBudgetError: a step cannot meet its budget.
    """
    budgets = exponential_budgets(schedule.dense_us, schedule.target_us, schedule.num_steps)
    step = start
    while step.index < len(budgets) or _too_slow(step, schedule):
        plan_at = partial(
            _plan_at, step.plan, schedule, method=method, saliency=score(step.plan), lookup=lookup, chunks=chunks
        )
        index = step.index + 1
        budget_us = budgets[min(step.index, len(budgets) - 1)]
        if index < len(budgets):
            plan = plan_at(budget_us / step.correction)
            step = Step(index=index, plan=plan, correction=correct(plan))
        else:
            plan, correction = _close(plan_at, correct, budget_us, step.correction, schedule.num_closing)
            step = Step(index=index, plan=plan, correction=correction)
        yield step


def _plan_at(
    current: PruningPlan,
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
        lambda limit_us: method(current, saliency, lookup, budget_us=limit_us, steps=chunks),
        budget_us,
        current.latency_us or schedule.dense_us,
        schedule.num_retries,
    )


def _close(
    plan_at: Callable[[float], PruningPlan],
    correct: Callable[[PruningPlan], float],
    target_us: float,
    correction: float,
    num_retries: int,
) -> tuple[PruningPlan, float]:
    """The last step's plan and its correction: planned again until its engine uses the budget, as measured.

    Of the plans whose engines meet the budget the most salient; the fastest if none does.
    """
    limit_us, low_us, high_us = target_us / correction, 0.0, math.inf
    tried: list[tuple[float, PruningPlan, float]] = []
    for _ in range(1 + num_retries):
        try:
            plan = plan_at(limit_us)
        except InfeasibleBudgetError:
            if not tried:
                raise
            break
        before = next((found for _, other, found in tried if other.kept == plan.kept), None)
        found = correct(plan) if before is None else before
        used = plan.latency_us * found / target_us
        if before is None:
            tried.append((used, plan, found))
        if _CLOSE <= used <= _SAFE:
            break
        low_us, high_us = (low_us, min(high_us, plan.latency_us)) if used > _SAFE else (max(low_us, limit_us), high_us)
        limit_us = _AIM * target_us / found
        if not low_us < limit_us < high_us:
            limit_us = (low_us + high_us) / 2 if math.isfinite(high_us) else low_us * _STRIDE
        if high_us - low_us < _NARROW * low_us:
            break
    met = [(plan.saliency, plan, found) for used, plan, found in tried if used <= _SAFE] or [
        (plan.saliency, plan, found) for used, plan, found in tried if used <= 1 + _ROUNDING
    ]
    _, plan, correction = max(met, key=itemgetter(0)) if met else min(tried, key=itemgetter(0))
    return plan, correction


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
    late = step.index - schedule.num_steps
    return late < schedule.num_extra and step.plan.latency_us * step.correction > schedule.target_us * (1 + _ROUNDING)
