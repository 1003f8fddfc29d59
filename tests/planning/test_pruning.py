"""The pruning loop as a user's own program has it: steps to mask and train by, gone on from anywhere, methods of one's
own, masks that let channels return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from halp_trt.errors import InfeasibleBudgetError, MissingLatencyError, UsageError
from halp_trt.latency import LatencyTable
from halp_trt.planning import METHODS, Lookup, Method, Step, WidthLimits, counts_latency_us, first_step, prune
from halp_trt.planning.calibration import Calibration, fit
from halp_trt.planning.step import Timed
from halp_trt.runtimes import synthetic
from halp_trt.specs import Budget, ChannelGraph, LayerSpec, Measurement, PruningPlan, Saliency
from tests.strategies import formula_lookup, graph_of

LOOKUP = formula_lookup(lambda spec: synthetic.latency_us(spec, 1))
GRAPH = graph_of([("plain", 64, 0), ("residual", 64, 0), ("residual", 48, 0), ("plain", 128, 0)], stem=32)
DENSE_US = counts_latency_us(GRAPH, LOOKUP, GRAPH.dense_counts())


def score(plan: PruningPlan) -> Saliency:
    return Saliency(scores={g.name: tuple(1 / (1 + c) for c in range(g.num_channels)) for g in plan.graph.groups})


def slower(plan: PruningPlan) -> tuple[float, float]:
    """Engines that take twice the table's sum and an overhead."""
    return 2 * DENSE_US + 50, 2 * counts_latency_us(plan.graph, LOOKUP, plan.counts()) + 50


# ---- one's own loop -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_loop_of_ones_own_trains_between_steps(method: str) -> None:
    """Scores are asked for once a step, with the plan that the network was masked by."""
    masked, asked = [PruningPlan.dense(GRAPH).kept], []

    def read_gradients(plan: PruningPlan) -> Saliency:
        asked.append(plan.kept)
        return score(plan)

    for step in prune(GRAPH, LOOKUP, budget="60%", score=read_gradients, method=method, num_steps=3):
        masked.append(step.plan.kept)
    assert asked == masked[:-1]
    assert step.index == 3
    assert step.plan.latency_us == counts_latency_us(GRAPH, LOOKUP, step.plan.counts()) <= 0.6 * DENSE_US


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["60%", " 0.6 ", Budget(fraction=0.6), f"{0.6 * DENSE_US!r}us"])
def test_a_budget_is_read_at_the_door(budget: Budget | str) -> None:
    if budget == " 0.6 ":
        with pytest.raises(UsageError, match="not a share of the dense latency or a time"):
            prune(GRAPH, LOOKUP, budget=budget, score=score)
        return
    *_, last = prune(GRAPH, LOOKUP, budget=budget, score=score, num_steps=2)
    assert last.plan.budget_us == pytest.approx(0.6 * DENSE_US)


@pytest.mark.slow
def test_a_table_is_a_lookup_with_its_surfaces() -> None:
    asked: dict[LayerSpec, Measurement] = {}

    def noted(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        asked.update(LOOKUP(specs))
        return asked

    *_, whole = prune(GRAPH, noted, budget="60%", score=score, method="joint", num_steps=2)
    table = LatencyTable(target=synthetic.Synthetic().target("fp32", 1), rows=asked)
    *_, by_table = prune(GRAPH, table, budget="60%", score=score, method="joint", num_steps=2)
    assert by_table == whole
    some = dict(list(asked.items())[: len(GRAPH.layers)])
    with pytest.raises(MissingLatencyError):
        list(prune(GRAPH, replace(table, rows=some), budget="60%", score=score, method="joint", num_steps=2))


def test_a_bare_number_is_no_budget() -> None:
    with pytest.raises(UsageError, match="a budget is a text or a Budget, got "):
        prune(GRAPH, LOOKUP, budget=0.6, score=score)


def test_what_cannot_be_met_is_refused_before_the_first_step() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"0\.1% of the dense latency by the table, but .* the lowest"):
        prune(GRAPH, LOOKUP, budget="0.1%", score=score)
    for limits in (WidthLimits(group_fraction=0.1), WidthLimits(step_fraction=0.02)):
        with pytest.raises(InfeasibleBudgetError, match="could be met without --max-prune and --max-prune-step"):
            prune(GRAPH, LOOKUP, budget="50%", score=score, limits=limits)
    with pytest.raises(UsageError, match="at least 1 pruning step"):
        prune(GRAPH, LOOKUP, budget="50%", score=score, num_steps=0)
    with pytest.raises(UsageError, match=r"'guess' is none of \['halp', 'joint'"):
        prune(GRAPH, LOOKUP, budget="50%", score=score, method="guess")


