"""Channels through GatherElements, ScatterElements and ScatterND: axes along which nothing is placed are handed on."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from halp_trt.graphs.fixed import is_fixed, state
from halp_trt.graphs.labels import Labels
from halp_trt.graphs.operators import is_repeated, shape

__all__ = ["gather_elements", "scatter"]

Aligned = Sequence[tuple[gs.Tensor, int]]
"""Tensors, each with the axis that belongs to one axis of the output."""


def gather_elements(labels: Labels, node: gs.Node) -> None:
    """Channels of every axis but the one along which elements are picked; there they stay whole."""
    data, places = node.inputs[:2]
    picked = int(node.attrs.get("axis", 0)) % len(shape(data))
    for axis, size in enumerate(shape(node.outputs[0])):
        aligned = [(tensor, axis) for tensor in (data, places)]
        if axis == picked or shape(data)[axis] != size:
            _stay(labels, aligned, f"{node.name} ({node.op}) picks elements along it")
        else:
            _join(labels, node, axis, aligned)


def scatter(labels: Labels, node: gs.Node) -> None:
    """Channels of the axes along which nothing is placed, in the data and in the updates; the others stay whole."""
    data, places, updates = node.inputs[:3]
    rank = len(shape(data))
    if node.op == "ScatterND":
        num_placed = shape(places)[-1]
        placed, moved = set(range(num_placed)), len(shape(places)) - 1 - num_placed
        _stay(
            labels,
            [(places, axis) for axis in range(len(shape(places)))],
            f"{node.name} ({node.op}) takes it for places",
        )
        _stay(
            labels,
            [(updates, axis) for axis in range(len(shape(places)) - 1)],
            f"{node.name} ({node.op}) places along it",
        )
    else:
        placed, moved = {int(node.attrs.get("axis", 0)) % rank}, 0
    for axis in range(rank):
        if axis in placed:
            aligned = [(tensor, axis) for tensor in (data, places, updates) if node.op != "ScatterND" or tensor is data]
            _stay(labels, aligned, f"{node.name} ({node.op}) places along it")
            continue
        aligned = [(data, axis), (updates, axis + moved)]
        if node.op != "ScatterND":
            aligned.append((places, axis))
        if len({shape(tensor)[own] for tensor, own in aligned}) > 1:
            _stay(labels, aligned, f"{node.name} ({node.op}) writes to some of it")
        else:
            _join(labels, node, axis, aligned)


def _stay(labels: Labels, aligned: Aligned, reason: str) -> None:
    for tensor, axis in aligned:
        ids = labels.get(tensor.name, axis)
        if ids is not None:
            labels.freeze(ids, reason)


def _join(labels: Labels, node: gs.Node, axis: int, aligned: Aligned) -> None:
    """Hands the channels of an axis on to the output: those of all tensors are one, and fixed tensors follow."""
    found = [labels.get(tensor.name, own) for tensor, own in aligned]
    ids = next((carried for carried in found if carried is not None), None)
    if ids is None:
        return
    for (tensor, own), carried in zip(aligned, found, strict=True):
        if carried is not None:
            labels.couple(ids, carried)
        elif is_fixed(labels, tensor):
            state(labels, tensor, own, ids)
        elif is_repeated(tensor, own):
            labels.put(tensor.name, own, ids)
        else:
            labels.freeze(ids, f"{node.name} combines it with data that has no channels")
    labels.put(node.outputs[0].name, axis, ids)
