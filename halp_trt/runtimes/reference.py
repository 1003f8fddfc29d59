"""Small fixed networks that take turns with what is measured, to show a drift of the machine's speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

__all__ = ["gpu_reference", "processor_reference"]


def processor_reference() -> bytes:
    """The reference of processors as an ONNX model: pointwise, depthwise and full convolutions.

    It is an inverted bottleneck and a 3x3 convolution, 64 channels at 28x28.
    """
    random = np.random.default_rng(1)
    weights, nodes, value = [], [], "input"
    for index, (outputs, inputs, size) in enumerate([(128, 64, 1), (128, 1, 3), (64, 128, 1), (64, 64, 3)]):
        scale = np.float32(1 / (inputs * size * size))
        weights.append(
            onnx.numpy_helper.from_array(
                random.standard_normal((outputs, inputs, size, size), np.float32) * scale, f"weight_{index}"
            )
        )
        written = "output" if index == 3 else f"value_{index}"
        attributes: dict[str, Any] = {
            "kernel_shape": [size, size],
            "pads": [size // 2] * 4,
            "group": 128 if inputs == 1 else 1,
        }
        nodes.append(onnx.helper.make_node("Conv", [value, f"weight_{index}"], [written], **attributes))
        value = written
    return _network(nodes, (1, 64, 28, 28), weights)


def _network(nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], weights: list[onnx.TensorProto]) -> bytes:
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in ("input", "output")]
    graph = onnx.helper.make_graph(nodes, "network", values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def gpu_reference() -> bytes:
    """The reference of GPUs as an ONNX model: a 3x3 convolution, 256 to 256 channels at 28x28."""
    weights = np.random.default_rng(1).standard_normal((256, 256, 3, 3), np.float32) / 48
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, (1, 256, 28, 28)) for key in "xy"]
    node = onnx.helper.make_node("Conv", ["x", "weight"], ["y"], "reference", pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    graph = onnx.helper.make_graph(
        [node], "reference", values[:1], values[1:], [onnx.numpy_helper.from_array(weights, "weight")]
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
