"""A network in 16 bits: an ONNX graph whose types set the precision of each node, with fp32 inputs and outputs.

Strongly typed TensorRT takes the types of the graph as law, so they are set here, read off again
(:func:`compute_types`) and compared with the engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs

from halp_trt.errors import BuildError, UnsupportedLayerError, UsageError
from halp_trt.graphs.operators import PRODUCTS
from halp_trt.graphs.ranges import tensor_ranges

__all__ = ["HALVES", "Half", "TypedModel", "compute_types", "to_half"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """A 16-bit number format.

    Attributes:
        dtype: numpy's name of it.
        onnx_type: ONNX's number of it.
        largest, smallest: bounds of the absolute values that keep their precision.
        opset: first opset with this type in every operator; 0: any.
    """

    dtype: np.dtype[Any]
    onnx_type: int
    largest: float
    smallest: float
    opset: int = 0


HALVES: Mapping[str, Half] = MappingProxyType(
    {
        "fp16": Half(
            dtype=np.dtype(np.float16), onnx_type=onnx.TensorProto.FLOAT16, largest=65504.0, smallest=2.0**-24
        ),
        "bf16": Half(
            dtype=np.dtype(ml_dtypes.bfloat16),
            onnx_type=onnx.TensorProto.BFLOAT16,
            largest=3.3895e38,
            smallest=2.0**-133,
            opset=22,
        ),
    }
)

_FP32_ALONE = "has no 16-bit form in ONNX"
_KEPT: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "fp16": {
            "Celu": _FP32_ALONE,
            **dict.fromkeys(
                ("CumSum", "Exp", "Log", "Pow", "ReduceL2", "ReduceLogSumExp", "ReduceSumSquare", "Softplus"),
                "leaves the range of fp16 on ordinary data",
            ),
        },
        "bf16": {
            "Celu": _FP32_ALONE,
            **dict.fromkeys(
                ("ConvTranspose", "GlobalLpPool", "HardSwish", "LpPool", "Mish"), "has no kernel for bf16 in TensorRT"
            ),
        },
    }
)
"""Operators that stay in fp32, with the reason."""
_FIXED_INPUTS: Mapping[str, tuple[int, ...]] = MappingProxyType({"Resize": (1, 2), "Upsample": (1,)})
"""Positions of inputs that ONNX wants in fp32 whatever the data are."""
_FLOAT = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedModel:
    """A model in the types its engine shall have.

    Attributes:
        model: the typed network, with fp32 inputs and outputs.
        kept: nodes left in a wider type than the precision, with the reason.
    """

    model: onnx.ModelProto
    kept: Mapping[str, str] = field(default_factory=dict)


def to_half(
    model: onnx.ModelProto,
    precision: str,
    *,
    examples: Sequence[Mapping[str, Any]] = (),
    keep: Collection[str] = (),
) -> TypedModel:
    """The network in fp16 or bf16: weights, activations and products; inputs and outputs are cast and stay fp32.

    A node stays in fp32, with casts around it, if it is named in ``keep``, if its operator leaves the range of fp16 on
    ordinary data, if a weight of it is too large or all are too small, or if one of its tensors leaves the range on the
    examples.

    Args:
        model: in fp32, folded, with static shapes.
        precision: ``fp16`` or ``bf16``; bf16 raises the opset to 22, the first with bf16 convolutions.
        examples: inputs by name, to measure the range of activations.
        keep: names of nodes to leave in fp32.

    Raises:
        UnsupportedLayerError: the graph has control flow.
        UsageError: ``keep`` names no node.
        BuildError: the typed graph is not valid ONNX.
    """
    half = HALVES[precision]
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    kept = _kept_nodes(graph, half, precision, keep)
    if examples:
        kept |= _out_of_range(graph, half, tensor_ranges(model, examples), kept)
    kept |= _pairs_before(graph, kept)
    _Retyping(graph, half, kept).run()
    if half.opset > graph.opset:
        graph.import_domains = [onnx.helper.make_opsetid("", half.opset)]
    graph.cleanup().toposort()
    typed = gs.export_onnx(graph, do_type_check=False)
    typed.ir_version = max(model.ir_version, onnx.helper.find_min_ir_version_for(list(typed.opset_import)))
    return TypedModel(model=_checked(typed, precision), kept=kept)


def _checked(typed: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    del typed.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(typed, strict_mode=True)
        onnx.checker.check_model(inferred, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(
            f"the network has no valid form in {precision}: {' '.join(str(error).split())[:200]}; keep the node it "
            "names in fp32, or choose another precision"
        ) from error
    return inferred


# ---- which nodes stay -----------------------------------------------------------------------------------------------


def _kept_nodes(graph: gs.Graph, half: Half, precision: str, keep: Collection[str]) -> dict[str, str]:
    names = {node.name for node in graph.nodes}
    if unknown := sorted(set(keep) - names):
        raise UsageError(f"no node {unknown[0]!r} to keep in fp32; this graph has {sorted(names)[:8]} ...")
    kept = {}
    for node in graph.nodes:
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) holds a graph of its own; build with fp32")
        if node.name in keep:
            kept[node.name] = "asked for"
        elif node.op in _KEPT[precision]:
            kept[node.name] = f"{node.op} {_KEPT[precision][node.op]}"
        elif reason := _weights_reason(node, half):
            kept[node.name] = reason
    return kept


def _weights_reason(node: gs.Node, half: Half) -> str:
    """The reason why a node's constants cannot be narrowed, empty if they can."""
    for tensor in _float_constants(node):
        sizes = np.abs(np.asarray(tensor.values, np.float64))
        if np.max(sizes, initial=0.0) > half.largest:
            return f"{tensor.name} holds {sizes.max():.3g}, the format ends at {half.largest:.6g}"
        if sizes.any() and sizes.max() < half.smallest:
            return f"all of {tensor.name} would become 0: nothing in it is above {sizes.max():.3g}"
    return ""


