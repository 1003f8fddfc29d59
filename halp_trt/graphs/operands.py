"""Inputs of layers as their specs hold them: shapes with marks for batch and widths, and small constants."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.norms import NORMS
from halp_trt.graphs.operators import NARY, PICKS, REDUCTIONS, UNARY, shape, slice_ranges
from halp_trt.specs import Operand

__all__ = ["ANY_AXIS", "MOVING", "operand"]

ANY_AXIS = UNARY | NARY | NORMS
"""Operators described with their channels on whatever axis these are."""
MOVING = PICKS | REDUCTIONS
"""Operators whose channels may stand along one axis of the data and another of the output."""
_KEPT_VALUES = 64
"""Most numbers of a constant stored in an operand."""


def operand(
    node: gs.Node, position: int, is_data: bool, batch_size: int, channel_axis: int, own_axis: int | None = None
) -> Operand:
    """An input with its channel axis as -1 and its batch axis as 0; small constants keep their values.

    Args:
        node: the layer's own node.
        position: the input's.
        is_data: False for parameters and constants.
        batch_size: length of the layer's batch axis.
        channel_axis: the axis of the node's output that its channels stand along.
        own_axis: the axis of the input itself that they stand along; None where it follows from the output's.
    """
    tensor = node.inputs[position]
    if tensor.is_empty():
        return Operand(shape=(), values=(), dtype="none")
    dims, dtype = list(shape(tensor)), np.dtype(tensor.dtype).name
    if own_axis is not None:
        marks = [0 if is_data and axis == 0 and size == batch_size else size for axis, size in enumerate(dims)]
        marks[own_axis] = -1
        return Operand(shape=tuple(marks), dtype=dtype, is_data=is_data)
    is_static = isinstance(tensor, gs.Constant) and (dtype.startswith("int") or node.op == "Resize")
    if is_static or (isinstance(tensor, gs.Constant) and tensor.values.size <= 1):
        values = [float(v) for v in np.atleast_1d(tensor.values).reshape(-1)[:_KEPT_VALUES].tolist()]
        if node.op == "Expand" and len(values) > 1:
            values[1] = -1.0
        if node.op == "Slice":
            values = _slice_values(node, position)
        return Operand(shape=tuple(dims), values=tuple(values), dtype=dtype)
    rank = len(shape(node.outputs[0]))
    if is_data:
        layout = _layout(node, position, batch_size, channel_axis if node.op in ANY_AXIS else 1)
        usual = tuple(0 if axis == 0 else -1 if axis == 1 and n > 1 else n for axis, n in enumerate(dims))
        is_usual = bool(dims) and layout == usual
        return Operand(shape=usual, dtype=dtype, is_data=not is_usual, layout=() if is_usual else layout)
    if node.op in PICKS - {"Gather"} and position == 1:
        return Operand(shape=tuple(dims), dtype=dtype)  # places, none of them along channels
    channel_axis = channel_axis if node.op in ANY_AXIS else 1
    if node.op == "InstanceNormalization":
        dims[0] = -1 if channel_axis == 1 else dims[0]
    elif rank - len(dims) <= channel_axis < rank and (channel_axis == 1 or dims[channel_axis - rank] > 1):
        dims[channel_axis - rank] = -1
    return Operand(shape=tuple(dims), dtype=dtype)


def _layout(node: gs.Node, position: int, batch_size: int, channel_axis: int) -> tuple[int, ...]:
    """The shape of an input that carries data: 0 for the batch, -1 for the layer's input width, -2 for its output's.

    A product sums over the last axis of its first factor and the last but one of its second.
    """
    dims = list(shape(node.inputs[position]))
    is_product = node.op == "MatMul"
    if dims and dims[0] == batch_size and not (is_product and len(dims) < 3):
        dims[0] = 0
    if is_product and len(dims) > 1:
        dims[-1 - position] = -1
        if position:
            dims[-1] = -2
    elif channel_axis != 1:
        own = channel_axis - len(shape(node.outputs[0]))
        if -own <= len(dims) and dims[own] > 1:
            dims[own] = -1
    elif len(dims) > 1 and dims[1] > 1:
        dims[1] = -1
    return tuple(dims)


def _slice_values(node: gs.Node, position: int) -> list[float]:
    """The bounds of a Slice within its input; 0 and -1 on the channel axis (-1: the layer's output width)."""
    columns: list[list[float]] = [[], [], [], []]
    for axis, begin, end, step in slice_ranges(node):
        if axis == 1 and step == 1:
            begin, end = 0, -1
        elif end < 0:
            end = -(2**31)
        for column, value in zip(columns, (begin, end, axis, step), strict=True):
            column.append(float(value))
    return columns[position - 1]
