"""Layers as they stand: every operator behind a fence has a probe that runs, or says before why it has none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import NodeProto, helper
from torch import Tensor, nn

from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.unprobed import probe_refusal, unprobed
from halp_trt.models.trace import half_plan
from halp_trt.runtimes.noise import random_inputs
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.specs import ChannelGraph, LayerSpec
from halp_trt.store import decode, encode
from tests.graphs.agreement import WIDTH, Trunk, seeded, traced
from tests.graphs.drawing import conv, draw, numbers

TYPES = {"tensor(float)": "float32", "tensor(bool)": "bool", "tensor(int64)": "int64", "tensor(int32)": "int32"}


def drawn(*nodes: NodeProto, outputs: tuple[str, ...] = ("o",), **constants: object) -> ChannelGraph:
    """Behind ``a(x)`` of shape 1 x 8 x 6 x 6."""
    weights = {"a.weight": numbers(8, 3, 1, 1), **constants}
    shapes = {"x": (1, 3, 6, 6)}
    model = draw([conv("a", "x"), *nodes], weights, inputs=shapes, outputs=outputs, opset=20)
    return channel_graph(model, {"a.weight"})


def whole(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def layer(graph: ChannelGraph, operator: str) -> LayerSpec:
    (spec,) = (layer.spec for layer in graph.layers if layer.spec.operator == operator)
    return spec


def outcome(spec: LayerSpec) -> list[tuple[int, ...]]:
    """Shapes of what the probe's layer computes, once its edges are cut off, from the noise that runtimes feed."""
    cut = cut_to_layer(onnx.load_from_string(make_probe(spec, 1)))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(cut.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = session.get_inputs()
    feeds = random_inputs({i.name: i.shape for i in inputs}, types={i.name: TYPES[i.type] for i in inputs})
    return [value.shape for value in session.run(None, feeds)]


N = helper.make_node
STANDING: dict[str, tuple[Callable[[], ChannelGraph], list[tuple[int, ...]]]] = {
    "Einsum": (lambda: drawn(N("Einsum", ["a", "a"], ["o"], equation="bchw,bdhw->bcd")), [(1, 8, 8)]),
    "TopK": (
        lambda: drawn(N("TopK", ["a", "three"], ["o", "places"], axis=2), outputs=("o", "places"), three=whole(3)),
        [(1, 8, 3, 6), (1, 8, 3, 6)],
    ),
    "LSTM": (
        lambda: drawn(
            N("ReduceMean", ["a", "axis"], ["mean"], keepdims=0), N("Transpose", ["mean"], ["t"], perm=[2, 0, 1]),
            N("LSTM", ["t", "w", "r", "", "lengths"], ["", "o", ""], hidden_size=4, direction="bidirectional",
              activations=["Sigmoid", "Tanh", "Relu"] * 2),
            axis=whole(3), w=numbers(2, 16, 8), r=numbers(2, 16, 4), lengths=np.array([6], dtype=np.int32),
        ),
        [(2, 1, 4)],
    ),
    "GridSample": (
        lambda: drawn(N("Slice", ["a", "zero", "two", "axis"], ["flow"]),
                      N("Transpose", ["flow"], ["grid"], perm=[0, 2, 3, 1]), N("GridSample", ["a", "grid"], ["o"]),
                      zero=whole(0), two=whole(2), axis=whole(1)),
        [(1, 8, 6, 6)],
    ),
    "ScatterND": (
        lambda: drawn(N("ScatterND", ["a", "places", "values"], ["o"]), places=np.zeros((90, 4), np.int64) + 1 * 0,
                      values=numbers(90)),
        [(1, 8, 6, 6)],
    ),
    "GatherElements": (
        lambda: drawn(N("ArgMax", ["a"], ["most"], axis=3), N("GatherElements", ["a", "most"], ["o"], axis=3)),
        [(1, 8, 6, 1)],
    ),
    "NonMaxSuppression": (
        lambda: drawn(
            N("Reshape", ["a", "flat"], ["boxes"]), N("ReduceMax", ["boxes", "axis"], ["score"]),
            N("Transpose", ["score"], ["scores"], perm=[0, 2, 1]),
            N("NonMaxSuppression", ["boxes", "scores", "most", "overlap"], ["o"]),
            flat=whole(1, 72, 4), axis=whole(2), most=whole(5), overlap=np.float32([0.5]),
        ),
        [(5, 3)],
    ),
    "RoiAlign": (
        lambda: drawn(N("GlobalAveragePool", ["a"], ["m"]), N("Reshape", ["m", "two"], ["rois"]),
                      N("RoiAlign", ["a", "rois", "pictures"], ["o"], output_height=2, output_width=2),
                      two=whole(2, 4), pictures=whole(0, 0)),
        [(2, 8, 2, 2)],
    ),
    "OneHot": (
        lambda: drawn(N("ArgMax", ["a"], ["most"], axis=1, keepdims=0), N("OneHot", ["most", "eight", "values"], ["o"]),
                      eight=whole(8), values=np.float32([0, 1])),
        [(1, 6, 6, 8)],
    ),
    "CumSum": (lambda: drawn(N("CumSum", ["a", "two"], ["o"]), two=np.array(2)), [(1, 8, 6, 6)]),
    "DFT": (
        lambda: drawn(N("Unsqueeze", ["a", "last"], ["u"]), N("DFT", ["u", "", "two"], ["o"], onesided=1),
                      last=whole(4), two=np.array(2)),
        [(1, 8, 4, 6, 2)],
    ),
    "GatherND": (
        lambda: drawn(N("Transpose", ["a"], ["t"], perm=[2, 3, 0, 1]), N("GatherND", ["t", "places"], ["o"]),
                      places=np.stack([np.arange(100) % 6, np.arange(100) % 5], -1)),
        [(100, 1, 8)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("operator", STANDING)
def test_a_layer_as_it_stands_has_a_probe_that_runs(operator: str) -> None:
    make, shapes = STANDING[operator]
    spec = layer(make(), operator)
    assert probe_refusal(spec, 1) == ""
    assert outcome(spec) == shapes
    assert make_probe(spec, 1) == make_probe(spec, 1)
    assert decode(LayerSpec, encode(spec)) == spec


def test_a_split_of_tokens_is_probed_with_its_own_sizes() -> None:
    graph = drawn(N("Split", ["a", "sizes"], ["o", "p"], axis=2), outputs=("o", "p"), sizes=whole(2, 4))
    assert outcome(layer(graph, "Split")) == [(1, 8, 2, 6), (1, 8, 4, 6)]


def test_products_of_computed_matrices_are_probed_with_their_true_factors() -> None:
    def attend(net: Trunk, z: Tensor) -> Tensor:
        q, k, v = net.parts["qkv"](z.flatten(2).transpose(1, 2)).reshape(1, 144, 3, 2, 6).permute(2, 0, 3, 1, 4)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v

    _, graph = traced(seeded(lambda: Trunk(attend, qkv=nn.Linear(WIDTH, 36))), torch.randn(1, 3, 12, 12))
    products = [layer.spec for layer in graph.layers if layer.spec.operator == "MatMul" and layer.spec.operands]
    assert [outcome(spec) for spec in products] == [[(1, 2, 144, 144)], [(1, 2, 144, 6)]]


def test_channels_picked_at_a_narrower_width_stay_in_range() -> None:
    module = seeded(lambda: Trunk(lambda _, z: z.index_select(1, torch.tensor([7, 6, 5, 0])), nn.Conv2d(4, 5, 1)))
    _, graph = traced(module, torch.randn(1, 3, 12, 12))
    (picking,) = (layer for layer in graph.layers if layer.spec.operator == "Gather")
    narrow = picking.spec_at(half_plan(graph).counts())
    assert outcome(narrow) == [(1, narrow.out_channels, 12, 12)]


def test_what_has_no_probe_is_known_before_with_the_reason() -> None:
    then = helper.make_graph(
        [N("Relu", ["a"], ["t"], "t")], "then", [], [helper.make_tensor_value_info("t", 1, [1, 8, 6, 6])]
    )
    other = helper.make_graph(
        [N("Neg", ["a"], ["e"], "e")], "else", [], [helper.make_tensor_value_info("e", 1, [1, 8, 6, 6])]
    )
    branching = drawn(
        N("ReduceMax", ["x"], ["most"], keepdims=0), N("Greater", ["most", "zero"], ["is"]),
        N("If", ["is"], ["o"], then_branch=then, else_branch=other), zero=np.float32(0),
    )  # fmt: skip
    assert unprobed(branching, 1) == {"o": "it runs a sub-graph"}
    found = drawn(N("Greater", ["a", "zero"], ["is"]), N("NonZero", ["is"], ["places"]),
                  N("Transpose", ["places"], ["o"]), zero=np.float32(0))  # fmt: skip
    assert unprobed(found, 1) == {"o": "the shape of its input 'places' is known at run time alone"}
