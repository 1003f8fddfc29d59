"""Networks in 16 bits compute what they compute in fp32, and say in which type."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from halp_trt.errors import BuildError, NonFiniteError, UnsupportedLayerError, UsageError
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.precision import compute_types, to_half
from halp_trt.graphs.ranges import tensor_ranges
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trial import half_plan
from halp_trt.specs import PruningPlan
from tests.graphs.drawing import draw, numbers, run
from tests.nets import NETS, traced

FP16_TOLERANCE = 2e-3
X = numbers(1, 4, 6, 6)


def folded(name: str, *, pruned: bool = False) -> onnx.ModelProto:
    _, model, graph = traced(name)
    return rewrite(model, half_plan(graph) if pruned else PruningPlan.dense(graph))


def feeds_of(model: onnx.ModelProto, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim] for value in model.graph.input}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    pairs = list(zip(one, other, strict=True))
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in pairs)


@pytest.mark.parametrize("name", NETS)
def test_fp16_equals_fp32_within_its_precision(name: str) -> None:
    model = folded(name, pruned=True)
    before, feeds = model.SerializeToString(), feeds_of(model)
    typed = to_half(model, "fp16", examples=[feeds])
    assert model.SerializeToString() == before, "the argument is left alone"
    assert typed.kept == {}
    assert set(compute_types(typed.model).values()) == {"fp16"}
    assert {value.type.tensor_type.elem_type for value in (*typed.model.graph.input, *typed.model.graph.output)} == {1}
    assert difference(run(model, feeds), run(typed.model, feeds)) < FP16_TOLERANCE
    small = [weight for weight in typed.model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT]
    assert not [weight.name for weight in small if np.prod(weight.dims) > 8], "weights are stored in 16 bits"


@pytest.mark.parametrize("name", NETS)
def test_bf16_is_valid_and_typed(name: str) -> None:
    typed = to_half(folded(name), "bf16")
    types = compute_types(typed.model)
    assert {kind for node, kind in types.items() if node not in typed.kept} <= {"bf16"}
    assert all(types.get(node, "fp32") == "fp32" for node in typed.kept)
    assert typed.model.opset_import[0].version >= 22, "the first in which convolutions take bf16"


def test_bf16_computes_the_same_roughly() -> None:
    single = helper.make_node("Conv", ["x", "w"], ["y"], "it", pads=[1, 1, 1, 1])
    model = draw([single], {"w": numbers(3, 4, 3, 3)}, inputs={"x": X.shape}, outputs=["y"], opset=20)
    typed = to_half(model, "bf16").model
    (found,) = ReferenceEvaluator(typed).run(None, {"x": X})
    assert difference(run(model, {"x": X}), [found]) < 2e-2


def chain(scale: float = 1.0, *, opset: int = 18) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "v"], ["c"], "second"),
        helper.make_node("Mul", ["c", "tiny"], ["y"], "down"),
    ]
    weights = {
        "w": np.float32(scale) * numbers(4, 4, 3, 3),
        "v": numbers(2, 4, 1, 1),
        "tiny": np.array([1 / scale], np.float32),
    }
    return draw(nodes, weights, inputs={"x": X.shape}, outputs=["y"], opset=opset)


def test_kept_nodes_stay_in_fp32_with_casts_around_them() -> None:
    model = chain()
    typed = to_half(model, "fp16", keep=["second"])
    assert compute_types(typed.model) == {"first": "fp16", "second": "fp32"}
    assert typed.kept == {"second": "asked for"}
    assert difference(run(model, {"x": X}), run(typed.model, {"x": X})) < FP16_TOLERANCE
    assert sum(node.op_type == "Cast" for node in typed.model.graph.node) == 4


def test_weights_out_of_range_keep_their_node() -> None:
    typed = to_half(chain(1e6), "fp16")
    assert "the format ends at 65504" in typed.kept["first"]
    small = to_half(chain(1e-9), "fp16")
    assert "would become 0" in small.kept["first"]
    assert to_half(chain(1e6, opset=20), "bf16").kept == {}, "bf16 reaches as far as fp32"


def test_activations_out_of_range_keep_their_nodes() -> None:
    model = chain(3e4)
    without, with_examples = to_half(model, "fp16"), to_half(model, "fp16", examples=[{"x": X}])
    assert "first" not in without.kept
    assert not np.isfinite(ReferenceEvaluator(without.model).run(None, {"x": X})[0]).all(), "what it protects from"
    assert "on the examples" in with_examples.kept["first"]
    assert difference(run(model, {"x": X}), run(with_examples.model, {"x": X})) < FP16_TOLERANCE


def test_operators_that_leave_the_range_stay() -> None:
    model = draw([helper.make_node("Exp", ["x"], ["y"], "it")], {}, inputs={"x": X.shape}, outputs=["y"], opset=18)
    typed = to_half(model, "fp16")
    assert "leaves the range" in typed.kept["it"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], run(typed.model, {"x": X})[0])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_operators_that_onnx_has_in_fp32_alone_stay(precision: str) -> None:
    model = draw([helper.make_node("Celu", ["x"], ["y"], "it")], {}, inputs={"x": X.shape}, outputs=["y"], opset=18)
    assert to_half(model, precision).kept == {"it": "Celu has no 16-bit form in ONNX"}


def test_what_is_read_twice_is_cast_once() -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["a"], "exp"),
        helper.make_node("Relu", ["a"], ["b"], "one"),
        helper.make_node("Sigmoid", ["a"], ["c"], "two"),
        helper.make_node("Add", ["b", "c"], ["y"], "sum"),
    ]
    model = draw(nodes, {}, inputs={"x": X.shape}, outputs=["y", "a"], opset=18)
    typed = to_half(model, "fp16").model
    assert sum(node.op_type == "Cast" for node in typed.graph.node) == 2
    assert difference(run(model, {"x": X}), run(typed, {"x": X})) < FP16_TOLERANCE


def test_unknown_nodes_and_control_flow_are_refused() -> None:
    with pytest.raises(UsageError, match="no node 'third' to keep in fp32"):
        to_half(chain(), "fp16", keep=["third"])
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")]
    )
    single = helper.make_node("If", ["flag"], ["y"], "choice", then_branch=branch, else_branch=branch)
    model = draw([single], {"flag": np.array(True)}, inputs={"x": X.shape}, outputs=["y"], opset=18)
    with pytest.raises(UnsupportedLayerError, match="'choice'"):
        to_half(model, "fp16")
    old = convert_opset(folded("chain"), 17)
    assert to_half(old, "fp16").model.opset_import[0].version == 17
    with pytest.raises(BuildError, match="no valid form in bf16"):
        to_half(
            draw(
                [helper.make_node("ReduceSumSquare", ["x"], ["y"], "it", axes=[1])],
                {},
                inputs={"x": X.shape},
                outputs=["y"],
                opset=17,
            ),
            "bf16",
        )


def test_ranges_are_those_of_the_examples() -> None:
    model = chain()
    ranges = tensor_ranges(model, [{"x": X}, {"x": 10 * X}])
    assert ranges["y"] == pytest.approx(10 * float(np.abs(run(model, {"x": X})[0]).max()), rel=1e-5)
    assert set(ranges) == {"a", "b", "c", "y"}
    with pytest.raises(NonFiniteError, match="'a' is NaN or infinite in fp32"):
        tensor_ranges(model, [{"x": np.full_like(X, np.inf)}])
    with pytest.raises(BuildError, match=r"ONNX Runtime cannot run the network: .*; mend the model"):
        tensor_ranges(model, [{"x": X[:, :1]}])
