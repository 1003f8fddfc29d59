"""Values of tensors computed from weights and constants alone, in the number format of the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
from onnx.reference import ReferenceEvaluator

from halp_trt.graphs.fixed import expression
from halp_trt.graphs.labels import Labels
from halp_trt.graphs.operators import NARY, VIEWS, constant, permutation, shape

__all__ = ["Array", "evaluate_fixed", "values_of"]

Array = npt.NDArray[Any]
_QUICK: dict[str, Callable[..., Any]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Exp": np.exp,
    "Identity": np.asarray,
    "MatMul": np.matmul,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
}
"""Operators that are one function of numpy; the reference evaluator takes milliseconds to start on a node."""
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL2": lambda x, **where: np.sqrt(np.sum(np.square(x), **where)),
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda x, **where: np.sum(np.square(x), **where),
}


def evaluate_fixed(graph: gs.Graph, labels: Labels) -> None:
    """Replaces fixed tensors by constants of the same names, in place, wherever other nodes read them.

    Expressions are computed at their dense widths: a weight that is divided by its norm has the norm of all its
    channels, whichever of them are cut afterwards. A table without channels that could be cut, a relative position bias
    say, stays as the exporter wrote it: it may be far larger than what it is gathered from.

    Args:
        graph: the dense graph with its weights.
        labels: its labels.
    """
    readers = [node for node in graph.nodes if not all(output.name in labels.fixed for output in node.outputs)]
    needed = {
        t.name: t for node in readers for t in node.inputs if t.name in labels.fixed and _is_needed(labels, node, t)
    }
    held: dict[str, Array] = {}
    for tensor in needed.values():
        for node in expression(tensor)[0]:
            if node.outputs[0].name not in held:
                held.update(values_of(graph, node, held))
    constants = {name: gs.Constant(name, np.ascontiguousarray(held[name])) for name in needed}
    for node in readers:
        node.inputs = [constants.get(tensor.name, tensor) for tensor in node.inputs]
    for tensor in needed.values():
        tensor.name = f"{tensor.name}@expression"  # the constant has its name now
    graph.cleanup(remove_unused_graph_inputs=False)


def _is_needed(labels: Labels, node: gs.Node, tensor: gs.Tensor) -> bool:
    """True if a node wants a fixed tensor as a constant: as its parameter, or since channels of it could be cut."""
    if node.op not in NARY or sum(size > 1 for size in shape(tensor)) <= 1:
        return True
    names = [tensor.name, *(constant.name for constant in expression(tensor)[1])]
    carried = {int(i) for name in names for ids in labels.axes(name).values() for i in ids}
    return any(not labels.frozen_reason(i) for i in carried)


def values_of(graph: gs.Graph, node: gs.Node, held: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a node computed from constants, by name.

    Args:
        graph: the graph of the node, for its opset.
        node: the node.
        held: values of its other inputs; they go before those of constants.
    """
    inputs = [_read(tensor, held) for tensor in node.inputs]
    with np.errstate(all="ignore"):
        found = _quick(node, inputs)
        values = _slow(graph, node, inputs) if found is None else [found]
    return {
        output.name: np.asarray(value, dtype=output.dtype)
        for output, value in zip(node.outputs, values, strict=False)
        if output.name
    }


def _read(tensor: gs.Tensor, held: Mapping[str, Array]) -> Array | None:
    if tensor.is_empty():
        return None
    found = held.get(tensor.name)
    return np.asarray(tensor.values) if found is None else found


def _quick(node: gs.Node, inputs: list[Array | None]) -> Array | None:
    """The output of a node that numpy has a function for, else None."""
    first = inputs[0]
    if first is None:
        return None
    if node.op == "Transpose":
        return np.transpose(first, permutation(node))
    if node.op in VIEWS:
        return first.reshape(shape(node.outputs[0]))
    if node.op == "Expand":
        return np.broadcast_to(first, shape(node.outputs[0]))
    if node.op in _REDUCTIONS:
        axes = constant(node, 1, "axes")
        if axes is None and int(node.attrs.get("noop_with_empty_axes", 0)):
            return None
        keep = bool(int(node.attrs.get("keepdims", 1)))
        return np.asarray(_REDUCTIONS[node.op](first, axis=tuple(axes) if axes else None, keepdims=keep))
    if node.op in _QUICK and len(inputs) <= 2 and np.issubdtype(first.dtype, np.floating):
        return np.asarray(_QUICK[node.op](*inputs))
    return None


def _slow(graph: gs.Graph, node: gs.Node, inputs: list[Array | None]) -> list[Array]:
    """The outputs of any node, from the evaluator that comes with ONNX."""
    names = ["" if value is None else f"i{position}" for position, value in enumerate(inputs)]
    read = [gs.Variable(name, None if v is None else v.dtype) for name, v in zip(names, inputs, strict=True)]
    written = [gs.Variable(f"o{position}", t.dtype) for position, t in enumerate(node.outputs)]
    alone = gs.Node(op=node.op, name=node.name, attrs=dict(node.attrs), inputs=read, outputs=written)
    drawn = gs.export_onnx(gs.Graph(nodes=[alone], outputs=[], opset=graph.opset), do_type_check=False)
    evaluator = ReferenceEvaluator(drawn.graph.node[0], opsets={"": graph.opset})
    found = evaluator.run(None, {name: value for name, value in zip(names, inputs, strict=True) if value is not None})
    return [np.asarray(value) for value in found]