@pytest.mark.parametrize("limits", [{"group_fraction": 1.1}, {"step_fraction": 0.0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="in one step more than 0 %"):
        WidthLimits(**limits)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_limits_hold_in_every_step(method: str) -> None:
    limits = WidthLimits(group_fraction=0.6, step_fraction=0.5)
    before = GRAPH.dense_counts()
    for step in prune(GRAPH, LOOKUP, budget="60%", score=score, method=method, num_steps=3, limits=limits):
        for group in GRAPH.prunable_groups:
            count = len(step.plan.kept[group.name])
            assert count >= max(0.4 * group.num_channels, 0.5 * before[group.name])
        before = step.plan.counts()


# ---- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [None, slower], ids=["table", "timed"])
@pytest.mark.parametrize("method", METHODS)
def test_a_loop_goes_on_from_any_of_its_steps(method: str, measure: object) -> None:
    def steps(start: Step | None = None) -> list[Step]:
        return list(
            prune(GRAPH, LOOKUP, budget="50%", score=score, method=method, num_steps=4, measure=measure, start=start)
        )

    whole = steps()
    assert steps(first_step(GRAPH, LOOKUP, measure)) == whole
    for step in whole:
        assert steps(step) == whole[step.index :]


# ---- measured engines -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_time_is_the_engines_where_engines_are_timed() -> None:
    limit_us = 0.6 * slower(PruningPlan.dense(GRAPH))[0]
    *_, last = prune(GRAPH, LOOKUP, budget=f"{limit_us!r}us", score=score, num_steps=2, grid_step=4, measure=slower)
    assert 0.9 * limit_us <= slower(last.plan)[1] <= limit_us


@pytest.mark.slow
def test_the_last_plan_is_calibrated_by_all_engines_but_its_own() -> None:
    timed: dict[object, tuple[float, float]] = {}

    def noted(plan: PruningPlan) -> tuple[float, float]:
        return timed.setdefault(tuple(plan.kept.items()), slower(plan))

    first, *_, last = prune(GRAPH, LOOKUP, budget="50%", score=score, num_steps=3, grid_step=4, measure=noted)
    assert first.plan.calibration == pytest.approx(2 + 50 / DENSE_US)
    assert len(last.engines) == len(timed) - 1, "the dense engine is not among them"
    assert last.plan.calibration == pytest.approx(2.0)
    assert last.plan.overhead_us == pytest.approx(50.0)
    assert last.plan.predicted_us(last.plan.latency_us) == pytest.approx(slower(last.plan)[1])
    assert last.plan.calibration_engines == len(last.engines), "its own is not among them, the dense one is"
    assert last.timed is not None
    assert last.timed.sum_us == last.plan.latency_us


def test_predictions_are_a_line_through_all_engines_but_the_last() -> None:
    plan = PruningPlan.dense(GRAPH)
    early = Timed(step=1, sum_us=60.0, dense_us=200.0, engine_us=140.0)
    last = Timed(step=2, sum_us=50.0, dense_us=200.0, engine_us=900.0)
    line = Step(index=2, plan=plan, dense_us=100.0, slope=2.0, engines=(early, last)).calibration
    assert line.overhead_us + line.slope * 100 == pytest.approx(200.0)
    assert line.overhead_us + line.slope * 60 == pytest.approx(140.0)
    assert (line.num_engines, line.r_squared) == (2, pytest.approx(1.0))
    other = Timed(step=2, sum_us=70.0, dense_us=400.0, engine_us=310.0, is_chosen=False)  # half as fast, both alike
    found = Step(index=2, plan=plan, dense_us=100.0, slope=2.0, engines=(early, other, last)).calibration
    assert found.num_engines == 3
    assert found.largest_error_fraction == pytest.approx(0.0, abs=1e-9)
    alone = Step(index=2, plan=plan, dense_us=100.0, slope=2.0, engines=(last,))
    assert alone.calibration == Calibration(slope=2.0)
    assert alone.correction == pytest.approx(900 / 200 / 0.5)
    close = replace(early, sum_us=99.0)
    assert Step(index=2, plan=plan, dense_us=100.0, slope=2.0, engines=(close, last)).calibration.overhead_us == 0.0
    with pytest.raises(UsageError, match="positive sums"):
        fit([1.0], [0.0])


def test_a_line_that_explains_little_has_no_overhead() -> None:
    sums_us, engines_us = [5000.0, 4000.0, 3500.0, 3000.0], [9000.0, 3600.0, 5400.0, 3700.0]  # beside other work
    line = fit(sums_us, engines_us)
    assert line.overhead_us == 0.0
    assert line.slope == pytest.approx(1.3, rel=0.2)
    assert line.r_squared < 0.9, "it says so"
    steady = fit(sums_us, [500 + 2 * sum_us for sum_us in sums_us])
    assert (steady.overhead_us, steady.slope) == (pytest.approx(500), pytest.approx(2))


# ---- methods and masks of one's own ---------------------------------------------------------------------------------


def widest_first(
    current: PruningPlan,
    saliency: Saliency,
    lookup: Lookup,
    *,
    budget_us: float,
    steps: Mapping[str, int],
    least: Mapping[str, int] | None = None,
) -> PruningPlan:
    """A toy: takes a chunk of the widest group until the budget is met."""
    kept = dict(current.kept)
    while True:
        plan = replace(current, kept=kept, budget_us=budget_us)
        latency_us = counts_latency_us(current.graph, lookup, plan.counts())
        if latency_us <= budget_us:
            return replace(plan, latency_us=latency_us)
        widest = max((len(kept[name]), name) for name in steps)[1]
        if len(kept[widest]) <= steps[widest]:
            raise InfeasibleBudgetError(f"{latency_us} us is the lowest latency")
        kept[widest] = kept[widest][: -steps[widest]]


def test_a_method_of_ones_own_is_a_row() -> None:
    def halves(graph: ChannelGraph, lookup: Lookup, *, grid_step: int) -> dict[str, int]:
        return {group.name: group.num_channels // 2 for group in graph.prunable_groups}

    mine = Method(step=widest_first, chunks=halves)
    METHODS["mine"] = mine
    try:
        *_, by_name = prune(GRAPH, LOOKUP, budget="80%", score=score, method="mine", num_steps=2)
    finally:
        del METHODS["mine"]
    *_, by_value = prune(GRAPH, LOOKUP, budget="80%", score=score, method=mine, num_steps=2)
    assert by_name == by_value
    assert by_name.plan.latency_us <= 0.8 * DENSE_US
    for group in GRAPH.prunable_groups:
        assert by_name.plan.counts()[group.name] in (group.num_channels, group.num_channels // 2)


def changing(num_calls: list[int]) -> object:
    """Scores that turn round with every step."""

    def score(plan: PruningPlan) -> Saliency:
        num_calls.append(1)
        ascending = len(num_calls) % 2
        return Saliency(
            scores={
                g.name: tuple(np.linspace(ascending, 1 - ascending, g.num_channels) + 0.1) for g in plan.graph.groups
            }
        )

    return score


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_channels_return_where_masks_let_them(method: str) -> None:
    def steps(returns_channels: bool) -> list[Step]:
        return list(
            prune(
                GRAPH,
                LOOKUP,
                budget="40%",
                score=changing([]),
                method=method,
                num_steps=4,
                returns_channels=returns_channels,
            )
        )

    def is_shrinking(before: PruningPlan, after: PruningPlan) -> bool:
        return all(set(after.kept[name]) <= set(before.kept[name]) for name in before.kept)

    hard, soft = steps(returns_channels=False), steps(returns_channels=True)
    assert all(is_shrinking(a.plan, b.plan) for a, b in pairwise(hard))
    assert not any(is_shrinking(a.plan, b.plan) for a, b in pairwise(soft))
    for step in soft:
        assert step.plan.latency_us <= step.plan.budget_us


def test_a_method_that_lets_channels_return_wants_masks_that_do() -> None:
    growing = replace(METHODS["joint"], shrinks_only=False)
    with pytest.raises(UsageError, match="masks keep what was removed at zero"):
        prune(GRAPH, LOOKUP, budget="40%", score=score, method=growing)
    seen = []

    def noted(current: PruningPlan, *given: object, **wanted: object) -> PruningPlan:
        seen.append(current.counts())
        return METHODS["joint"].step(current, *given, **wanted)

    growing = Method(step=noted, shrinks_only=False)
    steps = list(prune(GRAPH, LOOKUP, budget="60%", score=score, method=growing, num_steps=2, returns_channels=True))
    assert steps[0].plan.counts() in seen, "it is told what is kept"
