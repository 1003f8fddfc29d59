"""Quantised networks stay close to fp32, and carry their pairs where TensorRT fuses and its parser allows them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from halp_trt.errors import BuildError, UsageError
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.precision import compute_types
from halp_trt.graphs.quantize import STYLES, quantize
from tests.graphs.drawing import draw, numbers, run
from tests.graphs.test_precision import difference, feeds_of, folded
from tests.nets import NETS

TOLERANCE = 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_int8_lies_close_to_fp32_in_every_net(name: str) -> None:
    model = convert_opset(folded(name), 17)
    before = model.SerializeToString()
    examples = [feeds_of(model, seed) for seed in range(4)]
    typed = quantize(model, examples)
    assert model.SerializeToString() == before, "the argument is left alone"
    assert (typed.model.ir_version, typed.model.opset_import[0].version) == (8, 17), "for TensorRT 8.5"
    types = compute_types(typed.model)
    assert {kind for node, kind in types.items() if node not in typed.kept} == {"int8"}
    assert all(types[node] == "fp32" for node in typed.kept)
    worst = max(difference(run(model, feeds), run(typed.model, feeds)) for feeds in examples)
    assert 0 < worst < TOLERANCE


@pytest.mark.parametrize("name", ["residual", "depthwise"])
def test_the_parser_of_tensorrt_allows_it(name: str) -> None:
    model = folded(name)
    graph = gs.import_onnx(quantize(model, [feeds_of(model)]).model)
    for node in graph.nodes:
        if node.op == "DequantizeLinear":
            assert node.inputs[0].dtype == np.int8, "no 32-bit bias, no unsigned activations"
            assert not np.asarray(node.inputs[2].values).any(), "symmetric"
        if node.op == "Conv":
            weights = node.inputs[1].inputs[0]
            assert weights.op == "DequantizeLinear"
            scales = np.asarray(weights.inputs[1].values)
            assert scales.shape == (node.outputs[0].shape[1],), "a scale per output channel"
            assert isinstance(node.inputs[2], gs.Constant), "the bias is plain"


@pytest.mark.parametrize("name", ["residual", "bottleneck", "depthwise"])
def test_a_convolution_its_residual_and_activation_stay_one_kernel(name: str) -> None:
    model = folded(name)
    graph = gs.import_onnx(quantize(model, [feeds_of(model)]).model)
    additions = [node for node in graph.nodes if node.op == "Add"]
    assert additions
    for node in additions:
        writers = Counter(tensor.inputs[0].op for tensor in node.inputs)
        assert writers == {"Conv": 1, "DequantizeLinear": 1}
        (reader,) = node.outputs[0].outputs if node.outputs[0].outputs[0].op == "Relu" else (None,)
        assert reader is None or reader.op == "Relu", "nothing stands between the addition and its activation"


def test_every_style_computes_nearly_the_same() -> None:
    model = folded("residual")
    examples = [feeds_of(model, seed) for seed in range(4)]
    for style in STYLES:
        typed = quantize(model, examples, style=style)
        assert difference(run(model, examples[0]), run(typed.model, examples[0])) < TOLERANCE
    assert set(compute_types(typed.model).values()) == {"uint8"}


def test_kept_nodes_are_not_quantised() -> None:
    model = folded("chain")
    first = next(node.name for node in model.graph.node if node.op_type == "Conv")
    typed = quantize(model, [feeds_of(model)], keep=[first])
    assert compute_types(typed.model)[first] == "fp32"
    assert typed.kept == {first: "asked for"}
    with pytest.raises(UsageError, match="no node 'nothing'"):
        quantize(model, [feeds_of(model)], keep=["nothing"])


def test_without_examples_or_products_there_is_nothing_to_do() -> None:
    with pytest.raises(UsageError, match="calibrated on pictures and there are none"):
        quantize(folded("chain"), [])
    relu = draw([onnx.helper.make_node("Relu", ["x"], ["y"], "it")], {}, inputs={"x": (1, 2)}, outputs=["y"], opset=18)
    with pytest.raises(BuildError, match="nothing to quantise"):
        quantize(relu, [{"x": numbers(1, 2)}])
