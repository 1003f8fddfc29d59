"""Channels through convolutions and matrix products, their birthplace, and through constant weights."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.operators import shape, source


def state(labels: Labels, tensor: gs.Tensor, axis: int, ids: Ids) -> Ids:
    """States the channels of a constant's axis, at its source and at its use; returns them."""
    name, own = source(tensor, axis) or (tensor.name, axis)
    labels.put(name, own, ids)
    if name != tensor.name:
        labels.put(tensor.name, axis, ids)
    return ids


def known(labels: Labels, tensor: gs.Tensor, axis: int) -> Ids | None:
    """The channels stated already for a constant's axis, or None; a shared weight has written its channels before."""
    name, own = source(tensor, axis) or (tensor.name, axis)
    return labels.get(name, own)


def conv(labels: Labels, node: gs.Node) -> None:
    """Convolutions, grouped, depthwise and transposed ones."""
    data, weight = node.inputs[:2]
    if source(weight, 0) is None:
        raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) computes its weights at run time; fuse them first")
    transposed = node.op == "ConvTranspose"
    groups = int(node.attrs.get("group", 1))
    inputs, output = need(labels, data, 1), node.outputs[0]
    num_out = shape(output)[1]
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    earlier = known(labels, weight, out_axis)
    outputs = labels.fresh(num_out) if earlier is None or len(earlier) != num_out else earlier
    if groups == 1:
        state(labels, weight, in_axis, inputs)
        state(labels, weight, out_axis, outputs)
    else:
        _tie_conv_groups(labels, inputs.reshape(groups, -1), outputs.reshape(groups, -1))
        full, share = (in_axis, out_axis) if transposed else (out_axis, in_axis)
        ends = {in_axis: inputs, out_axis: outputs}
        state(labels, weight, full, ends[full])
        if shape(weight)[share] > 1 and len(inputs) > groups:
            state(labels, weight, share, ends[share][: shape(weight)[share]])
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        labels.put(node.inputs[2].name, 0, outputs)
    labels.put(output.name, 1, outputs)


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
    """Linear layers, and products of two computed matrices."""
    data, weight = node.inputs[:2]
    output = node.outputs[0]
    rank = len(shape(data))
    gemm = node.op == "Gemm"
    if gemm and (int(node.attrs.get("transA", 0)) or source(weight, 0) is None):
        raise UnsupportedLayerError(f"node {node.name!r} (Gemm) is not a linear layer on constant weights")
    if source(weight, 0) is None:
        _data_product(labels, node)
        return
    if len(shape(weight)) != 2:
        raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) multiplies by a stack of matrices")
    out_first = gemm and bool(int(node.attrs.get("transB", 0)))
    out_axis, in_axis = (0, 1) if out_first else (1, 0)
    state(labels, weight, in_axis, need(labels, data, rank - 1))
    earlier = known(labels, weight, out_axis)
    outputs = labels.fresh(shape(output)[-1]) if earlier is None else earlier
    state(labels, weight, out_axis, outputs)
    if len(node.inputs) > 2 and not node.inputs[2].is_empty():
        bias = node.inputs[2]
        labels.put(bias.name, len(shape(bias)) - 1, outputs)
    for axis, ids in labels.axes(data.name).items():
        if axis != rank - 1:
            labels.put(output.name, axis, ids)
    labels.put(output.name, rank - 1, outputs)


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
