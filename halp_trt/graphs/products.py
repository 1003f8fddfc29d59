"""Channels through convolutions and matrix products, their birthplace, and through constant weights."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.fixed import known, state
from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.operators import PRODUCTS, shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighting:
    """A product of data with a weight.

    Attributes:
        weight: the weight, a constant or computed from constants.
        data: the data.
        in_axis: the weight's axis that is summed over.
        out_axis: the weight's axis that the output gets; None where the weight is a vector.
        data_axis: the data's axis that is summed over.
        written: the output's axis that the weight writes; None where the weight is a vector.
    """

    weight: gs.Tensor
    data: gs.Tensor
    in_axis: int
    out_axis: int | None
    data_axis: int
    written: int | None


def weighting(node: gs.Node, fixed: Set[str]) -> Weighting | None:
    """The weight of a convolution or matrix product and its axes; None for other nodes and for products of data.

    Args:
        node: any node.
        fixed: names of the tensors computed from constants alone.
    """
    if node.op not in PRODUCTS:
        return None
    first, second = node.inputs[:2]
    left, right = (isinstance(t, gs.Constant) or t.name in fixed for t in (first, second))
    if left == right or (left and node.op != "MatMul"):
        return None
    if node.op in ("Conv", "ConvTranspose"):
        out_axis, in_axis = (1, 0) if node.op == "ConvTranspose" else (0, 1)
        return Weighting(weight=second, data=first, in_axis=in_axis, out_axis=out_axis, data_axis=1, written=1)
    weight, data = (first, second) if left else (second, first)
    own, rank, last = len(shape(weight)), len(shape(data)), len(shape(node.outputs[0])) - 1
    turned = left or (node.op == "Gemm" and bool(int(node.attrs.get("transB", 0))))
    return Weighting(
        weight=weight,
        data=data,
        in_axis=own - 1 if turned or own == 1 else own - 2,
        out_axis=None if own == 1 else own - 2 if turned else own - 1,
        data_axis=rank - 2 if left and rank > 1 else rank - 1,
        written=None if own == 1 else last - 1 if left and rank > 1 else last,
    )


def conv(labels: Labels, node: gs.Node) -> None:
    """Convolutions, grouped, depthwise and transposed ones."""
    found = weighting(node, labels.fixed)
    if found is None or found.out_axis is None:
        raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) computes its weights at run time; fuse them first")
    weight, in_axis, out_axis = found.weight, found.in_axis, found.out_axis
    groups = int(node.attrs.get("group", 1))
    inputs, output = need(labels, found.data, 1), node.outputs[0]
    num_out = shape(output)[1]
    earlier = known(labels, weight, out_axis)
    outputs = labels.fresh(num_out) if earlier is None or len(earlier) != num_out else earlier
    if groups == 1:
        state(labels, weight, in_axis, inputs)
        state(labels, weight, out_axis, outputs)
    else:
        _tie_conv_groups(labels, inputs.reshape(groups, -1), outputs.reshape(groups, -1))
        full, share = (in_axis, out_axis) if node.op == "ConvTranspose" else (out_axis, in_axis)
        ends = {in_axis: inputs, out_axis: outputs}
        state(labels, weight, full, ends[full])
        if shape(weight)[share] > 1 and len(inputs) > groups:
            state(labels, weight, share, ends[share][: shape(weight)[share]])
    _bias(labels, node, outputs)
    labels.put(output.name, 1, outputs)


def _bias(labels: Labels, node: gs.Node, outputs: Ids) -> None:
    """States the channels of a bias, if there is one."""
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        dims = shape(node.inputs[2])
        if dims and dims[-1] == len(outputs):
            state(labels, node.inputs[2], len(dims) - 1, outputs)


def _tie_conv_groups(labels: Labels, inputs: Ids, outputs: Ids) -> None:
    """Grouped convolutions keep the same positions in every group; depthwise ones keep or lose whole groups."""
    if inputs.shape[1] == 1:
        for column in outputs.T:
            labels.couple(inputs[:, 0], column)
        return
    for ids in (inputs, outputs):
        for row in ids[1:]:
            labels.couple(ids[0], row)


def matmul(labels: Labels, node: gs.Node) -> None:
    """Linear layers, products with a weight on the left, and products of two computed matrices."""
    found = weighting(node, labels.fixed)
    if node.op == "Gemm" and (int(node.attrs.get("transA", 0)) or found is None):
        raise UnsupportedLayerError(f"node {node.name!r} (Gemm) is not a linear layer on constant weights")
    if found is None:
        _data_product(labels, node)
        return
    weight, data, output = found.weight, found.data, node.outputs[0]
    state(labels, weight, found.in_axis, need(labels, data, found.data_axis))
    outputs = None
    if found.out_axis is not None and found.written is not None:
        earlier = known(labels, weight, found.out_axis)
        outputs = labels.fresh(shape(output)[found.written]) if earlier is None else earlier
        state(labels, weight, found.out_axis, outputs)
        _bias(labels, node, outputs)
    for axis, ids in labels.axes(data.name).items():
        if axis != found.data_axis:
            labels.put(output.name, _handed_on(found, axis, len(shape(output))), ids)
    _stack(labels, node, found)
    if outputs is not None and found.written is not None:
        labels.put(output.name, found.written, outputs)


def _handed_on(found: Weighting, axis: int, rank: int) -> int:
    """The output's axis of one of the data's axes that is not summed over."""
    own = len(shape(found.data))
    if axis >= own - 2:  # the matrix's other axis
        return rank - 1 if found.data_axis < axis or found.written is None else rank - 2
    outer = (found.written is not None) + (own > 1)
    return axis - (own - 2) + rank - outer


def _stack(labels: Labels, node: gs.Node, found: Weighting) -> None:
    """A stack of weights has the channels of the axis that it is stacked along."""
    output, own = node.outputs[0], len(shape(found.weight))
    rank = len(shape(output))
    for axis in range(own - 2):
        place = axis - own + rank if len(shape(found.data)) > 1 else axis
        ids = labels.get(output.name, place)
        if ids is None or shape(found.weight)[axis] == 1:
            continue
        if shape(found.weight)[axis] == len(ids):
            state(labels, found.weight, axis, ids)
        else:
            labels.freeze(ids, f"{node.name} repeats it")


def _data_product(labels: Labels, node: gs.Node) -> None:
    """A product of two computed matrices (attention): the summed axis is coupled, the outer axes are handed on."""
    first, second, output = node.inputs[0], node.inputs[1], node.outputs[0]
    left, right, rank = len(shape(first)), len(shape(second)), len(shape(output))
    one, other = labels.get(first.name, left - 1), labels.get(second.name, right - 2)
    if one is not None and other is not None:
        labels.couple(one, other)
    for ids in (one, other):
        if ids is not None and (one is None or other is None):
            labels.freeze(ids, f"{node.name} multiplies it with data that has no channels")
    for axis, ids in labels.axes(first.name).items():
        if axis != left - 1:
            labels.put(output.name, axis + rank - left, ids)
    for axis, ids in labels.axes(second.name).items():
        if axis != right - 2:
            labels.put(output.name, axis + rank - right, ids)


def need(labels: Labels, tensor: gs.Tensor, axis: int) -> Ids:
    """The channels of a data axis; an unlabelled axis gets frozen ones."""
    ids = labels.get(tensor.name, axis)
    if ids is None:
        ids = labels.fresh(shape(tensor)[axis], "its width is fixed")
        labels.put(tensor.name, axis, ids)
    return ids
