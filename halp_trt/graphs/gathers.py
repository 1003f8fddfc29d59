"""Channels through Gather and GatherND: picked by constant indices they keep their names, other axes are handed on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.operators import VIEWS, permutation, shape

__all__ = ["gather", "mend_gather"]

Array = npt.NDArray[Any]
Keep = npt.NDArray[np.bool_]
KeepOf = Callable[[str, int], Keep | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picking:
    """The way a node picks.

    Attributes:
        first: the first axis picked along, in the data and in the output.
        num_picked: number of axes of the data picked along.
        indices: constant indices, one column for each of these axes, made non-negative; None if they are computed.
        num_written: number of axes that stand in the output for those picked along.
    """

    first: int
    num_picked: int
    indices: Array | None
    num_written: int

    def written(self, axis: int) -> int:
        """The output's axis for an axis of the data that is not picked along."""
        return axis if axis < self.first else axis - self.num_picked + self.num_written


def gather(labels: Labels, node: gs.Node) -> None:
    """Hands on the channels of the axes that are not picked along, and those that constant indices pick."""
    data, output = node.inputs[0], node.outputs[0]
    picking = _picking(node)
    for ids in labels.axes(node.inputs[1].name).values():
        labels.freeze(ids, f"{node.name} takes it for indices")
    for axis, ids in labels.axes(data.name).items():
        column = axis - picking.first
        if not 0 <= column < picking.num_picked:
            labels.put(output.name, picking.written(axis), ids)
        elif picking.indices is None:
            labels.freeze(ids, f"{node.name} picks channels of it that are known at run time alone")
        else:
            _pick(labels, node, picking.first, ids[picking.indices[..., column]])


def _pick(labels: Labels, node: gs.Node, first: int, grid: Ids) -> None:
    """Names the output's axis along which the picked channels differ; the others must repeat them."""
    roots = labels.roots(grid.reshape(-1)).reshape(grid.shape)
    for axis in range(grid.ndim):
        line = np.moveaxis(grid, axis, -1).reshape(-1, grid.shape[axis])[0]
        place = [1] * axis + [-1] + [1] * (grid.ndim - axis - 1)
        if grid.shape[axis] > 1 and (roots == labels.roots(line).reshape(place)).all():
            labels.put(node.outputs[0].name, first + axis, line)
            return
    labels.freeze(grid.reshape(-1), f"{node.name} picks single channels of it")


def mend_gather(keep_of: KeepOf, node: gs.Node) -> None:
    """Takes removed channels out of a node's constant indices and renumbers the others.

    Args:
        keep_of: the positions that stay of a tensor's axis, None where it carries no channels.
        node: a Gather or GatherND of the dense graph.
    """
    picking = _picking(node)
    if picking.indices is None:
        return
    indices = picking.indices
    for axis in range(indices.ndim - 1):
        keep = keep_of(node.outputs[0].name, picking.first + axis)
        if keep is not None:
            indices = np.compress(keep, indices, axis=axis)
    moved = indices.copy()
    for column in range(picking.num_picked):
        keep = keep_of(node.inputs[0].name, picking.first + column)
        if keep is not None:
            moved[..., column] = (np.cumsum(keep) - 1)[indices[..., column]]
    if moved.shape != picking.indices.shape or (moved != picking.indices).any():
        values = moved if node.op == "GatherND" else moved[..., 0]
        node.inputs[1] = gs.Constant(f"{node.name}.indices", np.ascontiguousarray(values, dtype=np.int64))


def _picking(node: gs.Node) -> _Picking:
    dims, rank = shape(node.inputs[0]), len(shape(node.inputs[1]))
    indices = static_values(node.inputs[1])
    if node.op == "GatherND":
        first = int(node.attrs.get("batch_dims", 0))
        num_picked, num_written = shape(node.inputs[1])[-1], rank - 1 - first
        columns = None if first else indices  # behind a batch each picture has indices of its own
    else:
        first = int(node.attrs.get("axis", 0)) % len(dims)
        num_picked, num_written = 1, rank
        columns = None if indices is None else indices[..., None]
    if columns is not None:
        columns = columns % np.array(dims[first : first + num_picked])
    return _Picking(first=first, num_picked=num_picked, indices=columns, num_written=num_written)


def static_values(tensor: gs.Tensor) -> Array | None:
    """The numbers of a tensor that is a constant, or made of constants by moving them about; None for any other."""
    if isinstance(tensor, gs.Constant):
        return np.asarray(tensor.values)
    if tensor.is_empty() or not tensor.inputs:
        return None
    node = tensor.inputs[0]
    parts = list(_parts(node))
    if not parts or any(part is None for part in parts):
        return None
    values = [np.asarray(part) for part in parts]
    if node.op in VIEWS or node.op == "Identity":
        return values[0].reshape(shape(tensor))
    if node.op == "Expand":
        return np.broadcast_to(values[0], shape(tensor))
    if node.op == "Transpose":
        return np.transpose(values[0], permutation(node))
    if node.op == "Cast":
        return values[0].astype(tensor.dtype)
    return np.concatenate(values, axis=int(node.attrs["axis"]))


def _parts(node: gs.Node) -> Iterator[Array | None]:
    """The values that a node only moves; none for a node that computes."""
    if node.op == "Concat":
        yield from map(static_values, node.inputs)
    elif node.op in VIEWS or node.op in ("Identity", "Expand", "Transpose", "Cast"):
        yield static_values(node.inputs[0])
