"""Channels through norms and sums over channels.

Norms over groups of channels have statistics of their own for each group, so that whole groups can go. A norm or
reduction over all channels sees a removed channel as zero: the rewritten graph leaves it out of a sum, scales a mean by
the share of channels that are left, compares a maximum with zero, and gives a norm its zeros back, so that it still
divides by the dense count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.operators import constant, shape

__all__ = ["COUNT", "NORMS", "Shortened", "counted_axes", "recount", "reduced_axes", "regroup", "widen"]

COUNT = "norm.count"
"""Attribute of a layer's spec: the width over which its norm divides, whatever width it reads."""
NORMS = frozenset({"InstanceNormalization", "LayerNormalization"})
"""Norms that can be given zeros for the channels that they lose."""
_COUNTED = frozenset({"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare"})
"""Reductions of which the result with some zeros more follows from the result without."""
_EXTREMES = {"ReduceMax": "Max", "ReduceMin": "Min"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortened:
    """An axis of a node's data that lost channels.

    Attributes:
        axis: the axis.
        keep: True for every dense position that stays.
    """

    axis: int
    keep: npt.NDArray[np.bool_]

    @property
    def num_missing(self) -> int:
        """Number of positions that were removed."""
        return int((~self.keep).sum())


def reduced_axes(node: gs.Node) -> frozenset[int]:
    """The axes over which a reduction, ArgMax or ArgMin goes.

    Raises:
        UnsupportedLayerError: the axes are computed at run time.
    """
    rank = len(shape(node.inputs[0]))
    axes = [int(node.attrs.get("axis", 0))] if node.op in ("ArgMax", "ArgMin") else constant(node, 1, "axes")
    return frozenset(axis % rank for axis in axes) if axes else frozenset(range(rank))


def counted_axes(node: gs.Node) -> frozenset[int]:
    """The axes over which a node goes in such a way that zeros can be left out, or put back in; empty for others."""
    rank = len(node.inputs[0].shape or ()) if node.inputs else 0
    if node.op == "LayerNormalization":
        return frozenset(range(int(node.attrs.get("axis", -1)) % rank, rank))
    if node.op == "InstanceNormalization":
        return frozenset(range(2, rank))
    return reduced_axes(node) if node.op in _COUNTED else frozenset()


def widen(node: gs.Node, lost: Sequence[Shortened], narrow: Sequence[int]) -> list[gs.Node]:
    """Gives a norm zeros in the place of removed channels, behind those that stay, and cuts them off its output.

    A norm does not care for the order of what it sums over, so it finds the mean and variance of the masked network to
    the last bit.

    Args:
        node: the norm in the dense graph, its scale and bias still dense; it is changed.
        lost: the axes that it sums over and that lost channels.
        narrow: the shape of its data without removed channels.

    Returns:
        The two nodes more.
    """
    data, output = node.inputs[0], node.outputs[0]
    rank, wide = len(narrow), list(narrow)
    pads = np.zeros(2 * rank, np.int64)
    for one in lost:
        wide[one.axis] = len(one.keep)
        pads[rank + one.axis] = one.num_missing
    padded = gs.Variable(f"{node.name}/padded", data.dtype, wide)
    normed = gs.Variable(f"{node.name}/normed", output.dtype, wide)
    before = gs.Node("Pad", padded.name, {}, [data, gs.Constant(f"{node.name}/pads", pads)], [padded])
    columns = [[0] * len(lost), [narrow[one.axis] for one in lost], [one.axis for one in lost]]
    bounds = [
        gs.Constant(f"{node.name}/{name}", np.array(values, np.int64))
        for name, values in zip(("starts", "stops", "axes"), columns, strict=True)
    ]
    after = gs.Node("Slice", f"{node.name}/kept", {}, [normed, *bounds], [output])
    node.outputs = [normed, *node.outputs[1:]]
    node.inputs = [padded, *(_reordered(node, tensor, lost, rank) for tensor in node.inputs[1:])]
    return [before, after]


def _reordered(node: gs.Node, tensor: gs.Tensor, lost: Sequence[Shortened], rank: int) -> gs.Tensor:
    """A scale or bias with the values of channels that stay in front, as :func:`widen` puts their data."""
    if node.op != "LayerNormalization" or tensor.is_empty():
        return tensor
    values = tensor.values
    for one in lost:
        own = one.axis - rank + values.ndim
        if own >= 0 and values.shape[own] == len(one.keep):
            values = np.take(values, np.argsort(~one.keep, kind="stable"), axis=own)
    return gs.Constant(f"{node.name}/{tensor.name}", np.ascontiguousarray(values))


def recount(node: gs.Node, lost: Sequence[Shortened]) -> list[gs.Node]:
    """Takes the zeros of removed channels into account behind a reduction; returns the node more that this takes.

    A mean is multiplied by the share of channels that are left, a maximum or minimum compared with zero.
    """
    output, kind = node.outputs[0], node.outputs[0].dtype or node.inputs[0].dtype
    if node.op not in ("ReduceMean", *_EXTREMES):
        return []
    reduced = gs.Variable(f"{node.name}/reduced", kind, output.shape)
    share = float(np.prod([one.keep.mean() for one in lost]))
    number = gs.Constant(f"{node.name}/zeros", np.array(share if node.op == "ReduceMean" else 0, kind))
    node.outputs = [reduced]
    return [gs.Node(_EXTREMES.get(node.op, "Mul"), number.name, {}, [reduced, number], [output])]


def regroup(labels: Labels, node: gs.Node, olds: list[int], news: list[int]) -> bool:
    """A view between ``[C, ...]`` and ``[G, ...]`` that moves values over the axes behind, as before a group norm.

    The first axis alone decides where a channel goes: channels of one row are coupled, a row of several channels is
    repeated.

    Args:
        labels: labels; those of the output are stated.
        node: the view.
        olds: the input's axes in question.
        news: the output's axes that hold the same values.

    Returns:
        False, with nothing stated, if the channels do not stand along the first wide axis or are cut in between.
    """
    data, output = node.inputs[0], node.outputs[0]
    before, after = shape(data), shape(output)
    first = next((axis for axis in olds if before[axis] > 1), olds[0])
    lead = next((axis for axis in news if after[axis] > 1), news[0])
    if [axis for axis in olds if labels.get(data.name, axis) is not None] != [first]:
        return False
    ids, rows = labels.axes(data.name)[first], after[lead]
    if len(ids) % rows == 0:
        labels.put(output.name, lead, _tied(labels, ids.reshape(rows, -1)))
        return True
    if rows % len(ids) == 0:
        labels.put(output.name, lead, np.repeat(ids, rows // len(ids)))
        return True
    return False


def _tied(labels: Labels, rows: Ids) -> Ids:
    """Couples the channels of each row; returns the first of every row."""
    for column in rows.T[1:]:
        labels.couple(rows[:, 0], column)
    return rows[:, 0].copy()
