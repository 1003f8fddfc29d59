"""An 8-bit network whose remaining layers compute in fp16, as TensorRT's 8-bit networks are meant to run.

Otherwise the layers that cannot be quantised (activations, poolings, products of two activations, transposed
convolutions) would read and write twice the bytes, and run beside the tensor cores. The scales of the quantisation are
fp16, too, because a dequantised tensor has the type of its scale; ONNX allows fp16 scales from opset 19 on, and so do
strongly typed TensorRTs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from halp_trt.graphs.precision import TypedModel, compute_types, to_half
from halp_trt.graphs.quantize import quantize

__all__ = ["NUM_RANGE_EXAMPLES", "quantize_in_half"]

NUM_RANGE_EXAMPLES = 4
"""Number of examples run to find the tensors beyond the range of fp16."""
_OPSET = 19
"""First opset with fp16 scales."""
_SMALLEST_SCALE = np.float32(2.0**-16)
"""Smallest scale; a smaller one in fp16 would round by more than half an 8-bit step of the largest value. In return, a
tensor with all values below 0.002 gets fewer than 255 levels."""


def quantize_in_half(
    model: onnx.ModelProto, examples: Sequence[Mapping[str, Any]], *, keep: Collection[str] = ()
) -> TypedModel:
    """The network with quantised products as :func:`halp_trt.graphs.quantize.quantize` has them, the rest in fp16.

    Args:
        model: in fp32, folded, with static shapes; its opset is raised to 19 where it is older.
        examples: inputs to calibrate the quantisation; nodes leaving the range of fp16 on them stay in fp32.
        keep: names of nodes to leave in fp32.

    Raises:
        UsageError: there are no examples, or ``keep`` names no node.
        BuildError: the quantiser refuses the network, or its result is not valid ONNX.
        UnsupportedLayerError: the graph has control flow.
    """
    quantised = quantize(model, examples, keep=keep)
    _raise_opset(quantised.model)
    _raise_scales(quantised.model.graph)
    half = to_half(quantised.model, "fp16", examples=examples[:NUM_RANGE_EXAMPLES], keep=keep)
    types = compute_types(half.model)
    own = {node.name for node in model.graph.node}
    kept = {name: reason for name, reason in half.kept.items() if name in own and types.get(name) != "int8"}
    wide = {name: f"in fp16, {reason}" for name, reason in quantised.kept.items() if types[name] == "fp16"}
    return TypedModel(model=half.model, kept=kept | wide)


def _raise_opset(model: onnx.ModelProto) -> None:
    (default,) = (opset for opset in model.opset_import if opset.domain == "")
    default.version = max(default.version, _OPSET)
    model.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for(list(model.opset_import)))


def _raise_scales(graph: onnx.GraphProto) -> None:
    """Keeps the scales of pairs where fp16 has them; both nodes of a pair read the same one."""
    names = {node.input[1] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")}
    for tensor in graph.initializer:
        if tensor.name in names:
            scales = np.maximum(onnx.numpy_helper.to_array(tensor), _SMALLEST_SCALE)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scales, tensor.name))
