"""8-bit networks whose rest is fp16: legal, close to fp32, and built by TensorRT in those types."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from halp_trt.errors import UsageError
from halp_trt.graphs.mixed import quantize_in_half
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.precision import compute_types
from halp_trt.runtimes import BuildOptions, Compiler, available_runtimes, get_runtime
from tests.graphs.drawing import draw, numbers, run
from tests.graphs.test_precision import difference, feeds_of, folded
from tests.nets import NETS

TOLERANCE = 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_every_net_lies_close_to_fp32_and_computes_in_the_types_it_shows(name: str) -> None:
    model = folded(name, pruned=True)
    before = model.SerializeToString()
    examples = [feeds_of(model, seed) for seed in range(2)]
    typed = quantize_in_half(model, examples)
    assert model.SerializeToString() == before, "the argument is left alone"
    onnx.checker.check_model(typed.model, full_check=True)
    assert typed.model.opset_import[0].version >= 19
    types = compute_types(typed.model)
    assert {kind for node, kind in types.items() if node not in typed.kept} == {"int8"}
    assert {types[node] for node in typed.kept} <= {"fp16"}
    assert all("in fp16, its weights are computed, or it is transposed" in why for why in typed.kept.values())
    assert {value.type.tensor_type.elem_type for value in (*typed.model.graph.input, *typed.model.graph.output)} == {1}
    assert 0 < max(difference(run(model, feeds), run(typed.model, feeds)) for feeds in examples) < TOLERANCE
    if "tensorrt-rtx" in available_runtimes():
        runtime = get_runtime("tensorrt-rtx")
        assert isinstance(runtime, Compiler)
        built = runtime.compile(typed.model.SerializeToString(), runtime.target("int8", 1), BuildOptions())
        assert built.types == types, "as TensorRT's own parser reads it"


def test_what_is_between_quantised_layers_is_fp16() -> None:
    typed = quantize_in_half(folded("squeeze-excite"), [feeds_of(folded("squeeze-excite"))])
    kinds = {v.name: v.type.tensor_type.elem_type for v in typed.model.graph.value_info}
    for node in typed.model.graph.node:
        if node.op_type in ("Mul", "Sigmoid", "ReduceMean", "HardSwish", "Add", "Conv"):
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT16
    old = convert_opset(folded("chain"), 17)
    assert quantize_in_half(old, [feeds_of(old)]).model.opset_import[0].version == 19


def chain(scale: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "v"], ["b"], "second"),
        helper.make_node("Mul", ["b", "down"], ["y"], "mul"),
    ]
    weights = {
        "w": np.float32(scale) * numbers(4, 4, 3, 3),
        "v": numbers(2, 4, 1, 1),
        "down": np.array([1 / scale], np.float32),
    }
    return draw(nodes, weights, inputs={"x": (1, 4, 6, 6)}, outputs=["y"], opset=19)


def test_what_leaves_the_range_stays_in_8_bits_with_fp32_around_it() -> None:
    model, feeds = chain(3e4), {"x": numbers(1, 4, 6, 6)}
    typed = quantize_in_half(model, [feeds])
    assert set(compute_types(typed.model).values()) == {"int8"}
    assert set(typed.kept) == {"mul"}, "the products are 8 bits; what they write is another matter"
    assert difference(run(model, feeds), run(typed.model, feeds)) < TOLERANCE


@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_scales_stay_where_fp16_has_them(scale: float) -> None:
    model, feeds = chain(scale), {"x": numbers(1, 4, 6, 6)}
    typed = quantize_in_half(model, [feeds])
    names = {node.input[1] for node in typed.model.graph.node if node.op_type == "QuantizeLinear"}
    scales = [onnx.numpy_helper.to_array(t) for t in typed.model.graph.initializer if t.name in names]
    assert scales
    assert min(float(value.min()) for value in scales) >= 2.0**-16
    assert all(np.isfinite(value).all() for value in run(typed.model, feeds))


def test_kept_nodes_are_fp32_and_unknown_ones_refused() -> None:
    model = folded("chain")
    first = next(node.name for node in model.graph.node if node.op_type == "Conv")
    typed = quantize_in_half(model, [feeds_of(model)], keep=[first])
    assert compute_types(typed.model)[first] == "fp32"
    assert typed.kept == {first: "asked for"}
    with pytest.raises(UsageError, match="no node 'nothing'"):
        quantize_in_half(model, [feeds_of(model)], keep=["nothing"])
