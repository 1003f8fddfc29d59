"""Old forms of new operators compute the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.operators import REDUCTIONS
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trial import half_plan
from tests.graphs.drawing import draw, numbers, run
from tests.nets import NETS, traced

X = numbers(2, 3, 4, 6)


def node(kind: str, *sources: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, ["x", *sources], ["y"], "it", **attributes)


def old_of(single: NodeProto, *, opset: int = 18, **constants: np.ndarray) -> onnx.ModelProto:
    model = draw([single], constants, inputs={"x": X.shape}, outputs=["y"], opset=opset)
    before = model.SerializeToString()
    old = convert_opset(model, 17)
    assert model.SerializeToString() == before, "the argument is left alone"
    onnx.checker.check_model(old, full_check=True)
    assert (old.ir_version, [(d.domain, d.version) for d in old.opset_import]) == (8, [("", 17)])
    feeds = {"x": np.abs(X) if single.op_type == "ReduceLogSum" else X}
    for one, other in zip(run(model, feeds), run(old, feeds), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return old


def axes(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("picked", [axes(2, 3), axes(-1, -2)])
def test_spatial_means_become_global_average_pooling(keepdims: int, picked: np.ndarray) -> None:
    old = old_of(node("ReduceMean", "axes", keepdims=keepdims), axes=picked)
    assert [n.op_type for n in old.graph.node] == ["GlobalAveragePool", *["Flatten"] * (1 - keepdims)]


@pytest.mark.parametrize("kind", sorted(REDUCTIONS))
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("picked", [axes(1), axes(-1), axes(0, 2)])
def test_axes_of_reductions_become_attributes(kind: str, keepdims: int, picked: np.ndarray) -> None:
    (found,) = old_of(node(kind, "axes", keepdims=keepdims), axes=picked).graph.node
    if kind == "ReduceSum":
        assert len(found.input) == 2, "opset 13 took it as an input before the others"
    else:
        assert len(found.input) == 1
        (attribute,) = [a for a in found.attribute if a.name == "axes"]
        assert sorted(attribute.ints) == sorted(int(a) % 4 for a in picked)


def test_a_reduction_over_everything_keeps_meaning_that() -> None:
    old_of(node("ReduceMean", keepdims=0))


def test_gelu_is_spelt_out() -> None:
    old = old_of(node("Gelu"), opset=20)
    assert "Gelu" not in {n.op_type for n in old.graph.node}
    assert "Erf" in {n.op_type for n in old.graph.node}


def test_padding_some_axes_becomes_padding_all() -> None:
    pads, some = np.array([1, 0, 2, 1], dtype=np.int64), axes(2, -1)
    (found,) = old_of(node("Pad", "pads", "", "some", mode="constant"), pads=pads, some=some).graph.node
    assert len(found.input) <= 3


def test_splits_lose_the_number_of_outputs() -> None:
    sizes = np.array([2, 1], dtype=np.int64)
    split = helper.make_node("Split", ["x", "sizes"], ["y", "z"], "it", axis=1)
    old_of(split, sizes=sizes)


@pytest.mark.parametrize("single", [node("Gelu", approximate="tanh"), node("Mish")])
def test_what_has_no_old_form_is_named(single: NodeProto) -> None:
    model = draw([single], {}, inputs={"x": X.shape}, outputs=["y"], opset=20)
    with pytest.raises(UnsupportedLayerError, match=rf"'it' \({single.op_type}"):
        convert_opset(model, 17)
    with pytest.raises(UnsupportedLayerError, match="opset 12 is not offered; expected 17"):
        convert_opset(model, 12)


@pytest.mark.parametrize("name", NETS)
def test_every_net_has_a_form_that_tensorrt_8_5_reads(name: str) -> None:
    _, model, graph = traced(name)
    new, old = rewrite(model, half_plan(graph)), rewrite(model, half_plan(graph), opset=17)
    onnx.checker.check_model(old, full_check=True)
    assert (old.ir_version, [(d.domain, d.version) for d in old.opset_import]) == (8, [("", 17)])
    for found in old.graph.node:
        assert found.op_type not in REDUCTIONS - {"ReduceSum"} or len(found.input) == 1, "axes as an input"
    feeds = {i.name: numbers(*[d.dim_value for d in i.type.tensor_type.shape.dim]) for i in new.graph.input}
    for one, other in zip(run(new, feeds), run(old, feeds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
