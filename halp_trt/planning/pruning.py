"""The pruning loop: a generator of plans that plans and measures, and leaves training to its caller.

A user's own loop::

    for step in prune(graph, table, budget="60%", score=lambda plan: taylor(module, batches)):
        mask(module, step.plan)
        train(module)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.latency import LatencyTable
from halp_trt.planning.iterate import Measure, Schedule, iterate
from halp_trt.planning.method import Method
from halp_trt.planning.methods import DEFAULT_METHOD, get_method
from halp_trt.planning.network import removable_blocks
from halp_trt.planning.pricing import Lookup, as_lookup, counts_latency_us
from halp_trt.planning.prunability import prunability, why_nothing
from halp_trt.planning.schedule import exponential_budgets
from halp_trt.planning.step import Step
from halp_trt.planning.widths import WidthLimits, reachable_counts
from halp_trt.specs import Budget, ChannelGraph, PruningPlan, Saliency

__all__ = ["first_step", "prune"]


def prune(
    graph: ChannelGraph,
    lookup: Lookup | LatencyTable,
    *,
    budget: Budget | str,
    score: Callable[[PruningPlan], Saliency],
    method: Method | str = DEFAULT_METHOD,
    num_steps: int = 5,
    grid_step: int = 8,
    limits: WidthLimits | None = None,
    measure: Measure | None = None,
    start: Step | None = None,
    returns_channels: bool = False,
) -> Iterator[Step]:
    """Prunes a network to a budget: an iterator over steps, each with a plan to mask and train by.

    This call itself refuses a budget out of reach; no step is planned before the first is asked for.

    Args:
        graph: the network.
        lookup: latencies of layers: a table, or a function that may measure the layers asked for.
        budget: limit on the engine's latency, as a value or in words (``"60%"``, ``"4.2ms"``). A time is the engine's
            if ``measure`` is given, else the table's sum.
        score: function that gives the saliency of all channels, called before each step with the plan so far.
        method: a value, or a name in ``METHODS``.
        num_steps: number of pruning steps, ``k`` in the paper.
        grid_step: channels between two widths.
        limits: limits on the channels removed from a group; None for no limit.
        measure: function that times the engine of a plan in turns with the dense one and gives both latencies in
            microseconds, dense first; it closes the loop between prediction and measurement.
        start: a step of an earlier iteration to go on from; None for the dense network.
        returns_channels: True if removed channels may come back, as soft masks allow.

    Returns:
        The steps; each plan carries the calibration by all engines that were timed before its own.

    Raises:
        InfeasibleBudgetError: the budget cannot be reached; names the lowest latency that can.
        MissingLatencyError: the table lacks a layer.
        UsageError: the budget is not one, the method is unknown, or it lets channels return but the masks do not.
    """
    lookup, method = as_lookup(lookup), get_method(method)
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if not isinstance(budget, Budget):
        raise UsageError(f"a budget is a text or a Budget, got {budget!r}; try '60%' or '4.2ms'")
    if not (method.shrinks_only or returns_channels):
        raise UsageError(
            "this method lets channels return, but masks keep what was removed at zero; use masks that let channels "
            "return (returns_channels), or a method that only shrinks"
        )
    start = start or first_step(graph, lookup, measure)
    scale = start.slope if budget.fraction is None else 1.0
    target_us = budget.latency_us(start.dense_us * scale) / scale  # a share needs no rounding there and back
    schedule = Schedule(budgets=exponential_budgets(start.dense_us, target_us, num_steps))
    chunks = method.chunks(graph, lookup, grid_step=grid_step)
    bound = _Bound(method=method, limits=limits or WidthLimits(), returns_channels=returns_channels)
    _check_reachable(start, schedule, bound, lookup, chunks)
    return iterate(start, schedule, method=bound, score=score, lookup=lookup, chunks=chunks, measure=measure)


def first_step(graph: ChannelGraph, lookup: Lookup | LatencyTable, measure: Measure | None = None) -> Step:
    """The start of an iteration: the dense network's latency by the table, and as measured if ``measure`` is given."""
    dense_us, dense = counts_latency_us(graph, as_lookup(lookup), graph.dense_counts()), PruningPlan.dense(graph)
    slope = measure(dense)[0] / dense_us if measure is not None else 1.0
    return Step(index=0, plan=dense, dense_us=dense_us, slope=slope)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """A method within limits on the channels removed."""

    method: Method
    limits: WidthLimits
    returns_channels: bool

    def __call__(
        self, current: PruningPlan, saliency: Saliency, lookup: Lookup, *, budget_us: float, steps: Mapping[str, int]
    ) -> PruningPlan:
        least = self.limits.least_counts(current.graph, current.counts())
        return self.method.step(self.base(current), saliency, lookup, budget_us=budget_us, steps=steps, least=least)

    def base(self, current: PruningPlan) -> PruningPlan:
        """The plan whose channels the method may keep."""
        is_whole = self.returns_channels and self.method.shrinks_only
        return PruningPlan.dense(current.graph) if is_whole else current

    def narrowest(self, start: Step, schedule: Schedule, chunks: Mapping[str, int]) -> dict[str, int]:
        """The lowest counts that a schedule can reach; without limits, removable blocks count as gone."""
        num_steps = len(schedule.budgets) + schedule.num_extra - start.index
        counts = reachable_counts(start.plan, steps=chunks, num_steps=num_steps, limits=self.limits)
        if self.method.removes_blocks and not self.limits.is_limiting:
            for inside in removable_blocks(start.plan.graph).values():
                counts |= dict.fromkeys(inside, 0)
        return counts


def _check_reachable(start: Step, schedule: Schedule, bound: _Bound, lookup: Lookup, chunks: Mapping[str, int]) -> None:
    """Refuses a budget out of reach before any training.

    The narrowest network need not be the fastest: if it is too slow, the method plans once with equal scores.

    Raises:
        InfeasibleBudgetError: the budget cannot be met; the message names the lowest reachable latency.
    """
    graph, target_us = start.plan.graph, schedule.budgets[-1]
    narrowest = bound.narrowest(start, schedule, chunks)
    if counts_latency_us(graph, lookup, narrowest) <= target_us:
        return
    part = prunability(graph)
    if not part.num_prunable:
        raise InfeasibleBudgetError(
            f"the budget is {target_us / start.dense_us:.1%} of the dense latency by the table, but {why_nothing(part)}"
        )
    alike = Saliency(scores={group.name: (1.0,) * group.num_channels for group in graph.prunable_groups})

    def attempt(least: Mapping[str, int] | None) -> InfeasibleBudgetError | None:
        try:
            bound.method.step(bound.base(start.plan), alike, lookup, budget_us=target_us, steps=chunks, least=least)
        except InfeasibleBudgetError as error:
            return error
        return None

    is_limited = bound.limits.is_limiting
    error = attempt({name: count for name, count in narrowest.items() if count} if is_limited else None)
    if error is not None:
        binds = is_limited and attempt(None) is None
        raise InfeasibleBudgetError(
            f"the budget is {target_us / start.dense_us:.1%} of the dense latency by the table, but "
            f"{error}" + ("; it could be met without --max-prune and --max-prune-step" if binds else "")
        )