def _float_constants(node: gs.Node) -> list[gs.Constant]:
    fixed = _FIXED_INPUTS.get(node.op, ())
    return [
        tensor
        for position, tensor in enumerate(node.inputs)
        if isinstance(tensor, gs.Constant) and position not in fixed and np.dtype(tensor.dtype) == _FLOAT
    ]


def _out_of_range(graph: gs.Graph, half: Half, ranges: Mapping[str, float], kept: Mapping[str, str]) -> dict[str, str]:
    """The nodes with a tensor above half the format's largest number on the examples, with the reason."""
    return {
        node.name: f"{tensor.name} reaches {ranges[tensor.name]:.3g} on the examples"
        for node in graph.nodes
        for tensor in (*node.inputs, *node.outputs)
        if node.name not in kept and 2 * ranges.get(tensor.name, 0.0) > half.largest
    }


def _pairs_before(graph: gs.Graph, kept: Mapping[str, str]) -> dict[str, str]:
    """The ``DequantizeLinear`` nodes read by fp32 nodes alone: a cast between the two would part them."""
    return {
        node.name: "read by nodes that stay in fp32"
        for node in graph.nodes
        if node.op == "DequantizeLinear" and all(reader.name in kept for reader in node.outputs[0].outputs)
    }


# ---- the types themselves -------------------------------------------------------------------------------------------


