"""Lone layers in the types of their network: valid, shaped alike, and no conversion left on their edges."""

from __future__ import annotations

import onnx
import pytest

from halp_trt.device.tensorrt.bindings import Library
from halp_trt.graphs.typed_probe import make_typed_probe
from halp_trt.runtimes import MARKER, BuildOptions, available_runtimes
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.runtimes.tensorrt.build import compile_plan
from halp_trt.runtimes.tensorrt.runtime import TensorRT
from halp_trt.specs import PRECISIONS, LayerSpec

WINDOW = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "in_size": (10, 10)}
SPECS = {
    "conv": LayerSpec(operator="Conv", in_channels=16, out_channels=10, bias=True, epilogue=("Relu",), **WINDOW),
    "residual": LayerSpec(
        operator="Conv", in_channels=8, out_channels=8, bias=True, epilogue=("Add", "Relu"), **WINDOW
    ),
    "depthwise": LayerSpec(operator="Conv", in_channels=8, out_channels=8, conv_groups=8, **WINDOW),
    "stem": LayerSpec(operator="Conv", in_channels=3, out_channels=8, bias=True, plain_input=True, **WINDOW),
    "pool": LayerSpec(operator="MaxPool", in_channels=8, out_channels=8, **WINDOW),
    "head": LayerSpec(operator="Gemm", in_channels=16, out_channels=5, bias=True),
    "mean": LayerSpec(operator="GlobalAveragePool", in_channels=8, out_channels=8, in_size=(4, 4)),
}
TYPES = {"fp32": 1, "tf32": 1, "fp16": 10, "bf16": 16, "int8": 3}


def edges(model: onnx.ModelProto) -> tuple[list[int], list[int]]:
    inputs = [value.type.tensor_type.elem_type for value in model.graph.input]
    return inputs, [value.type.tensor_type.elem_type for value in model.graph.output]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SPECS)
def test_edges_have_the_type_that_they_have_in_a_network(name: str, precision: str) -> None:
    spec, kind = SPECS[name], TYPES[precision]
    rest = TYPES["fp16"] if precision == "int8" else kind
    probe = make_typed_probe(spec, 2, precision)
    model = onnx.load_from_string(probe)
    onnx.checker.check_model(model, full_check=True)
    inputs, outputs = edges(model)
    assert inputs == [1 if name == "stem" else rest if name == "mean" else kind] * (2 if name == "residual" else 1)
    assert outputs == [rest if name in ("head", "mean") else kind]
    operators = [node.op_type for node in model.graph.node]
    assert ("Cast" in operators) == (name == "stem" and precision in ("fp16", "bf16", "int8"))
    assert not any(value.name.startswith(MARKER) for value in model.graph.input)
    assert make_typed_probe(spec, 2, precision) == probe, "the same spec always gives the same bytes"
    assert edges(cut_to_layer(model)) == (inputs, outputs), "nothing is left to cut"


def test_old_parsers_get_an_old_opset() -> None:
    model = onnx.load_from_string(make_typed_probe(SPECS["conv"], 1, "fp16", opset=17))
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    rest = onnx.load_from_string(make_typed_probe(SPECS["mean"], 1, "int8", opset=17))
    assert edges(rest) == ([1], [1]), "TensorRT before version 10 has the rest of an 8-bit network in fp32"


@pytest.mark.slow
@pytest.mark.skipif("tensorrt-rtx" not in available_runtimes(), reason="TensorRT for RTX is not installed")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SPECS)
def test_tensorrt_builds_them_with_the_formats_of_a_network(name: str, precision: str) -> None:
    import tensorrt_rtx

    lib = Library(
        name="tensorrt-rtx", title="TensorRT for RTX", module=tensorrt_rtx, is_rtx=True, has_timing_cache=False
    )
    probe = make_typed_probe(SPECS[name], 1, precision)
    built = compile_plan(lib, probe, TensorRT(library=lib).target(precision, 1), BuildOptions(), is_layer=True)
    assert built.engine.startswith(b"vtrt")
    expected = {"fp16": "fp16 LINEAR|HWC8", "bf16": "bf16 LINEAR|HWC8", "int8": "int8 LINEAR|CHW32"}
    if name in ("conv", "residual", "depthwise", "pool"):
        assert set(built.formats.values()) == {expected.get(precision, "fp32 LINEAR")}
