from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning import METHODS, Lookup, PlanStep, exponential_budgets, halp_step
from halp_trt.planning.pricing import counts_latency_us
from halp_trt.planning.widths import width_choices
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement, PruningPlan, Saliency
from tests.strategies import (
    channel_graphs,
    formula_lookup,
    graph_of,
    lowest_latency_us,
    plans,
    saliencies,
    staircase_us,
)

EVEN = formula_lookup(lambda spec: staircase_us(spec, step=8))
UNEVEN = formula_lookup(lambda spec: staircase_us(spec, step=8, wobble=0.2))

KEEPING = {name: method.step for name, method in METHODS.items() if not method.removes_blocks}
methods = pytest.mark.parametrize("method", KEEPING.values(), ids=KEEPING.keys())


def steps_of(graph: ChannelGraph, step: int = 8) -> dict[str, int]:
    return {group.name: step for group in graph.prunable_groups}


def frozen_latency_us(plan: PruningPlan, counts: Mapping[str, int], lookup: Lookup) -> float:
    """HALP's cost of new widths: out widths one group at a time, all else as it is, differences added up."""
    graph, now = plan.graph, plan.counts()
    total = counts_latency_us(graph, lookup, now)
    for layer in graph.layers:
        for group in {name for name, _ in layer.out_groups}:
            old, new = layer.spec_at(now), layer.spec_at({**now, group: counts[group]})
            rows = lookup([old, new])
            total += rows[new].latency_us - rows[old].latency_us
    return total


def best_by_brute_force(plan: PruningPlan, saliency: Saliency, lookup: Lookup, budget_us: float) -> float:
    groups = [group.name for group in plan.graph.prunable_groups]
    choices = [width_choices(len(plan.kept[group]), 8) for group in groups]
    best = -math.inf
    for counts in itertools.product(*choices):
        widths = {**plan.counts(), **dict(zip(groups, counts, strict=True))}
        if frozen_latency_us(plan, widths, lookup) <= budget_us:
            ranked = (sorted((saliency.scores[g][c] for c in plan.kept[g]), reverse=True) for g in groups)
            best = max(best, math.fsum(s for scores, count in zip(ranked, counts, strict=True) for s in scores[:count]))
    return best


@settings(max_examples=40, deadline=None)
@given(st.data(), st.floats(0.05, 1.0))
def test_one_step_is_the_best_of_all_choices_at_the_present_input_widths(data: st.DataObject, share: float) -> None:
    graph = data.draw(channel_graphs(max_blocks=2, widths=(8, 16, 24)))
    plan, saliency = data.draw(plans(graph)), data.draw(saliencies(graph))
    narrowest = {g.name: width_choices(len(plan.kept[g.name]), 8)[0] for g in graph.prunable_groups}
    lowest = frozen_latency_us(plan, {**plan.counts(), **narrowest}, EVEN)
    highest = counts_latency_us(graph, EVEN, plan.counts())
    budget = max(math.sqrt(lowest * highest), lowest + share * (highest - lowest)) + 1e-3
    chosen = halp_step(plan, saliency, EVEN, budget_us=budget, steps=steps_of(graph))
    best = best_by_brute_force(plan, saliency, EVEN, budget)
    assert chosen.latency_us <= budget
    if graph_has_concat(graph):  # the separate savings of two groups in one layer are not what both save together
        assert chosen.saliency <= best + 1e-6 * abs(best)
        return
    assert chosen.saliency == pytest.approx(best)
    assert chosen.bound == pytest.approx(chosen.saliency)
    assert chosen.latency_us <= frozen_latency_us(plan, chosen.counts(), EVEN) + 1e-6


def graph_has_concat(graph: ChannelGraph) -> bool:
    """Differences of a layer that writes two groups do not add up where cliffs are crossed together."""
    return any(layer.spec.operator == "Concat" for layer in graph.layers)


