from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halp_trt.errors import GraphMismatchError, UsageError
from halp_trt.planning.chunks import channel_steps, slice_specs
from halp_trt.planning.pricing import counts_latency_us
from halp_trt.planning.widths import check_request, keep_most_salient, width_choices
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency
from tests.strategies import (
    channel_graphs,
    formula_lookup,
    graph_of,
    lowest_latency_us,
    plans,
    saliencies,
    staircase_us,
)


@given(count=st.integers(1, 300), step=st.integers(1, 64), least=st.none() | st.integers(1, 80))
def test_choices_are_whole_chunks_and_the_present_width(count: int, step: int, least: int | None) -> None:
    choices = width_choices(count, step, least)
    assert choices[-1] == count
    assert list(choices) == sorted(set(choices))
    assert all(choice % step == 0 and choice >= max(step, least or 0) for choice in choices[:-1])
    assert all(choice in choices for choice in range(step, count, step) if choice >= (least or 0))


@settings(max_examples=50)
@given(st.data())
def test_narrowing_keeps_the_most_salient_of_what_was_kept(data: st.DataObject) -> None:
    graph = data.draw(channel_graphs(widths=(4, 8)))
    plan, saliency = data.draw(plans(graph)), data.draw(saliencies(graph))
    counts = {g.name: data.draw(st.integers(1, len(plan.kept[g.name]))) for g in graph.prunable_groups}
    narrowed = keep_most_salient(plan, saliency, formula_lookup(), counts)
    for group in graph.prunable_groups:
        scores = saliency.scores[group.name]
        kept, dropped = narrowed.kept[group.name], set(plan.kept[group.name]) - set(narrowed.kept[group.name])
        assert len(kept) == counts[group.name]
        assert set(kept) <= set(plan.kept[group.name])
        assert all(scores[k] > scores[d] or (scores[k] == scores[d] and k < d) for k in kept for d in dropped)
    total = math.fsum(saliency.scores[g.name][c] for g in graph.prunable_groups for c in narrowed.kept[g.name])
    assert narrowed.saliency == total
    assert narrowed.latency_us == counts_latency_us(graph, formula_lookup(), narrowed.counts())


@pytest.mark.parametrize("step", [16, 32])
def test_chunks_are_the_steps_of_the_measured_staircases(step: int) -> None:
    graph = graph_of([("plain", 128, 0), ("residual", 96, 0), ("depthwise", 0, 0), ("grouped", 64, 96)], stem=64)
    lookup = formula_lookup(lambda spec: staircase_us(spec, step=step, wobble=0.02))
    steps = channel_steps(graph, lookup)
    assert steps == {
        "stem": step,
        "b0": step,  # the largest of its own convolution's, the residual's and the depthwise one's
        "b1.inner": step,
        "b3.in": step // 2,  # each channel is held twice
        "b3": step // 2,
    }


def test_the_largest_step_of_coupled_layers_counts() -> None:
    graph = graph_of([("plain", 128, 0), ("residual", 32, 0)])
    lookup = formula_lookup(lambda spec: staircase_us(spec, step=32 if spec.epilogue == ("Add", "Relu") else 16))
    assert channel_steps(graph, lookup)["b0"] == 32


def test_without_staircases_chunks_are_the_grid_step() -> None:
    graph = graph_of([("plain", 64, 0), ("grouped", 64, 32)], stem=8)
    lookup = formula_lookup(lambda spec: 1.0 + spec.in_channels * spec.out_channels)
    assert channel_steps(graph, lookup) == {"stem": 8, "b0": 8, "b1.in": 4, "b1": 4}
    assert channel_steps(graph, lookup, grid_step=4) == {"stem": 4, "b0": 4, "b1.in": 2, "b1": 2}
    with pytest.raises(UsageError, match="grid step"):
        channel_steps(graph, lookup, grid_step=0)


@settings(max_examples=25)
@given(channel_graphs())
def test_slices_are_asked_for_once_and_are_all_that_is_needed(graph: ChannelGraph) -> None:
    specs = slice_specs(graph)
    assert len(set(specs)) == len(specs)
    measured = formula_lookup()(specs)
    assert set(channel_steps(graph, lambda _: measured)) == {g.name for g in graph.prunable_groups}


def test_the_lowest_latency_is_that_of_one_chunk_everywhere() -> None:
    graph = graph_of([("plain", 64, 0), ("concat", 32, 48)], stem=24)
    steps = {g.name: 16 for g in graph.prunable_groups}
    dense = PruningPlan.dense(graph)
    narrowest = {"input": 3, "classifier": 10, **steps}
    assert lowest_latency_us(dense, formula_lookup(), steps=steps) == counts_latency_us(
        graph, formula_lookup(), narrowest
    )
    wider = lowest_latency_us(dense, formula_lookup(), steps=steps, least=dict.fromkeys(steps, 17))
    assert wider == counts_latency_us(graph, formula_lookup(), {**narrowest, **dict.fromkeys(steps, 32), "stem": 24})


def test_requests_that_make_no_sense_are_refused() -> None:
    graph = graph_of([], stem=4)
    plan, saliency = PruningPlan.dense(graph), Saliency(scores={"stem": (1.0,) * 4})
    check_request(plan, saliency, budget_us=1.0, steps={"stem": 2})
    with pytest.raises(UsageError, match="budget must be positive"):
        check_request(plan, saliency, budget_us=0.0, steps={"stem": 2})
    with pytest.raises(UsageError, match="step of at least 1"):
        check_request(plan, saliency, budget_us=1.0, steps={})
    with pytest.raises(GraphMismatchError, match="4 channels but 3 saliency scores"):
        check_request(plan, Saliency(scores={"stem": (1.0,) * 3}), budget_us=1.0, steps={"stem": 2})


def test_grouped_layers_are_specified_at_valid_widths() -> None:
    graph = graph_of([("grouped", 64, 32)])
    grouped = [spec for spec in slice_specs(graph) if spec.conv_groups == 2]
    assert {spec.out_channels for spec in grouped} == set(range(8, 65, 8))
    assert grouped[0].in_channels == 128
