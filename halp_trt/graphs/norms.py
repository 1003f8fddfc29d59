"""Channels through norms over groups of channels: whole norm groups can go, since each has statistics of its own."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.operators import shape

__all__ = ["regroup"]


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
