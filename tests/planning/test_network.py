from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import GraphMismatchError, InfeasibleBudgetError, UsageError
from halp_trt.planning import METHODS, PlanStep, WidthLimits, halp_step, uniform_step
from halp_trt.planning.network import (
    PlanConstraints,
    joint_blocks_step,
    joint_step,
    network_problem,
    plan_from,
    removable_blocks,
)
from halp_trt.planning.pricing import counts_latency_us
from halp_trt.planning.resources import RESOURCES
from halp_trt.planning.surfaces import surface_from
from halp_trt.planning.widths import reachable_counts, width_choices
from halp_trt.solvers.joint import joint, joint_blocks
from halp_trt.solvers.problem import LATENCY, Limits
from halp_trt.specs import ChannelGraph, LayerSpec, PruningPlan, Saliency
from tests.strategies import (
    channel_graphs,
    formula_lookup,
    graph_of,
    lowest_latency_us,
    plans,
    saliencies,
    staircase_us,
)

UNEVEN = formula_lookup(lambda spec: staircase_us(spec, step=8, wobble=0.2))


def steps_of(graph: ChannelGraph) -> dict[str, int]:
    return {group.name: 8 for group in graph.prunable_groups}


def even_saliency(graph: ChannelGraph) -> Saliency:
    return Saliency(scores={g.name: tuple(float(i + 1) for i in range(g.num_channels)) for g in graph.prunable_groups})


@settings(max_examples=60, deadline=None)
@given(st.data(), st.floats(0.0, 1.1))
def test_a_step_is_the_best_of_all_widths(data: st.DataObject, share: float) -> None:
    graph = data.draw(channel_graphs(max_blocks=3, widths=(8, 16, 24)))
    plan, saliency = data.draw(plans(graph)), data.draw(saliencies(graph))
    lowest = lowest_latency_us(plan, UNEVEN, steps=steps_of(graph))
    budget = lowest + share * (counts_latency_us(graph, UNEVEN, plan.counts()) - lowest)
    groups = [group.name for group in graph.prunable_groups]
    best, fits = -math.inf, False
    for widths in itertools.product(*(width_choices(len(plan.kept[group]), 8) for group in groups)):
        counts = {**plan.counts(), **dict(zip(groups, widths, strict=True))}
        if counts_latency_us(graph, UNEVEN, counts) <= budget:
            fits = True
            ranked = (sorted((saliency.scores[g][c] for c in plan.kept[g]), reverse=True) for g in groups)
            best = max(best, math.fsum(s for scores, width in zip(ranked, widths, strict=True) for s in scores[:width]))
    if not fits:
        with pytest.raises(InfeasibleBudgetError):
            joint_step(plan, saliency, UNEVEN, budget_us=budget, steps=steps_of(graph))
        return
    chosen = joint_step(plan, saliency, UNEVEN, budget_us=budget, steps=steps_of(graph))
    assert chosen.latency_us == counts_latency_us(graph, UNEVEN, chosen.counts()) <= budget
    assert chosen.saliency == pytest.approx(best, rel=1e-4)
    assert chosen.bound >= chosen.saliency
    assert all(set(chosen.kept[group]) <= set(plan.kept[group]) for group in groups)


def test_resources_are_budgeted_together() -> None:
    graph = graph_of([("plain", 32, 0), ("residual", 32, 0), ("depthwise", 0, 0), ("concat", 16, 24)], stem=32)
    plan = PruningPlan.dense(graph)
    names = (LATENCY, *RESOURCES)
    ask = PlanConstraints(budgets=dict.fromkeys(names, 1.0), steps=steps_of(graph))
    problem = network_problem(plan, even_saliency(graph), surface_from(UNEVEN), ask)
    dense = problem.costs([len(group.widths) - 1 for group in problem.groups])
    assert dense["parameters"] == sum(
        layer.spec.out_channels * layer.spec.in_channels // layer.spec.conv_groups * math.prod(layer.spec.kernel_size)
        for layer in graph.layers
        if layer.spec.operator in ("Conv", "Gemm")
    )
    loose = joint(replace(problem, budgets={**dense, LATENCY: 0.7 * dense[LATENCY]}))
    tight = joint(
        replace(problem, budgets={**dense, LATENCY: 0.7 * dense[LATENCY], "parameters": 0.3 * dense["parameters"]})
    )
    assert tight.costs["parameters"] <= 0.3 * dense["parameters"] < loose.costs["parameters"]
    assert tight.value < loose.value
    with pytest.raises(InfeasibleBudgetError, match="for parameters: the lowest reachable is"):
        joint(replace(problem, budgets={**dense, "parameters": 0.0001 * dense["parameters"]}))