class _Retyping:
    """Gives every float tensor the type of the node writing it, and casts it for readers of another type."""

    def __init__(self, graph: gs.Graph, half: Half, kept: Mapping[str, str]) -> None:
        self._graph, self._half, self._kept = graph, half, kept
        self._outputs = {tensor.name for tensor in graph.outputs}
        self._versions: dict[tuple[int, str], gs.Tensor] = {}

    def run(self) -> None:
        for node in list(self._graph.nodes):
            dtype = _FLOAT if node.name in self._kept else self._half.dtype
            fixed = _FIXED_INPUTS.get(node.op, ())
            node.inputs = [
                tensor if position in fixed else self._as(tensor, dtype) for position, tensor in enumerate(node.inputs)
            ]
            self._retype_attributes(node, dtype)
            for position, tensor in enumerate(node.outputs):
                if tensor.dtype is not None and np.dtype(tensor.dtype) == _FLOAT:
                    self._retype_output(node, position, dtype)

    def _as(self, tensor: gs.Tensor, dtype: np.dtype[Any]) -> gs.Tensor:
        """A float tensor in a type: the tensor itself, a narrowed constant, or the output of a cast."""
        if tensor.is_empty() or tensor.dtype is None or not _is_float(tensor.dtype) or tensor.dtype == dtype:
            return tensor
        key = (id(tensor), dtype.name)
        if key not in self._versions:
            name = f"{tensor.name}.{dtype.name}"
            if isinstance(tensor, gs.Constant):
                self._versions[key] = gs.Constant(tensor.name, tensor.values.astype(dtype))
                if any(reader.name in self._kept for reader in tensor.outputs):  # both forms stay
                    self._versions[key].name = name
            else:
                self._versions[key] = gs.Variable(name, dtype, tensor.shape)
                self._cast(tensor, self._versions[key], dtype)
        return self._versions[key]

    def _retype_output(self, node: gs.Node, position: int, dtype: np.dtype[Any]) -> None:
        tensor = node.outputs[position]
        if dtype == _FLOAT:
            return
        if tensor.name not in self._outputs:
            tensor.dtype = dtype
            return
        narrow = gs.Variable(f"{tensor.name}.{dtype.name}", dtype, tensor.shape)
        node.outputs[position] = narrow
        for reader in list(tensor.outputs):  # other nodes read an output of the network
            reader.inputs = [narrow if value is tensor else value for value in reader.inputs]
        self._cast(narrow, tensor, _FLOAT)

    def _retype_attributes(self, node: gs.Node, dtype: np.dtype[Any]) -> None:
        if dtype == _FLOAT:
            return
        if node.op == "Cast" and int(node.attrs["to"]) == onnx.TensorProto.FLOAT:
            node.attrs["to"] = self._half.onnx_type
        value = node.attrs.get("value")
        if isinstance(value, gs.Tensor) and np.dtype(value.dtype) == _FLOAT:
            node.attrs["value"] = gs.Constant(value.name, value.values.astype(dtype))

    def _cast(self, source: gs.Tensor, result: gs.Tensor, dtype: np.dtype[Any]) -> None:
        to = onnx.TensorProto.FLOAT if dtype == _FLOAT else self._half.onnx_type
        self._graph.nodes.append(gs.Node("Cast", f"{result.name}.cast", {"to": to}, [source], [result]))


def _is_float(dtype: Any) -> bool:
    return np.dtype(dtype) in (_FLOAT, *(half.dtype for half in HALVES.values()))


# ---- what a graph says ----------------------------------------------------------------------------------------------

_NAMES: Mapping[int, str] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT: "fp32",
        onnx.TensorProto.FLOAT16: "fp16",
        onnx.TensorProto.BFLOAT16: "bf16",
        onnx.TensorProto.INT8: "int8",
        onnx.TensorProto.UINT8: "uint8",
    }
)
_TRANSPARENT = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def compute_types(model: onnx.ModelProto) -> dict[str, str]:
    """The number format that every convolution and matrix product of a graph is meant to compute in, by node name.

    It is the type of the data it reads; behind a ``DequantizeLinear`` the type that this reads.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {weight.name: weight.data_type for weight in inferred.initializer}
    writers = {name: node for node in inferred.node for name in node.output}
    products = {}
    for node in inferred.node:
        if node.op_type in PRODUCTS:
            tensor = node.input[0]
            while (writer := writers.get(tensor)) is not None and writer.op_type in _TRANSPARENT:
                tensor = writer.input[0]
            if writer is not None and writer.op_type == "DequantizeLinear":
                tensor = writer.input[0]
            products[node.name] = _NAMES.get(types.get(tensor, 0), "unknown")
    return products
