"""The work inside nodes with sub-graphs: loops, scans and branches."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.operators import is_static

__all__ = ["num_rounds", "work_inside"]


def work_inside(node: gs.Node) -> tuple[int, int]:
    """The nodes that run in one round of a node's sub-graph, and the bytes that they read and write.

    The larger of two branches counts. A node in it that has sub-graphs itself counts with all of its rounds, with one
    where their number is not known. Tensors whose shape is known at run time alone have no bytes.
    """
    return max((_work(graph.nodes) for graph in node.subgraphs()), key=lambda work: work[1], default=(0, 0))


def num_rounds(node: gs.Node) -> int | None:
    """The number of times that a node runs its sub-graph; None where it is known at run time alone."""
    if node.op == "If":
        return 1
    if node.op == "Scan":
        first = node.inputs[len(node.inputs) - int(node.attrs["num_scan_inputs"])]
        axes = node.attrs.get("scan_input_axes") or [0]
        return int(first.shape[axes[0]]) if is_static(first) else None
    if node.op == "Loop":
        most = _value(node.inputs[0])
        return most if _goes_on(node) else None
    return None


def _work(nodes: Iterable[gs.Node]) -> tuple[int, int]:
    num_nodes = num_bytes = 0
    for node in nodes:
        if node.op == "Constant":
            continue
        inner_nodes, inner_bytes = work_inside(node)
        rounds = num_rounds(node) or 1
        num_nodes += 1 + inner_nodes * rounds
        num_bytes += sum(map(_bytes, (*node.inputs, *node.outputs))) + inner_bytes * rounds
    return num_nodes, num_bytes


def _bytes(tensor: gs.Tensor) -> int:
    if tensor.is_empty() or not is_static(tensor):
        return 0
    return math.prod(int(size) for size in tensor.shape) * int(np.dtype(tensor.dtype).itemsize)


def _goes_on(loop: gs.Node) -> bool:
    """True if nothing ends a loop before its last round: its condition is true, or absent, and its body hands it on."""
    start = loop.inputs[1] if len(loop.inputs) > 1 else gs.Variable.empty()
    if not start.is_empty() and not _value(start):
        return False
    (body,) = loop.subgraphs()
    condition, given = body.outputs[0], body.inputs[1]
    while condition.inputs and condition.inputs[0].op == "Identity":
        condition = condition.inputs[0].inputs[0]
    return condition.name == given.name or bool(_value(condition))


def _value(tensor: gs.Tensor) -> int | None:
    """The number or truth value in a constant of one element, as a number; None for anything else."""
    values = tensor.values if isinstance(tensor, gs.Constant) else None
    if values is None and tensor.inputs and tensor.inputs[0].op == "Constant":
        values = getattr(tensor.inputs[0].attrs.get("value"), "values", None)
    return int(values.reshape(-1)[0]) if values is not None and values.size == 1 else None