def test_resources_of_known_layers() -> None:
    conv = LayerSpec(
        operator="Conv", in_channels=4, out_channels=6, in_size=(9, 9), kernel_size=(3, 3), stride=(2, 2),
        padding=(1, 1, 1, 1), dilation=(1, 1), conv_groups=2, bias=True,
    )  # fmt: skip
    assert RESOURCES["parameters"](conv, 1) == 6 * 2 * 9 + 6
    assert RESOURCES["flops"](conv, 2) == 2 * 2 * (6 * 2 * 9) * 25
    assert RESOURCES["memory_bytes"](conv, 2) == 4 * (6 * 2 * 9 + 6 + 2 * 6 * 25)
    pool = LayerSpec(
        operator="MaxPool", in_channels=4, out_channels=4, in_size=(8, 8), kernel_size=(2, 2), stride=(2, 2)
    )
    assert RESOURCES["parameters"](pool, 1) == RESOURCES["flops"](pool, 1) == 0
    assert RESOURCES["memory_bytes"](pool, 1) == 4 * 4 * 16


def test_limits_are_kept_whatever_the_budget() -> None:
    graph = graph_of([("plain", 32, 0), ("residual", 32, 0)], stem=32)
    plan, saliency = PruningPlan.dense(graph), even_saliency(graph)
    limits = Limits(least={"b0": 16}, frozen=frozenset({"stem"}), group_fraction=0.6)
    dense = counts_latency_us(graph, UNEVEN, plan.counts())
    found = 0
    for share in np.linspace(0.1, 1, 12):
        ask = PlanConstraints(budgets={LATENCY: share * dense}, steps=steps_of(graph), limits=limits)
        problem = network_problem(plan, saliency, surface_from(UNEVEN), ask)
        try:
            chosen = plan_from(plan, saliency, UNEVEN, problem, joint(problem))
        except InfeasibleBudgetError:
            assert found == 0
            continue
        found += 1
        counts = chosen.counts()
        assert counts["stem"] == 32
        assert counts["b0"] >= 16
        assert counts["b1.inner"] >= 0.4 * 32
        assert chosen.latency_us <= share * dense
    assert 3 < found < 12


def residual_graph() -> ChannelGraph:
    return graph_of([("plain", 16, 0), ("residual", 32, 0), ("residual", 32, 0)], stem=16)


def test_removed_blocks_cost_nothing() -> None:
    graph = residual_graph()
    plan, saliency = PruningPlan.dense(graph), even_saliency(graph)
    dense = counts_latency_us(graph, UNEVEN, plan.counts())
    ask = PlanConstraints(budgets={LATENCY: dense}, steps=steps_of(graph), removes_blocks=True)
    problem = network_problem(plan, saliency, surface_from(UNEVEN), ask)
    assert [block.name for block in problem.blocks] == ["b1", "b2"]
    names = [group.name for group in problem.groups]
    full = [len(group.widths) - 1 for group in problem.groups]
    dead = [0 if names[i] == "b1.inner" else choice for i, choice in enumerate(full)]
    rows = UNEVEN([layer.spec for layer in graph.layers])
    inside = [layer for layer in graph.layers if layer.name in ("b1.inner", "b1")]
    assert problem.costs(dead)[LATENCY] == pytest.approx(dense - sum(rows[layer.spec].latency_us for layer in inside))
    solution = joint_blocks(replace(problem, budgets={LATENCY: problem.costs(dead)[LATENCY] * 0.2}))
    chosen = plan_from(plan, saliency, UNEVEN, problem, solution)
    assert set(chosen.removed_blocks) <= {"b1", "b2"}
    assert chosen.removed_blocks
    assert chosen.latency_us == pytest.approx(solution.costs[LATENCY])
    assert chosen.saliency == pytest.approx(solution.value)