@pytest.mark.slow
@methods
@pytest.mark.parametrize("lookup", [EVEN, UNEVEN], ids=["even", "uneven"])
@settings(max_examples=60, deadline=None)
@given(st.data(), st.floats(0.0, 1.1))
def test_never_over_budget_and_only_fewer_channels(
    method: PlanStep, lookup: Lookup, data: st.DataObject, share: float
) -> None:
    graph = data.draw(channel_graphs())
    plan, saliency = data.draw(plans(graph)), data.draw(saliencies(graph))
    steps = steps_of(graph, data.draw(st.sampled_from([4, 8, 16])))
    lowest = lowest_latency_us(plan, lookup, steps=steps)
    dense = counts_latency_us(graph, lookup, plan.counts())
    budget = lowest + share * max(0.0, dense - lowest)
    chosen = method(plan, saliency, lookup, budget_us=budget, steps=steps)
    assert chosen.latency_us <= budget
    assert chosen.latency_us == counts_latency_us(graph, lookup, chosen.counts())
    assert chosen.budget_us == budget
    assert chosen.bound >= chosen.saliency
    for group in graph.prunable_groups:
        assert set(chosen.kept[group.name]) <= set(plan.kept[group.name])
        assert len(chosen.kept[group.name]) in width_choices(len(plan.kept[group.name]), steps[group.name]) or (
            lookup is UNEVEN  # several rounds: widths of an earlier one
        )


@methods
def test_the_lowest_latency_can_be_had_and_nothing_below(method: PlanStep) -> None:
    graph = graph_of([("plain", 64, 0), ("residual", 48, 0), ("concat", 32, 16), ("depthwise", 0, 0)])
    plan, steps = PruningPlan.dense(graph), steps_of(graph, 16)
    saliency = Saliency(scores={g.name: (1.0,) * g.num_channels for g in graph.prunable_groups})
    lowest = lowest_latency_us(plan, EVEN, steps=steps)
    assert method(plan, saliency, EVEN, budget_us=lowest, steps=steps).latency_us == lowest
    with pytest.raises(
        InfeasibleBudgetError, match=rf"is below {lowest:.6g} us, the lowest|lowest reachable is {lowest:.6g}\b"
    ):
        method(plan, saliency, EVEN, budget_us=0.99 * lowest, steps=steps)
    with pytest.raises(InfeasibleBudgetError):
        method(plan, saliency, EVEN, budget_us=lowest, steps=steps, least=dict.fromkeys(steps, 32))


@methods
def test_a_plan_within_budget_is_left_alone(method: PlanStep) -> None:
    graph = graph_of([("plain", 64, 0)])
    dense = PruningPlan.dense(graph)
    saliency = Saliency(scores={g.name: (0.0,) * g.num_channels for g in graph.prunable_groups})
    latency = counts_latency_us(graph, EVEN, dense.counts())
    chosen = method(dense, saliency, EVEN, budget_us=latency, steps=steps_of(graph))
    assert chosen.kept == dense.kept
    assert chosen.latency_us == latency


@methods
def test_a_table_that_only_gets_slower_is_refused(method: PlanStep) -> None:
    graph = graph_of([("plain", 64, 0)])
    slower = formula_lookup(lambda spec: 1000.0 / spec.out_channels)
    saliency = Saliency(scores={g.name: (1.0,) * g.num_channels for g in graph.prunable_groups})
    with pytest.raises(InfeasibleBudgetError):
        method(PruningPlan.dense(graph), saliency, slower, budget_us=1.0, steps=steps_of(graph))


