"""Small ONNX graphs drawn by hand, for what no exporter would write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def numbers(*shape: int, seed: int = 0, low: float = -1.0) -> Array:
    return np.random.default_rng(seed).uniform(low, 1.0, shape).astype(np.float32)


def draw(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    *,
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    opset: int = 18,
    known: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """A model with known and inferred shapes; nodes without a name are named after their output."""
    for node in nodes:
        node.name = node.name or node.output[0]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        value_info=known,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def conv(name: str, source: str, *, attributes: Mapping[str, object] | None = None) -> onnx.NodeProto:
    """A convolution by the constant ``<name>.weight``."""
    return helper.make_node("Conv", [source, f"{name}.weight"], [name], name, **(attributes or {}))


def norm(name: str, source: str) -> onnx.NodeProto:
    """A batch norm on the constants of ``norm_constants``."""
    parts = [f"{name}.{part}" for part in ("weight", "bias", "mean", "var")]
    return helper.make_node("BatchNormalization", [source, *parts], [name], name, epsilon=1e-3)


def norm_constants(name: str, width: int, seed: int = 0) -> dict[str, Array]:
    """Lively statistics."""
    parts = ("weight", "bias", "mean", "var")
    return {f"{name}.{part}": numbers(width, seed=seed + i, low=0.3) for i, part in enumerate(parts)}


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))
