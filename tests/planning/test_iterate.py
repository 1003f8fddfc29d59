from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning import METHODS, channel_steps, counts_latency_us, exponential_budgets
from halp_trt.planning.iterate import Schedule, iterate
from halp_trt.planning.step import Step
from halp_trt.specs import PruningPlan, Saliency
from tests.strategies import channel_graphs, formula_lookup, graph_of, lowest_latency_us, staircase_us

LOOKUP = formula_lookup(lambda spec: staircase_us(spec, step=8))
GRAPH = graph_of([("plain", 64, 0), ("residual", 64, 0), ("residual", 48, 0), ("plain", 128, 0)], stem=32)
DENSE_US = counts_latency_us(GRAPH, LOOKUP, GRAPH.dense_counts())
START = Step(index=0, plan=PruningPlan.dense(GRAPH), dense_us=DENSE_US)
CHUNKS = channel_steps(GRAPH, LOOKUP)


def score(plan: PruningPlan) -> Saliency:
    return Saliency(scores={g.name: tuple(1 / (1 + c) for c in range(g.num_channels)) for g in plan.graph.groups})


def steps(
    share: float,
    *,
    num_steps: int = 5,
    start: Step = START,
    correct: Callable[[PruningPlan], float] | None = None,
) -> list[Step]:
    """All steps; ``correct`` tells how much slower than predicted the engine of a plan is."""

    def measure(plan: PruningPlan) -> tuple[float, float]:
        assert correct is not None
        return DENSE_US, correct(plan) * plan.latency_us

    schedule = Schedule(budgets=exponential_budgets(DENSE_US, share * DENSE_US, num_steps))
    return list(
        iterate(
            start,
            schedule,
            method=METHODS["halp"].step,
            score=score,
            lookup=LOOKUP,
            chunks=CHUNKS,
            measure=measure if correct else None,
        )
    )


def test_every_step_meets_its_budget_of_the_schedule() -> None:
    found = steps(0.4)
    assert [step.index for step in found] == [1, 2, 3, 4, 5]
    assert [step.plan.budget_us for step in found] == list(exponential_budgets(DENSE_US, 0.4 * DENSE_US, 5))
    for step, budget_us in zip(found, exponential_budgets(DENSE_US, 0.4 * DENSE_US, 5), strict=True):
        assert step.plan.latency_us <= budget_us
        assert step.correction == 1.0
    for before, after in pairwise(found):
        assert all(set(after.plan.kept[group]) <= set(before.plan.kept[group]) for group in before.plan.kept)


def test_an_iteration_goes_on_from_any_of_its_steps() -> None:
    whole = steps(0.4)
    for step in whole:
        assert steps(0.4, start=step) == whole[step.index :]


@pytest.mark.parametrize("slower", [1.05, 1.2, 1.5])
def test_steps_are_added_until_the_measured_engine_meets_the_budget(slower: float) -> None:
    found = steps(0.5, correct=lambda plan: slower)
    assert found[-1].plan.latency_us * slower <= 0.5 * DENSE_US * (1 + 1e-9)
    for before, after in pairwise(found):
        assert after.plan.budget_us <= before.plan.budget_us
    assert found[0].plan.budget_us == exponential_budgets(DENSE_US, 0.5 * DENSE_US, 5)[0], "nothing is measured before"
    assert found[1].plan.budget_us == exponential_budgets(DENSE_US, 0.5 * DENSE_US, 5)[1] / slower


def test_a_miss_found_at_the_last_step_is_planned_again() -> None:
    (only,) = steps(0.5, num_steps=1)
    slower = 1.01 * 0.5 * DENSE_US / only.plan.latency_us
    (again,) = steps(0.5, num_steps=1, correct=lambda plan: slower)
    assert again.plan.latency_us < only.plan.latency_us
    assert again.plan.latency_us * slower <= 0.5 * DENSE_US * (1 + 1e-9)


def test_the_last_step_uses_the_budget_as_measured() -> None:
    """Engines that run ever faster than the table says, the narrower they are."""

    def correct(plan: PruningPlan) -> float:
        return (plan.latency_us / DENSE_US) ** 0.2

    (_, *_, last) = steps(0.5, correct=correct)
    assert 0.94 * 0.5 * DENSE_US <= last.plan.latency_us * last.correction <= 0.5 * DENSE_US
    assert last.correction == pytest.approx(correct(last.plan))


def test_a_step_that_cannot_be_met_as_measured_takes_more_steps() -> None:
    """Each engine is above the budget, however it was planned, until the retries are used up."""
    shares = iter([0.6 - 0.01 * number for number in range(7)])
    found = steps(0.5, num_steps=1, correct=lambda plan: next(shares, 0.5) * DENSE_US / plan.latency_us)
    assert len(found) > 1
    assert found[-1].plan.latency_us * found[-1].correction <= 0.5 * DENSE_US * (1 + 1e-9)


def test_engines_faster_than_predicted_keep_more() -> None:
    assert steps(0.5, correct=lambda plan: 0.8)[-1].plan.latency_us > steps(0.5)[-1].plan.latency_us


def test_an_added_step_that_finds_nothing_narrower_leaves_the_plan_there_is() -> None:
    slower = {}  # every engine misses by so much that what is left of the budget is out of reach

    def correct(plan: PruningPlan) -> float:
        return slower.setdefault(tuple(plan.kept.items()), 1.0 if len(slower) < 2 else 50.0)

    found = steps(0.5, num_steps=3, correct=correct)
    assert [step.index for step in found] == [1, 2, 3]
    assert found[-1].plan.latency_us * found[-1].correction > 0.5 * DENSE_US, "verifying will say so"


def test_it_gives_up_after_the_extra_steps() -> None:
    costs = iter(range(10**6))
    found = steps(0.7, correct=lambda plan: (0.75 + next(costs) * 1e-4) * DENSE_US / plan.latency_us)
    assert len(found) == 5 + Schedule(budgets=(1.0,)).num_extra


@settings(max_examples=20, deadline=None)
@given(st.data(), st.floats(0.0, 1.0), st.integers(1, 6))
def test_whatever_is_reachable_is_reached(data: st.DataObject, share: float, num_steps: int) -> None:
    graph = data.draw(channel_graphs())
    chunks, dense_us = channel_steps(graph, LOOKUP), counts_latency_us(graph, LOOKUP, graph.dense_counts())
    start = Step(index=0, plan=PruningPlan.dense(graph), dense_us=dense_us)
    lowest_us = lowest_latency_us(start.plan, LOOKUP, steps=chunks)
    target_us = lowest_us + share * (dense_us - lowest_us)
    schedule = Schedule(budgets=exponential_budgets(dense_us, target_us, num_steps))
    found = list(iterate(start, schedule, method=METHODS["halp"].step, score=score, lookup=LOOKUP, chunks=chunks))
    assert len(found) == num_steps
    assert found[-1].plan.latency_us <= target_us


def test_what_is_out_of_reach_is_said_by_the_step() -> None:
    lowest_us = lowest_latency_us(START.plan, LOOKUP, steps=CHUNKS)
    with pytest.raises(InfeasibleBudgetError, match="lowest latency"):
        steps(0.9 * lowest_us / DENSE_US)
    with pytest.raises(InfeasibleBudgetError, match="lowest latency"):
        steps(0.5, correct=lambda plan: 100.0)
