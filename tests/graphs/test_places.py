"""Channels through what picks and writes elements: along axes without places they are followed, or frozen by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from halp_trt.graphs.execute import execute
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trace import half_plan, uneven_plan
from halp_trt.runtimes import get_runtime
from halp_trt.specs import ChannelGraph, PruningPlan
from tests.graphs.agreement import (
    PICTURE,
    WIDTH,
    Trunk,
    agreeing_graph,
    prunable,
    random_plan,
    reason,
    seeded,
    traced,
)
from tests.graphs.drawing import conv, draw, numbers
from tests.graphs.masked import assert_cut_equals_masked_for

PLACES = torch.arange(144) * 7 % 20
"""Of 144 positions of a picture the cell of 20 that each belongs to."""


def end() -> nn.Module:
    return nn.Conv1d(WIDTH, 5, 1)


def canvas(z: Tensor, size: int = 20) -> Tensor:
    return torch.zeros(z.shape[0], z.shape[1], size)


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "scatter_add by a table of places": lambda: Trunk(
        lambda _, z: canvas(z).scatter_add(2, PLACES.expand(z.shape[0], z.shape[1], -1), z.flatten(2)), end()
    ),
    "index_add": lambda: Trunk(lambda _, z: canvas(z).index_add(2, PLACES, z.flatten(2)), end()),
    "index_put that adds": lambda: Trunk(
        lambda _, z: canvas(z)[0].t().index_put((PLACES,), z.flatten(2)[0].t(), accumulate=True).t()[None], end()
    ),
    "assignment to columns": lambda: Trunk(lambda net, z: assigned(z), end()),
    "gather by a table of places": lambda: Trunk(
        lambda _, z: z.flatten(2).gather(2, (torch.arange(28) * 5).expand(z.shape[0], z.shape[1], -1)), end()
    ),
    "gather at computed places": lambda: Trunk(
        lambda _, z: z.flatten(2).gather(2, z.flatten(2).round().long() % 9), end()
    ),
    "scatter_add at computed places": lambda: Trunk(
        lambda _, z: torch.zeros_like(flat(z)).scatter_add(2, flat(z).round().long() % 9, flat(z)), end()
    ),
}


def flat(z: Tensor) -> Tensor:
    return z.flatten(2)


def assigned(z: Tensor) -> Tensor:
    """Pillars laid on a canvas, as PointPillars does it."""
    ground = z.new_zeros(z.shape[1], 200)
    ground[:, torch.arange(144)] = z.flatten(2)[0]
    return ground[None]


@cache
def exported(name: str) -> tuple[nn.Module, onnx.ModelProto, ChannelGraph]:
    module = seeded(FOLLOWED[name])
    return module, *traced(module, torch.randn(PICTURE))


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed(name: str) -> None:
    module, model, graph = exported(name)
    assert prunable(graph) == {"first": WIDTH, "second": WIDTH}
    for make_plan in (PruningPlan.dense, half_plan, uneven_plan, random_plan):
        assert_cut_equals_masked_for(module, model, make_plan(graph), torch.randn(PICTURE))


def test_a_canvas_that_is_not_zero_keeps_its_channels_where_a_reader_sees_them() -> None:
    module = seeded(
        lambda: Trunk(lambda net, z: net.parts["out"](canvas(z).add(1.0).index_add(2, PLACES, z.flatten(2))), out=end())
    )
    assert prunable(agreeing_graph(module)) == {"first": WIDTH, "second": WIDTH}, "its weights are zero there"


WEIGHTS = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(4, 8, 1, 1)}


def test_where_elements_are_picked_along_the_channels_these_stay() -> None:
    picking = helper.make_node("GatherElements", ["a", "places"], ["picked"], axis=1)
    nodes = [conv("a", "x"), picking, conv("b", "picked")]
    places = np.random.default_rng(0).integers(0, 8, (1, 8, 6, 6))
    drawn = draw(nodes, {**WEIGHTS, "places": places}, inputs={"x": (1, 3, 6, 6)}, outputs=["b"])
    graph = channel_graph(drawn, set(WEIGHTS))
    assert graph.prunable_groups == ()
    assert "(GatherElements) picks elements along it" in reason(graph, "a")


def test_what_is_placed_along_the_channels_stays_and_the_rest_is_pruned() -> None:
    nodes = [
        conv("a", "x"), conv("c", "a"),
        helper.make_node("ScatterND", ["c", "places", "values"], ["placed"]), conv("b", "placed"),
    ]  # fmt: skip
    constants = {**WEIGHTS, "c.weight": numbers(8, 8, 1, 1), "values": numbers(2, 6, 6),
                 "places": np.array([[0, 1], [0, 5]])}  # fmt: skip
    drawn = draw(nodes, constants, inputs={"x": (1, 3, 6, 6)}, outputs=["b"])
    graph = channel_graph(drawn, {name for name in constants if name.endswith("weight")})
    assert prunable(graph) == {"a": 8}
    assert "placed (ScatterND) places along it" in reason(graph, "c")
    feeds = {"x": numbers(1, 3, 6, 6)}
    dense = execute(drawn, feeds)["b"]
    assert execute(rewrite(drawn, half_plan(graph)), feeds)["b"].shape == dense.shape


@pytest.mark.parametrize("name", FOLLOWED)
def test_probes_run_at_dense_and_narrow_widths(name: str) -> None:
    _, _, graph = exported(name)
    counts = half_plan(graph).counts()
    moving = [layer for layer in graph.layers if layer.spec.operator.startswith(("Scatter", "GatherE"))]
    assert moving
    for layer in moving:
        assert layer.in_groups
        assert layer.spec_at(counts).in_channels == WIDTH // 2
        for spec in (layer.spec, layer.spec_at(counts)):
            session = ort.InferenceSession(make_probe(spec, 1), providers=["CPUExecutionProvider"])
            values = session.run(None, {i.name: np.ones(i.shape, np.float32) for i in session.get_inputs()})
            assert all(np.isfinite(value).all() for value in values)


def test_places_of_a_probe_are_spread_over_all_of_its_data() -> None:
    module = seeded(lambda: Trunk(lambda _, z: z.flatten(2).index_select(2, torch.arange(400) * 11 % 144), end()))
    _, graph = traced(module, torch.randn(PICTURE))
    (spec,) = (layer.spec for layer in graph.layers if layer.spec.operator == "Gather")
    constants = onnx.load_from_string(make_probe(spec, 1)).graph.initializer
    (places,) = (onnx.numpy_helper.to_array(value) for value in constants if value.data_type == onnx.TensorProto.INT64)
    assert set(places.tolist()) == set(range(144))


@pytest.mark.parametrize("name", [name for name in FOLLOWED if "computed" not in name])
def test_pytorch_s_runtime_computes_the_same(name: str) -> None:
    _, model, _ = exported(name)
    runtime = get_runtime("torch")
    target = runtime.target("fp32", 1)
    session = runtime.load(runtime.build(model.SerializeToString(), target), target)
    feeds = {model.graph.input[0].name: numbers(*PICTURE)}
    for found, expected in zip(session.run(feeds).values(), execute(model, feeds).values(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
