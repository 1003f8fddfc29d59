"""The pruning loop: a generator of plans that plans and measures, and leaves training to its caller.

A user's own loop::

    for step in prune(graph, table, budget="60%", score=lambda plan: taylor(module, batches)):
        mask(module, step.plan)
        train(module)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.latency import LatencyTable
from halp_trt.planning.amounts import ResourceBudgets, resource_schedule
from halp_trt.planning.candidates import Candidate, Choose
from halp_trt.planning.iterate import Choice, Measure, Schedule, iterate
from halp_trt.planning.method import Method
from halp_trt.planning.methods import DEFAULT_METHOD, check_keeps_resources, get_method
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
    choose: Choose | None = None,
    others: Mapping[str, str] | None = None,
    batch_size: int = 1,
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
        choose: chooses one of several candidates in every step; None takes the method's own plan.
        others: limits on ``RESOURCES``: a share of the dense network's, or a number (``{"relus": "50k"}``).
        batch_size: the target's batch size, which resources are counted for.

    Returns:
        The steps; each plan carries the calibration by all engines that were timed before its own.

    Raises:
        InfeasibleBudgetError: the budget cannot be reached; names the lowest latency that can.
        MissingLatencyError: the table lacks a layer.
        UsageError: the budget is not one, the method is unknown, or it lets channels return but the masks do not.
    """
    lookup, method, budget = as_lookup(lookup), get_method(method), _read_budget(budget)
    _check_method(method, returns_channels=returns_channels, has_others=bool(others))
    start = start or first_step(graph, lookup, measure)
    ramps = resource_schedule(graph, others, num_steps=num_steps, batch_size=batch_size) if others else ()
    schedule = Schedule(budgets=_budgets(start, budget, num_steps), resources=ramps)
    chunks = method.chunks(graph, lookup, grid_step=grid_step)
    bound = _Bound(method=method, limits=limits or WidthLimits(), returns_channels=returns_channels)
    _check_reachable(start, schedule, bound, lookup, chunks)
    choice = None if choose is None else _choice(choose, bound)
    return iterate(start, schedule, method=bound, score=score, lookup=lookup, chunks=chunks, measure=measure,
                   choose=choice)  # fmt: skip


def _choice(choose: Choose, bound: _Bound) -> Choice:
    """The choice among candidates, each of which keeps within the limits on channels removed."""

    def chosen(
        saliency: Saliency, plan_by: Callable[[Callable[..., PruningPlan], Saliency], PruningPlan]
    ) -> tuple[Callable[..., PruningPlan], Saliency]:
        own = Candidate(name="own", method=bound.method, saliency=saliency)
        found = choose(own, lambda one: plan_by(replace(bound, method=one.method), one.saliency))
        return replace(bound, method=found.method), found.saliency

    return chosen


def _check_method(method: Method, *, returns_channels: bool, has_others: bool) -> None:
    """Refuses a method that does not suit the masks or the limits.

    Raises:
        UsageError: it lets channels return but the masks do not, or it knows no limits beside latency.
    """
    if has_others:
        check_keeps_resources(method)
    if not (method.shrinks_only or returns_channels):
        raise UsageError(
            "this method lets channels return, but masks keep what was removed at zero; use masks that let channels "
            "return (returns_channels), or a method that only shrinks"
        )


def _read_budget(budget: Budget | str) -> Budget:
    """The budget, read where it is a text.

    Raises:
        UsageError: it is none.
    """
    budget = Budget.parse(budget) if isinstance(budget, str) else budget
    if not isinstance(budget, Budget):
        raise UsageError(f"a budget is a text or a Budget, got {budget!r}; try '60%' or '4.2ms'")
    return budget


def _budgets(start: Step, budget: Budget, num_steps: int) -> tuple[float, ...]:
    """The latency budgets of all steps, on the table's scale."""
    scale = start.slope if budget.fraction is None else 1.0
    target_us = budget.latency_us(start.dense_us * scale) / scale  # a share needs no rounding there and back
    return exponential_budgets(start.dense_us, target_us, num_steps)


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
        self,
        current: PruningPlan,
        saliency: Saliency,
        lookup: Lookup,
        *,
        budget_us: float,
        steps: Mapping[str, int],
        **others: ResourceBudgets,
    ) -> PruningPlan:
        least, base = self.limits.least_counts(current.graph, current.counts()), self.base(current)
        return self.method.step(base, saliency, lookup, budget_us=budget_us, steps=steps, least=least, **others)

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
    narrowest, last = bound.narrowest(start, schedule, chunks), schedule.resources[-1:]
    others = {"resources": last[0]} if last else {}
    fits = all(budgets.fits(graph, narrowest) for budgets in last)
    if fits and counts_latency_us(graph, lookup, narrowest) <= target_us:
        return
    part = prunability(graph)
    if not part.num_prunable:
        raise InfeasibleBudgetError(
            f"the budget is {target_us / start.dense_us:.1%} of the dense latency by the table, but {why_nothing(part)}"
        )
    alike = Saliency(scores={group.name: (1.0,) * group.num_channels for group in graph.prunable_groups})

    def attempt(least: Mapping[str, int] | None) -> InfeasibleBudgetError | None:
        try:
            base = bound.base(start.plan)
            bound.method.step(base, alike, lookup, budget_us=target_us, steps=chunks, least=least, **others)
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
