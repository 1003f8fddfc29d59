"""The tensors in which a removed channel is zero when its writers' weights are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.labels import Labels
from halp_trt.graphs.norms import NORMS, counted_axes
from halp_trt.graphs.operators import NARY, PICKS, POOLS, REDUCTIONS, SCATTERS, UNARY, VIEWS
from halp_trt.graphs.products import Weighting, weighting

__all__ = ["zero_tensors"]

IsZero = Callable[[gs.Tensor, int], bool]
_MOVES_ZERO = frozenset(
    """Cos DequantizeLinear Exp HardSigmoid Log QuantizeLinear Reciprocal ReduceLogSum ReduceLogSumExp Sigmoid
    Softplus""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
_KEEPS_ZERO = (UNARY | POOLS | VIEWS | REDUCTIONS | PICKS) - _MOVES_ZERO | frozenset(
    """Concat DepthToSpace Expand InstanceNormalization Pad Resize Slice SpaceToDepth Split Tile
    Transpose""".split()  # noqa: SIM905
)
"""Operators that write zero for a channel that is zero in all their data."""


def zero_tensors(graph: gs.Graph, labels: Labels, is_zero: IsZero) -> frozenset[str]:
    """Names of the tensors whose removed channels are zero everywhere.

    Args:
        graph: the dense graph.
        labels: its labels.
        is_zero: tells of a fixed tensor and its axis whether it is zero at removed channels.
    """
    zeros = {tensor.name for tensor in graph.inputs}
    for node in graph.nodes:
        if not all(output.name in labels.fixed for output in node.outputs) and _writes_zero(
            node, labels, zeros, is_zero
        ):
            zeros.update(output.name for output in node.outputs)
    return frozenset(zeros)


def _writes_zero(node: gs.Node, labels: Labels, zeros: set[str], is_zero: IsZero) -> bool:
    found = weighting(node, labels.fixed)
    if found is not None:
        return _product(node, found, labels, is_zero)
    if node.op in NARY:
        return _elementwise(node, labels, zeros, is_zero)
    if node.op == "BatchNormalization":
        return all(is_zero(tensor, 0) for tensor in node.inputs[1:3])
    if node.op == "LayerNormalization" or not labels.axes(node.inputs[0].name).keys().isdisjoint(_normed(node)):
        return _norm(node, labels, is_zero)
    if node.op == "InstanceNormalization" and not is_zero(node.inputs[2], 0):
        return False
    if (node.op == "Clip" and not _spans_zero(node)) or (node.op == "Pad" and not _pads_zero(node)):
        return False
    values = [*node.inputs[:1], *node.inputs[2:]] if node.op in PICKS else node.inputs  # without the places
    if node.op in SCATTERS | {"Concat"} and not all(_is_dead(tensor, labels, is_zero) for tensor in values):
        return False
    data = [t for t in values if isinstance(t, gs.Variable) and not t.is_empty() and t.name not in labels.fixed]
    if node.op == "MatMul":
        return all(tensor.name in zeros for tensor in data)
    return node.op in _KEEPS_ZERO and all(tensor.name in zeros for tensor in data)


def _normed(node: gs.Node) -> frozenset[int]:
    return counted_axes(node) if node.op in NORMS else frozenset()


def _norm(node: gs.Node, labels: Labels, is_zero: IsZero) -> bool:
    """True if a norm over channels has a scale and bias that are zero for removed ones; without, it moves zeros."""
    rank = len(node.inputs[0].shape or ())
    scales = [(tensor, len(tensor.shape or ())) for tensor in node.inputs[1:] if node.op == "LayerNormalization"]
    own = [(tensor, axis - rank + size) for axis in labels.axes(node.inputs[0].name) for tensor, size in scales]
    return bool(own) and all(axis >= 0 and tensor.shape[axis] > 1 and is_zero(tensor, axis) for tensor, axis in own)


def _is_dead(tensor: gs.Tensor, labels: Labels, is_zero: IsZero) -> bool:
    """True for data, and for a fixed tensor that is zero at its removed channels."""
    is_data = isinstance(tensor, gs.Variable) and tensor.name not in labels.fixed
    return is_data or all(is_zero(tensor, axis) for axis in labels.axes(tensor.name))


def _pads_zero(node: gs.Node) -> bool:
    """True if a Pad adds zeros, or copies of what is there."""
    value = node.inputs[2] if len(node.inputs) > 2 else gs.Variable.empty()
    is_constant = str(node.attrs.get("mode", "constant")) == "constant"
    return not is_constant or value.is_empty() or (isinstance(value, gs.Constant) and not np.any(value.values))


def _product(node: gs.Node, found: Weighting, labels: Labels, is_zero: IsZero) -> bool:
    """True if a product's weights and bias are zero for a removed output."""
    axis = found.out_axis
    if axis is not None and labels.get(found.weight.name, axis) is None:
        axis = found.in_axis  # one channel a group: both sides stand along one axis
    if axis is None or not is_zero(found.weight, axis):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return bias is None or bias.is_empty() or is_zero(bias, max(0, len(bias.shape or ()) - 1))


def _elementwise(node: gs.Node, labels: Labels, zeros: set[str], is_zero: IsZero) -> bool:
    """True if an element-wise node writes zero where its operands' removed channels are zero."""
    carried = labels.axes(node.outputs[0].name)
    rank = len(node.outputs[0].shape or ())
    answers = [_operand(t, labels, zeros, is_zero, [axis - rank for axis in carried]) for t in node.inputs]
    if node.op == "Mul":
        return any(answers)
    if node.op in ("Div", "Pow", "PRelu"):
        return answers[0]
    if node.op == "Where":
        return all(answers[1:])
    return node.op in ("Add", "Max", "Mean", "Min", "Sub", "Sum") and all(answers)


def _operand(tensor: gs.Tensor, labels: Labels, zeros: set[str], is_zero: IsZero, axes: list[int]) -> bool:
    """True if an operand is zero wherever a channel along one of the output's axes, from the back, is removed."""
    own = labels.axes(tensor.name)
    rank = len(tensor.shape or ())
    if isinstance(tensor, gs.Constant) and not np.any(tensor.values):
        return True
    if not axes or any(axis + rank not in own for axis in axes):
        return False
    if isinstance(tensor, gs.Constant) or tensor.name in labels.fixed:
        return all(is_zero(tensor, axis + rank) for axis in axes)
    return tensor.name in zeros


def _spans_zero(node: gs.Node) -> bool:
    """True if a Clip's bounds are constants that leave zero as it is."""
    signs = ((1, 1.0), (2, -1.0))
    bounds = [(node.inputs[i], sign) for i, sign in signs if i < len(node.inputs) and not node.inputs[i].is_empty()]
    return all(isinstance(t, gs.Constant) and float(np.max(t.values * sign)) <= 0 for t, sign in bounds)
