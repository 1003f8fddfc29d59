"""The kernels that ONNX Runtime really executes of a model: the nodes of its optimised graph, one by one.

An optimiser fuses nodes, changes layouts and inserts reorders between them, by rules of its own version and processor.
It runs its optimised graph; every node of that graph is a *unit*, with a key made of everything its time depends on,
and a model of the node alone for measuring it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from halp_trt.runtimes import Array, Unit
from halp_trt.specs import Attribute, LayerSpec, Operand

__all__ = ["executed_units", "is_unit", "overwritten_input"]

_UNIT_KEY = "halp_trt.unit"
"""Key of a unit's metadata, which marks it as one."""
_FEW_VALUES = 16
"""Largest number of integers in a constant that is part of a unit's key."""
_RESIDUAL = 3
"""Position of the residual among a convolution's inputs, after input, weights and bias."""
_IN_PLACE = frozenset({"Add", "Sub", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "Tanh"})
"""Operators whose output overwrites an input."""

Open = Callable[[bytes], Any]
"""A function that opens a model as an ``onnxruntime.InferenceSession``."""


def executed_units(optimised: onnx.ModelProto, open_session: Open) -> tuple[Unit, ...]:
    """Every node of an optimised graph, in the order of execution, constants excepted.

    Nodes on weights alone run, too, unless the optimiser has folded them: it leaves the dequantisation of weights.

    Args:
        optimised: the graph as the runtime will execute it; inputs have fixed shapes.
        open_session: opens a model without optimising it again.
    """
    weights = {tensor.name: tensor for tensor in optimised.graph.initializer}
    tensors = _tensors(optimised, open_session)
    shapes = (tensors[value.name][1] for value in optimised.graph.input)
    batch_size = next((shape[0] for shape in shapes if shape), 1)
    found = []
    for position, node in enumerate(optimised.graph.node):
        used = [weights[name] for name in dict.fromkeys(node.input) if name in weights]
        if node.op_type == "Constant":
            continue
        data = [name for name in dict.fromkeys(node.input) if name and name not in weights]
        graph = onnx.helper.make_graph(
            [node],
            "unit",
            [onnx.helper.make_tensor_value_info(name, *tensors[name]) for name in data],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
            used,
        )
        model = onnx.helper.make_model(graph, opset_imports=optimised.opset_import, ir_version=optimised.ir_version)
        onnx.helper.set_model_props(model, {_UNIT_KEY: "1"})
        found.append(
            Unit(
                name=node.name or f"{node.op_type}_{position}",
                spec=_spec(
                    node, {name: tensors[name][1] for name in (*data, *node.output) if name}, weights, batch_size
                ),
                model=model.SerializeToString(),
            )
        )
    return tuple(found)


def is_unit(model: bytes) -> bool:
    """True if a model holds one unit, to be run as it is."""
    return any(entry.key == _UNIT_KEY for entry in onnx.load_from_string(model).metadata_props)


def overwritten_input(layer: onnx.ModelProto) -> str | None:
    """The input whose memory a network lets the layer write its output to; None where there is none.

    A convolution adds its result to a residual in place, and elementwise operators overwrite their input.
    """
    nodes = layer.graph.node
    if len(nodes) != 1:
        return None
    inputs = [str(value.name) for value in layer.graph.input]
    if nodes[0].op_type in ("Conv", "FusedConv"):
        return next((name for name in nodes[0].input[_RESIDUAL:] if name in inputs), None)
    shapes = {tuple(n.dim_value for n in value.type.tensor_type.shape.dim) for value in layer.graph.input}
    return inputs[0] if nodes[0].op_type in _IN_PLACE and len(shapes) == 1 else None


def _tensors(optimised: onnx.ModelProto, open_session: Open) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type and shape of every tensor, as one run shows them; no tool infers the shapes of blocked ones."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(optimised)
    known = {output.name for output in exposed.graph.output}
    inner = [name for node in exposed.graph.node for name in node.output if name and name not in known]
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    session = open_session(exposed.SerializeToString())
    tensors: dict[str, tuple[int, tuple[int, ...]]] = {}
    feeds: dict[str, Array] = {}
    for value in optimised.graph.input:
        kind = value.type.tensor_type.elem_type
        shape = tuple(n.dim_value or 1 for n in value.type.tensor_type.shape.dim)
        feeds[value.name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind))
        tensors[value.name] = (kind, shape)
    names = [output.name for output in session.get_outputs()]
    for name, found in zip(names, session.run(names, feeds), strict=True):
        tensors[name] = (onnx.helper.np_dtype_to_tensor_dtype(found.dtype), found.shape)
    return tensors


def _spec(
    node: onnx.NodeProto,
    shapes: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, onnx.TensorProto],
    batch_size: int,
) -> LayerSpec:
    """The node's key in latency tables: all that its time depends on, in the fields of layers where they fit."""
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    out = shapes[node.output[0]]
    first = next((shapes[name] for name in node.input if name in shapes), out)
    groups = attributes.pop("group", 1)
    in_width, out_width = _width(first), _width(out)
    is_grouped = in_width % groups == 0 and out_width % groups == 0
    window: dict[str, Any] = {
        field: _numbers(attributes.pop(name, ()))
        for field, name in (("kernel_size", "kernel_shape"), ("stride", "strides"), ("padding", "pads"),
                            ("dilation", "dilations"))
    }  # fmt: skip
    if not is_grouped:
        attributes["group"] = groups
    if node.domain:
        attributes["domain"] = node.domain
    return LayerSpec(
        operator=node.op_type,
        in_channels=in_width,
        out_channels=out_width,
        in_size=tuple(first[2:]),
        conv_groups=groups if is_grouped else 1,
        operands=tuple(_operand(name, shapes, weights, first[:1]) for name in node.input),
        attributes=tuple(_plain(attributes)),
        batch=first[0] if first and first[0] != batch_size else 0,
        **window,
    )


def _width(shape: Sequence[int]) -> int:
    return max(1, shape[1] if len(shape) > 1 else shape[0] if shape else 1)


def _numbers(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _operand(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    weights: Mapping[str, onnx.TensorProto],
    batch: tuple[int, ...],
) -> Operand:
    """An input; a first axis as long as ``batch``, that of the first input, is marked by 0."""
    if name in shapes:
        dims = shapes[name]
        return Operand(shape=(0, *dims[1:]) if dims[:1] == batch else dims)
    if name not in weights:
        return Operand(shape=(), values=(), dtype="none")
    tensor = weights[name]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
    is_index = dtype.startswith("int") and onnx.numpy_helper.to_array(tensor).size <= _FEW_VALUES
    values = tuple(float(v) for v in onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()) if is_index else None
    return Operand(shape=tuple(tensor.dims), values=values, dtype=dtype)


def _plain(attributes: Mapping[str, object]) -> list[Attribute]:
    """The attributes that are numbers, texts or rows of numbers, sorted by name."""
    found: list[Attribute] = []
    for name, value in sorted(attributes.items()):
        if isinstance(value, bytes):
            found.append((name, value.decode(errors="replace")))
        elif isinstance(value, int | float | str):
            found.append((name, value))
        elif isinstance(value, list | tuple) and all(isinstance(number, int | float) for number in value):
            found.append((name, tuple(value)))
    return found
