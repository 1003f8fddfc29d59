"""Fences: nodes through which channels are not followed. What they read stays whole, and so does what they write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import onnx_graphsurgeon as gs

from halp_trt.graphs.labels import Labels
from halp_trt.graphs.operators import reads

__all__ = ["fence", "seal"]


def fence(labels: Labels, node: gs.Node, reason: str) -> None:
    """Freezes the channels that a node reads, its sub-graphs included; its outputs have fixed widths.

    What a rule has stated already about the node's outputs is frozen as well.

    Args:
        labels: labels of the graph so far.
        node: the node.
        reason: reason in words, to be read after the names of the channels.
    """
    labels.fences[node.name] = reason
    _freeze(labels, (*reads(node), *node.outputs), reason)


def seal(labels: Labels, graph: gs.Graph, fixed: Set[str]) -> None:
    """Freezes what fences read once more: weights that a fence shares with a layer have their channels by now.

    Args:
        labels: labels of the whole graph.
        graph: the dense graph.
        fixed: names of the tensors computed from constants alone; what they are made of stays whole as well.
    """
    for node in graph.nodes:
        if node.name in labels.fences:
            _freeze(labels, (*_origins(node, fixed), *node.outputs), labels.fences[node.name])


def _freeze(labels: Labels, tensors: Iterable[gs.Tensor], reason: str) -> None:
    for tensor in tensors:
        for ids in labels.axes(tensor.name).values():
            labels.freeze(ids, reason)


def _origins(node: gs.Node, fixed: Set[str]) -> Iterator[gs.Tensor]:
    pending, seen = list(reads(node)), set[str]()
    while pending:
        tensor = pending.pop()
        if tensor.name not in seen:
            seen.add(tensor.name)
            yield tensor
            pending.extend(t for writer in tensor.inputs if tensor.name in fixed for t in reads(writer))
