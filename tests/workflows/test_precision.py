"""Which form of a precision a target is given."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from halp_trt.errors import UsageError
from halp_trt.runtimes import get_runtime
from halp_trt.workflows.precision import check_measurable, preparer
from tests.graphs.test_precision import feeds_of, folded

RUNTIME = get_runtime("onnxruntime")
TARGET = RUNTIME.target("int8", 1)


@pytest.mark.parametrize(
    ("runtime", "version", "rest", "opset"),
    [
        ("tensorrt", "8.5.2.2", onnx.TensorProto.FLOAT, 17),
        ("tensorrt", "10.4.0", onnx.TensorProto.FLOAT16, 20),
        ("tensorrt", "11.4.0", onnx.TensorProto.FLOAT16, 20),
        ("tensorrt-rtx", "1.7.1.116", onnx.TensorProto.FLOAT16, 20),
        ("onnxruntime", "1.31.1", onnx.TensorProto.FLOAT, 20),
    ],
)
def test_what_surrounds_8_bits_depends_on_the_runtime(runtime: str, version: str, rest: int, opset: int) -> None:
    model = folded("squeeze-excite")
    target = replace(TARGET, runtime=runtime, runtime_version=version)
    typed = preparer(target, lambda: [feeds_of(model)])(model).model
    assert typed.opset_import[0].version == opset
    kinds = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    assert {kinds[node.output[0]] for node in typed.graph.node if node.op_type in ("Sigmoid", "HardSwish")} == {rest}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_a_name_to_keep_that_is_no_node_is_refused(precision: str) -> None:
    model = folded("residual")
    target = replace(TARGET, runtime="tensorrt-rtx", runtime_version="1.7", precision=precision)
    with pytest.raises(UsageError, match="no node 'nothing' to keep in fp32; this graph has "):
        preparer(target, lambda: [feeds_of(model)], keep=["nothing"])(model)


def test_layers_are_measured_where_they_can_be() -> None:
    with pytest.raises(UsageError, match="onnxruntime measures layers in fp32, not int8: prune with --precision fp32"):
        check_measurable(RUNTIME, TARGET)
    check_measurable(RUNTIME, replace(TARGET, precision="fp32"))
    check_measurable(RUNTIME, replace(TARGET, runtime="tensorrt"))
