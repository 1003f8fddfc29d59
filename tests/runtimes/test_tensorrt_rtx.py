"""TensorRT for RTX builds plans on a CPU and says plainly what it cannot do there."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")

from halp_trt.errors import BuildError, RuntimeUnavailableError
from halp_trt.graphs.probe import make_probe
from halp_trt.runtimes import get_runtime
from halp_trt.specs import LayerSpec

runtime = get_runtime("tensorrt-rtx")
TARGET = runtime.target("fp32", 1)
CONV = LayerSpec(
    operator="Conv", in_channels=16, out_channels=8, in_size=(8, 8), kernel_size=(3, 3), epilogue=("Relu",)
)


def test_a_plan_is_built_and_needs_a_gpu() -> None:
    plan = runtime.build(make_probe(CONV, 1), TARGET)
    assert plan.startswith(b"vtrt")
    with pytest.raises(RuntimeUnavailableError, match="needs an NVIDIA GPU"):
        runtime.load(plan, TARGET)
    with pytest.raises(RuntimeUnavailableError, match="needs an NVIDIA GPU"):
        runtime.prober(TARGET).__enter__()


def test_a_refused_node_is_named() -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", (2, 2)), ("y", ()))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Det", ["x"], ["y"], name="my_det")], "g", values[:1], values[1:]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    with pytest.raises(BuildError, match=r"refuses node my_det \(Det"):
        runtime.build(model.SerializeToString(), TARGET)


def test_a_shape_that_is_not_fixed_is_refused() -> None:
    values = [onnx.helper.make_tensor_value_info(name, 1, ("n", 3)) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    with pytest.raises(BuildError, match=r"input 'x' has no fixed shape \(-1, 3\); export the model with fixed shapes"):
        runtime.build(model.SerializeToString(), TARGET)


def test_bad_models_and_targets_are_one_sentence() -> None:
    for junk in (b"no model", b"xx", b""):
        with pytest.raises(BuildError, match=r"cannot read the model|no network in these bytes"):
            runtime.build(junk, TARGET)
    with pytest.raises(BuildError, match=r"compute capability 1\.1"):
        runtime.build(make_probe(CONV, 1), replace(TARGET, compute_capability="1.1"))
