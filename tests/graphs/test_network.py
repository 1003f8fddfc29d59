"""Channel graphs as a whole: fingerprints, frozen layers, plans of other networks, nodes that are not understood."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import NodeProto, helper

from halp_trt.errors import GraphMismatchError, UnsupportedLayerError, UsageError
from halp_trt.graphs.network import Coupling, channel_graph, fingerprint
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.masks.hard import mask
from halp_trt.models.slim import slim
from halp_trt.models.trial import half_plan
from halp_trt.models.widen import unslim
from tests.graphs.drawing import conv, draw, numbers
from tests.nets import make_net, traced

NAMES = ("a", "b", "block.c", "out")


def model(*between: NodeProto, seed: int = 0, width: int = 6, stride: int = 1) -> onnx.ModelProto:
    """``out(block.c(b(a(x))))``; nodes in between read ``a`` and write ``made``."""
    last = "made" if between else "a"
    constants = {
        "a.weight": numbers(width, 3, 1, 1, seed=seed), "b.weight": numbers(8, width, 1, 1, seed=seed + 1),
        "block.c.weight": numbers(4, 8, 1, 1, seed=seed + 2), "out.weight": numbers(2, 4, 1, 1, seed=seed + 3),
    }  # fmt: skip
    nodes = [
        conv("a", "x", attributes={"strides": [stride, stride]}), *between, conv("b", last), conv("block.c", "b"),
        conv("out", "block.c"),
    ]  # fmt: skip
    return draw(nodes, constants, inputs={"x": (1, 3, 4, 4)}, outputs=["out"])


def graph_of(drawn: onnx.ModelProto, **options: object):
    return channel_graph(drawn, {f"{name}.weight" for name in NAMES}, **options)


def test_groups_are_named_after_the_layer_that_writes_them() -> None:
    graph = graph_of(model(), source_name="drawn")
    assert [(g.name, g.num_channels, g.prunable) for g in graph.groups] == [
        ("a", 6, True), ("b", 8, True), ("block.c", 4, True), ("out", 2, False), ("input", 3, False),
    ]  # fmt: skip
    assert graph.model == "drawn"
    assert graph.input_shapes == ((1, 3, 4, 4),)
    assert all(g.reason for g in graph.groups if not g.prunable)


def test_the_fingerprint_is_of_the_structure_alone() -> None:
    def print_of(drawn: onnx.ModelProto) -> str:
        return fingerprint(gs.import_onnx(drawn))

    same = print_of(model())
    assert same == graph_of(model()).fingerprint == print_of(model(seed=5))
    renamed = model()
    for node in renamed.graph.node:
        node.name += "_"
    assert print_of(renamed) == same
    relu = helper.make_node("Relu", ["a"], ["made"])
    others = [model(width=7), model(stride=2), model(relu), model(helper.make_node("Tanh", ["a"], ["made"]))]
    assert len({same, *map(print_of, others)}) == 1 + len(others)


def test_frozen_layers_and_everything_inside_a_frozen_module_stay() -> None:
    graph = graph_of(model(), frozen={"a": "the user says so", "block": "whole"})
    assert {g.name: g.reason for g in graph.groups if g.name in ("a", "b", "block.c")} == {
        "a": "the user says so", "b": "", "block.c": "whole",
    }  # fmt: skip


def test_a_misspelt_frozen_layer_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no layer 'blok\.c' to freeze; did you mean block\.c"):
        graph_of(model(), frozen={"blok.c": ""})
    with pytest.raises(UsageError, match=r"no layer 'blo' to freeze"):
        graph_of(model(), frozen={"blo": ""})


def test_another_witness_can_join_channels() -> None:
    coupling = Coupling(first=("a.weight", 0), first_positions=(0, 1, 2, 3, 4, 5),
                        second=("b.weight", 0), second_positions=(0, 1, 2, 3, 4, 5))  # fmt: skip
    graph = graph_of(model(), couplings=(coupling,))
    assert [(g.name, g.num_channels) for g in graph.prunable_groups] == [("a", 6), ("b", 2), ("block.c", 4)]
    outside = Coupling(first=("a.weight", 0), first_positions=(9,), second=("b.weight", 0), second_positions=(0,))
    unknown = Coupling(first=("z.weight", 0), first_positions=(0,), second=("b.weight", 0), second_positions=(0,))
    assert graph_of(model(), couplings=(outside, unknown)) == graph_of(model())


# ---- what is not understood -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["CumSum", "Det", "EyeLike"])
def test_an_operator_that_is_not_understood_freezes_what_it_reads_and_is_named(kind: str) -> None:
    drawn = model(helper.make_node("Relu", ["a"], ["made"]))
    drawn.graph.node[1].op_type = kind
    drawn.graph.node[1].name = "neck.strange"
    graph = graph_of(drawn)
    assert [group.name for group in graph.prunable_groups] == ["b", "block.c"]
    assert graph.group("a").reason == (f"neck.strange ({kind}) reads it, and channels cannot be followed through that")


def test_a_known_operator_of_another_domain_is_not_understood() -> None:
    drawn = model(helper.make_node("Relu", ["a"], ["made"]))
    drawn.graph.node[1].domain = "com.example"
    graph = graph_of(drawn)
    assert graph.group("a").reason.startswith("made (Relu) reads it")
    assert graph.layers[1].spec.operator == "com.example::Relu"


def test_weights_computed_at_run_time_are_a_fence_and_dynamic_shapes_are_named() -> None:
    between = [
        helper.make_node("ReduceMean", ["a", "axes"], ["mean"], keepdims=1),
        helper.make_node("Conv", ["a", "mean"], ["made"], "dynamic"),
    ]
    drawn = model(helper.make_node("Relu", ["a"], ["made"]))
    nodes = [drawn.graph.node[0], *between, *drawn.graph.node[2:]]
    del drawn.graph.node[:]
    drawn.graph.node.extend(nodes)
    drawn.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    graph = graph_of(onnx.shape_inference.infer_shapes(drawn))
    assert graph.group("a").reason == "node 'dynamic' (Conv) computes its weights at run time"
    assert [group.name for group in graph.prunable_groups] == ["b", "block.c"]
    dynamic = model()
    dynamic.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(UnsupportedLayerError, match=r"'x' has no static shape .* --input"):
        graph_of(dynamic)


# ---- plans of other networks ----------------------------------------------------------------------------------------


def test_a_plan_of_another_network_is_refused_wherever_it_is_used() -> None:
    plan = half_plan(graph_of(model()))
    with pytest.raises(GraphMismatchError, match=r"another network: it wants 'a\.weight' with 6 channels on axis 0"):
        rewrite(model(width=7), plan)
    net = make_net("chain")
    before = copy.deepcopy(net.state_dict())
    for use in (mask, slim):
        with pytest.raises(GraphMismatchError, match="made for another network"):
            use(net, plan)
    assert all(bool((value == before[name]).all()) for name, value in net.state_dict().items())
    widths = half_plan(graph_of(model(width=7)))
    assert rewrite(model(width=7), widths).graph.initializer[0].dims[0] == 4


def test_weights_of_another_run_do_not_spread() -> None:
    net, _, graph = traced("chain")
    plan, other = half_plan(graph), half_plan(graph, [graph.prunable_groups[0].name])
    slimmed = slim(copy.deepcopy(net), plan).state_dict()
    with pytest.raises(GraphMismatchError, match="use the plan and weights of one run"):
        unslim(copy.deepcopy(net), other, slimmed)
