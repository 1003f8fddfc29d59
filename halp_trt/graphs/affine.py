"""Folds constants of the channels into the convolution before them: frozen batch norms written out, learned scales."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.values import Array

__all__ = ["fold_affine", "is_affine"]

_FOLDABLE = ("Conv", "ConvTranspose", "Gemm")
"""Layers with a bias."""


def is_affine(node: gs.Node | None, layer: gs.Node, data: gs.Tensor, fixed: Set[str]) -> bool:
    """True if a node multiplies a layer's output by a value a channel, or adds one.

    Args:
        node: the only reader of the layer's output.
        layer: the layer.
        data: its output, maybe with such nodes between.
        fixed: names of the tensors computed from constants alone.
    """
    if node is None or node.op not in ("Add", "Mul") or layer.op not in _FOLDABLE:
        return False
    others = [tensor for tensor in node.inputs if tensor is not data]
    if len(others) != 1 or not (isinstance(others[0], gs.Constant) or others[0].name in fixed):
        return False
    rank, width = len(layer.inputs[1].shape), _width(layer)
    sizes = [1] * (rank - len(others[0].shape)) + [int(size) for size in others[0].shape]
    return len(sizes) == rank and sizes[1] in (1, width) and max([1, sizes[0], *sizes[2:]]) == 1


def fold_affine(graph: gs.Graph, others: Sequence[gs.Node] = ()) -> None:
    """Folds every such node whose layer nothing else reads, in float64: ``W' = W * k``, ``b' = b * k`` or ``b + k``.

    Args:
        graph: the network with its expressions of parameters computed; it is changed.
        others: nodes to leave as they are, such as the additions that removed blocks leave behind.
    """
    outputs, left = {tensor.name for tensor in graph.outputs}, {id(node) for node in others}
    for node in list(graph.nodes):
        for data in node.inputs if node.op in ("Add", "Mul") and id(node) not in left else ():
            layer = data.inputs[0] if isinstance(data, gs.Variable) and data.inputs else None
            if (
                layer is None
                or len(data.outputs) != 1
                or data.name in outputs
                or not is_affine(node, layer, data, set())
            ):
                continue
            if all(isinstance(tensor, gs.Constant) for tensor in layer.inputs[1:]) and _is_plain(layer):
                _fold(layer, node, next(tensor for tensor in node.inputs if tensor is not data))
                break
    graph.cleanup(remove_unused_graph_inputs=False)


def _width(layer: gs.Node) -> int:
    """Number of output channels of a layer."""
    sizes = layer.inputs[1].shape
    if layer.op == "ConvTranspose":
        return int(sizes[1]) * int(layer.attrs.get("group", 1))
    return int(sizes[1] if layer.op == "Gemm" and not int(layer.attrs.get("transB", 0)) else sizes[0])


def _is_plain(layer: gs.Node) -> bool:
    return layer.op != "Gemm" or (float(layer.attrs.get("alpha", 1)), float(layer.attrs.get("beta", 1))) == (1, 1)


def _fold(layer: gs.Node, node: gs.Node, constant: gs.Constant) -> None:
    width, weight = _width(layer), layer.inputs[1].values
    values = np.broadcast_to(constant.values.astype(np.float64).reshape(-1), (width,))
    bias = layer.inputs[2].values.astype(np.float64) if len(layer.inputs) > 2 else np.zeros(width)
    if node.op == "Mul":
        scaled = gs.Constant(
            f"{layer.inputs[1].name}@{node.name}", np.ascontiguousarray(weight * _shaped(layer, values))
        )
        scaled.values = scaled.values.astype(weight.dtype)
        layer.inputs[1] = scaled
    moved = bias.reshape(-1) * values if node.op == "Mul" else bias.reshape(-1) + values
    if len(layer.inputs) > 2 or node.op == "Add":
        shifted = gs.Constant(f"{node.name}.folded_bias", np.ascontiguousarray(moved, dtype=weight.dtype))
        layer.inputs = [*layer.inputs[:2], shifted]
    output = node.outputs[0]
    node.outputs.clear()
    node.inputs.clear()
    layer.outputs[0] = output


def _shaped(layer: gs.Node, values: Array) -> Array:
    """A value for every output channel, shaped like the layer's weight."""
    sizes = layer.inputs[1].shape
    if layer.op == "ConvTranspose":
        groups = int(layer.attrs.get("group", 1))
        rows = values.reshape(groups, 1, -1).repeat(int(sizes[0]) // groups, axis=1)
        return rows.reshape(int(sizes[0]), int(sizes[1]), *[1] * (len(sizes) - 2))
    if layer.op == "Gemm" and not int(layer.attrs.get("transB", 0)):
        return values[None, :]
    return values.reshape(-1, *[1] * (len(sizes) - 1))