@settings(max_examples=25, deadline=None)
@given(st.data(), st.floats(0.05, 0.9))
def test_it_first_asks_for_each_width_of_each_layer_alone(data: st.DataObject, share: float) -> None:
    graph = data.draw(channel_graphs(max_blocks=3))
    saliency = data.draw(saliencies(graph))
    plan, steps = PruningPlan.dense(graph), steps_of(graph)
    counts = plan.counts()
    announced = {
        layer.spec_at({**counts, group: width})
        for layer in graph.layers
        for group in ({name for name, _ in layer.out_groups} & set(steps)) or {graph.groups[0].name}
        for width in (width_choices(counts[group], steps[group]) if group in steps else (counts[group],))
    }
    asked: list[Sequence[LayerSpec]] = []

    def lookup(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        asked.append(specs)
        return EVEN(specs)

    lowest = lowest_latency_us(plan, EVEN, steps=steps)
    dense = counts_latency_us(graph, EVEN, plan.counts())
    halp_step(plan, saliency, lookup, budget_us=lowest + share * (dense - lowest), steps=steps)
    assert set(asked[0]) <= announced
    if len(asked) > 1:
        assert set(asked[0]) | set(asked[1]) == announced


@methods
def test_the_schedule_ends_within_the_target(method: PlanStep) -> None:
    graph = graph_of([("plain", 64, 0), ("residual", 64, 0), ("residual", 48, 0), ("plain", 128, 0)], stem=32)
    steps = steps_of(graph)
    scores = {g.name: tuple(1 / (1 + c) for c in range(g.num_channels)) for g in graph.prunable_groups}
    plan = PruningPlan.dense(graph)
    dense = counts_latency_us(graph, EVEN, plan.counts())
    for budget in exponential_budgets(dense, 0.4 * dense, 6):
        before, plan = plan, method(plan, Saliency(scores=scores), EVEN, budget_us=budget, steps=steps)
        assert all(set(plan.kept[name]) <= set(before.kept[name]) for name in plan.kept)
        assert plan.latency_us <= budget
    assert plan.latency_us > 0.25 * dense


def test_halp_keeps_more_saliency_than_uniform() -> None:
    graph = graph_of([("plain", 64, 0), ("residual", 64, 0), ("plain", 128, 0), ("residual", 128, 0)], stem=32)
    scores = {
        g.name: tuple((index + 1) / (1 + c) for c in range(g.num_channels))
        for index, g in enumerate(graph.prunable_groups)
    }
    kept = {}
    for name, method in KEEPING.items():
        plan = PruningPlan.dense(graph)
        dense = counts_latency_us(graph, EVEN, plan.counts())
        for budget in exponential_budgets(dense, 0.5 * dense, 10):
            plan = method(plan, Saliency(scores=scores), EVEN, budget_us=budget, steps=steps_of(graph))
        kept[name] = plan.saliency
    assert kept["halp"] > kept["uniform"]


def test_uniform_keeps_the_same_fraction_of_every_group() -> None:
    graph = graph_of([("plain", 64, 0), ("plain", 128, 0)], stem=32)
    saliency = Saliency(scores={g.name: (1.0,) * g.num_channels for g in graph.prunable_groups})
    half = {**graph.dense_counts(), "stem": 16, "b0": 32, "b1": 64}
    budget = counts_latency_us(graph, EVEN, half)
    chosen = METHODS["uniform"].step(PruningPlan.dense(graph), saliency, EVEN, budget_us=budget, steps=steps_of(graph))
    fractions = [len(chosen.kept[g.name]) / g.num_channels for g in graph.prunable_groups]
    assert max(fractions) - min(fractions) <= 8 / 32
    assert sum(fractions) / 3 == pytest.approx(0.5, abs=0.1)


def test_where_no_single_cut_helps_all_groups_are_cut() -> None:
    graph = graph_of([("plain", 16, 0)], stem=16)
    slow_alone = {(3, 16): 10.0, (3, 8): 12.0, (16, 16): 10.0, (16, 8): 12.0, (8, 16): 12.0, (8, 8): 1.0}
    lookup = formula_lookup(lambda spec: slow_alone.get((spec.in_channels, spec.out_channels), 0.0))
    saliency = Saliency(scores={g.name: (1.0,) * g.num_channels for g in graph.prunable_groups})
    chosen = halp_step(PruningPlan.dense(graph), saliency, lookup, budget_us=15.0, steps=steps_of(graph))
    assert chosen.latency_us < 15.0
    assert {len(chosen.kept[g.name]) for g in graph.prunable_groups} == {8}


def test_where_only_readers_gain_the_budget_is_met_without_throwing_all_away() -> None:
    """Outputs of 32 channels cost as much as 8; inputs are paid one by one, as on a processor's wide vectors."""
    graph = graph_of([("plain", 32, 0)] * 3, stem=32)
    lookup = formula_lookup(lambda spec: spec.in_channels * math.ceil(spec.out_channels / 32))
    scores = {g.name: tuple(1 / (1 + c) for c in range(32)) for g in graph.prunable_groups}
    dense = PruningPlan.dense(graph)
    budget = 0.7 * counts_latency_us(graph, lookup, dense.counts())
    chosen = halp_step(dense, Saliency(scores=scores), lookup, budget_us=budget, steps=steps_of(graph))
    assert 0.75 * budget <= chosen.latency_us <= budget
    assert min(len(chosen.kept[g.name]) for g in graph.prunable_groups) >= 16