def test_removed_blocks_stay_removed_from_step_to_step() -> None:
    graph = residual_graph()
    plan, saliency = PruningPlan.dense(graph), even_saliency(graph)
    dense, floor = (
        counts_latency_us(graph, UNEVEN, plan.counts()),
        lowest_latency_us(plan, UNEVEN, steps=steps_of(graph)),
    )
    removed: set[str] = set()
    for budget_us in (0.7 * dense, floor, 0.8 * floor):
        plan = joint_blocks_step(plan, saliency, UNEVEN, budget_us=budget_us, steps=steps_of(graph))
        assert plan.latency_us <= budget_us
        assert removed <= set(plan.removed_blocks)
        removed = set(plan.removed_blocks)
        lowest = lowest_latency_us(plan, UNEVEN, steps=steps_of(graph))
        for other in (halp_step, uniform_step, joint_step):  # whoever goes on from here
            after = other(plan, saliency, UNEVEN, budget_us=lowest, steps=steps_of(graph))
            assert (after.latency_us, after.removed_blocks) == (lowest, plan.removed_blocks)
    assert removed
    assert removable_blocks(graph) == {"b1": ("b1.inner",), "b2": ("b2.inner",)}


def test_frozen_and_limited_blocks_stay() -> None:
    graph = residual_graph()
    frozen = replace(
        graph,
        groups=tuple(replace(g, prunable=False, reason="frozen") if g.name == "b1.inner" else g for g in graph.groups),
    )
    assert removable_blocks(frozen) == {"b2": ("b2.inner",)}
    plan, saliency = PruningPlan.dense(graph), even_saliency(graph)
    budget_us = 0.95 * lowest_latency_us(plan, UNEVEN, steps=steps_of(graph))
    free = joint_blocks_step(plan, saliency, UNEVEN, budget_us=budget_us, steps=steps_of(graph))
    assert free.removed_blocks
    least = {"b1.inner": 8, "b2.inner": 8}
    with pytest.raises(InfeasibleBudgetError):
        joint_blocks_step(plan, saliency, UNEVEN, budget_us=budget_us, steps=steps_of(graph), least=least)


@pytest.mark.parametrize("method", [row.step for row in METHODS.values()], ids=METHODS.keys())
@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from([1.0, 0.6, 0.3]), st.sampled_from([1.0, 0.5, 0.25]))
def test_no_method_takes_more_of_a_group_than_it_may(
    method: PlanStep, data: st.DataObject, group_fraction: float, step_fraction: float
) -> None:
    graph = data.draw(channel_graphs(max_blocks=3, widths=(8, 16, 32)))
    plan, saliency = PruningPlan.dense(graph), even_saliency(graph)
    limits = WidthLimits(group_fraction=group_fraction, step_fraction=step_fraction)
    lowest = counts_latency_us(graph, UNEVEN, reachable_counts(plan, steps=steps_of(graph), num_steps=2, limits=limits))
    for _ in range(2):
        before = plan.counts()
        least = limits.least_counts(graph, before)
        budget_us = max(lowest, 0.7 * counts_latency_us(graph, UNEVEN, before))
        try:
            plan = method(plan, saliency, UNEVEN, budget_us=budget_us, steps=steps_of(graph), least=least)
        except InfeasibleBudgetError:
            return
        for group in graph.prunable_groups:
            count = len(plan.kept[group.name])
            assert count >= (1 - group_fraction) * group.num_channels - 1e-6
            assert count >= (1 - step_fraction) * before[group.name] - 1e-6


def test_a_request_that_makes_no_sense_is_refused() -> None:
    graph = graph_of([("plain", 16, 0)])
    plan = PruningPlan.dense(graph)
    with pytest.raises(GraphMismatchError, match="saliency scores"):
        joint_step(plan, Saliency(scores={}), UNEVEN, budget_us=1.0, steps=steps_of(graph))
    ask = PlanConstraints(budgets={LATENCY: 1.0}, steps=steps_of(graph), limits=Limits(least={"x": 8}))
    with pytest.raises(UsageError, match="no channel group or layer 'x'"):
        network_problem(plan, even_saliency(graph), surface_from(UNEVEN), ask)
