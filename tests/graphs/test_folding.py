"""Folded batch norms compute what they did."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, helper

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.folding import fold_batch_norms, fold_constants
from tests.graphs.drawing import draw, norm, norm_constants, numbers, run


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = gs.import_onnx(model)
    fold_batch_norms(graph)
    fold_constants(graph)
    return gs.export_onnx(graph.cleanup().toposort())


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def check(
    nodes: list[NodeProto], constants: dict[str, np.ndarray], shape: tuple[int, ...], expected: list[str]
) -> None:
    model = draw(nodes, constants, inputs={"x": shape}, outputs=["y"])
    after, feeds = folded(model), {"x": numbers(*shape, seed=9)}
    assert operators(after) == expected
    for one, other in zip(run(model, feeds), run(after, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["Conv", "ConvTranspose"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans()
)
def test_into_convolutions(kind: str, groups: int, ins: int, outs: int, bias: bool) -> None:
    widths = (groups * outs, ins) if kind == "Conv" else (groups * ins, outs)
    constants = {"w": numbers(*widths, 3, 2), "b": numbers(groups * outs, seed=1)}
    node = helper.make_node(kind, ["x", "w", *["b"] * bias], ["a"], "a", group=groups)
    last = norm("y", "a")
    check([node, last], {**constants, **norm_constants("y", groups * outs, 2)}, (1, groups * ins, 5, 5), [kind])


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_into_linear_layers(transposed: int, bias: bool) -> None:
    weight = numbers(6, 5) if transposed else numbers(5, 6)
    node = helper.make_node("Gemm", ["x", "w", *["b"] * bias], ["a"], "a", transB=transposed)
    constants = {"w": weight, "b": numbers(6, seed=1), **norm_constants("y", 6, 2)}
    check([node, norm("y", "a")], constants, (3, 5), ["Gemm"])


def test_a_scaled_linear_layer_keeps_its_norm() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["a"], "a", transB=1, alpha=0.5)
    constants = {"w": numbers(6, 5), **norm_constants("y", 6)}
    check([node, norm("y", "a")], constants, (3, 5), ["Gemm", "BatchNormalization"])


def test_two_norms_in_a_row_fold_both() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], "a"), norm("n", "a"), norm("y", "n")]
    constants = {"w": numbers(6, 4, 1, 1), **norm_constants("n", 6, 1), **norm_constants("y", 6, 5)}
    check(nodes, constants, (1, 4, 3, 3), ["Conv"])


def test_a_weight_that_two_convolutions_share_is_folded_twice() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "a"), norm("n", "a"),
        helper.make_node("Conv", ["n", "w"], ["b"], "b"), norm("m", "b"), helper.make_node("Add", ["m", "n"], ["y"]),
    ]  # fmt: skip
    constants = {"w": numbers(4, 4, 1, 1), **norm_constants("n", 4, 1), **norm_constants("m", 4, 5)}
    check(nodes, constants, (1, 4, 3, 3), ["Conv", "Conv", "Add"])


def test_a_norm_whose_input_others_read_stays() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "a"), norm("n", "a"), helper.make_node("Add", ["a", "n"], ["y"]),
    ]  # fmt: skip
    constants = {"w": numbers(4, 4, 1, 1), **norm_constants("n", 4)}
    check(nodes, constants, (1, 4, 3, 3), ["Conv", "BatchNormalization", "Add"])


def test_a_norm_behind_an_output_stays() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], "a"), norm("y", "a")]
    constants = {"w": numbers(4, 4, 1, 1), **norm_constants("y", 4)}
    model = draw(nodes, constants, inputs={"x": (1, 4, 3, 3)}, outputs=["y", "a"])
    assert operators(folded(model)) == ["Conv", "BatchNormalization"]


def test_views_of_constants_are_folded() -> None:
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], "t", perm=[1, 0]),
        helper.make_node("Reshape", ["t", "shape"], ["r"], "r"),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    constants = {"k": numbers(3, 2), "shape": np.array([0, 3, 1], dtype=np.int64)}
    check(nodes, constants, (2, 3, 4), ["Add"])


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("odd", ["b", "y.scale"])
def test_widths_that_do_not_fit_are_named(kind: str, odd: str) -> None:
    conv = helper.make_node(kind, ["x", "w", "b"], ["a"], "a")
    last = norm("y", "a")
    constants = {"w": numbers(4, 4, 1, 1), "b": numbers(4, seed=1), **norm_constants("y", 4, 2)}
    model = draw([conv, last], constants, inputs={"x": (1, 4, 3, 3)}, outputs=["y"])
    name = odd if odd == "b" else last.input[1]
    tensor = next(i for i in model.graph.initializer if i.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(numbers(4, 2), name))
    with pytest.raises(UnsupportedLayerError, match=r"adds numbers of shape \(4, 2\) to 4 channels of 'a'"):
        folded(model)
