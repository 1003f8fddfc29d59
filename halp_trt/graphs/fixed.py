"""Tensors computed from weights and constants alone: whose channels they carry, back to the parameters behind them.

A batch norm written out with buffers, a weight divided by its norm, a table that is expanded: the node that uses such a
tensor states its channels, and they are carried back through the expression as far as a position of the result is one
position of the parameter. Where an expression mixes an axis the way back ends, and nothing is frozen: the rewriting
computes the expression at its dense width and cuts the result.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.operators import (
    NARY,
    REDUCTIONS,
    UNARY,
    VIEWS,
    constant,
    permutation,
    shape,
    slice_ranges,
    source,
    split_sizes,
    view_blocks,
)

__all__ = ["behind", "expression", "is_fixed", "known", "settle", "state"]

Origin = tuple[gs.Tensor, int, Ids]
"""An input, an axis of it, and the position along it for every position of the output's axis; -1 where that comes from
elsewhere."""


def is_fixed(labels: Labels, tensor: gs.Tensor) -> bool:
    """True for constants and what is computed from constants alone."""
    return isinstance(tensor, gs.Constant) or tensor.name in labels.fixed


def state(labels: Labels, tensor: gs.Tensor, axis: int, ids: Ids) -> Ids:
    """States the channels of a fixed tensor's axis, at its use and at the parameters behind it; returns them."""
    labels.put(tensor.name, axis, ids)
    if not isinstance(tensor, gs.Constant):
        for origin, own, positions in _origins(tensor, axis):
            _carry(labels, origin, own, _moved(labels, shape(origin)[own], positions, ids))
    return ids


def known(labels: Labels, tensor: gs.Tensor, axis: int) -> Ids | None:
    """The channels stated already for a fixed tensor's axis, or None; a shared weight has written its own before."""
    name, own = source(tensor, axis) or (tensor.name, axis)
    return labels.get(name, own)


def settle(labels: Labels) -> None:
    """States the channels of axes of which only some positions were met, a slice say; the others have a fixed width."""
    for (name, axis), ids in labels.partial.items():
        free = ids < 0
        labels.put(name, axis, np.where(free, labels.fresh(len(ids), "its width is fixed"), ids) if free.any() else ids)
    labels.partial.clear()


def _carry(labels: Labels, tensor: gs.Tensor, axis: int, ids: Ids | None) -> None:
    """Carries channels on from an input of an expression; -1 stands for positions that are not met."""
    if ids is None:
        return
    if not isinstance(tensor, gs.Constant):
        for origin, own, positions in _origins(tensor, axis):
            _carry(labels, origin, own, _moved(labels, shape(origin)[own], positions, ids))
        return
    earlier = labels.partial.get((tensor.name, axis))
    if earlier is None and (ids >= 0).all():
        labels.put(tensor.name, axis, ids)
        return
    if earlier is not None:
        both = (earlier >= 0) & (ids >= 0)
        labels.couple(earlier[both], ids[both])
        ids = np.where(earlier >= 0, earlier, ids)
    labels.partial[(tensor.name, axis)] = ids


def _moved(labels: Labels, size: int, positions: Ids, ids: Ids) -> Ids | None:
    """Channels along the input's axis; None where a position of it serves several channels."""
    result = np.full(size, -1, dtype=np.int64)
    for position, channel in zip(positions.tolist(), ids.tolist(), strict=True):
        if position < 0 or channel < 0:
            continue
        if result[position] >= 0 and labels.find(int(result[position])) != labels.find(channel):
            return None
        result[position] = channel
    return result


def _origins(tensor: gs.Tensor, axis: int) -> list[Origin]:
    """The inputs whose axis is handed on, position by position, to an axis of a computed tensor."""
    node = tensor.inputs[0]
    size = shape(tensor)[axis]
    same = np.arange(size)
    if node.op in NARY:
        rank = len(shape(tensor))
        aligned = [(t, axis - rank + len(shape(t))) for t in node.inputs if not t.is_empty()]
        return [(t, own, same) for t, own in aligned if own >= 0 and shape(t)[own] == size]
    if node.op in UNARY:
        return [(node.inputs[0], axis, same)]
    if node.op == "BatchNormalization":
        parameters = [(t, 0, same) for t in node.inputs[1:] if axis == 1 and not t.is_empty()]
        return [(node.inputs[0], axis, same), *parameters]
    if node.op == "MatMul":
        return _of_product(node, axis, same)
    found = _of_moved(node, tensor, axis, same)
    return [] if found is None else found


def _of_product(node: gs.Node, axis: int, same: Ids) -> list[Origin]:
    first, second = node.inputs
    rank = len(shape(node.outputs[0]))
    if min(len(shape(first)), len(shape(second))) < 2 or axis < rank - 2:
        return []
    return [(second, len(shape(second)) - 1, same) if axis == rank - 1 else (first, len(shape(first)) - 2, same)]


def _of_moved(node: gs.Node, tensor: gs.Tensor, axis: int, same: Ids) -> list[Origin] | None:
    """The origin behind nodes that move or repeat values, or reduce other axes."""
    data, size = node.inputs[0], len(same)
    if node.op == "Transpose":
        return [(data, permutation(node)[axis], same)]
    if node.op in VIEWS:
        return _of_view(data, tensor, axis, same)
    if node.op in REDUCTIONS:
        axes = constant(node, 1, "axes")
        keep = bool(int(node.attrs.get("keepdims", 1)))
        kept = [a for a in range(len(shape(data))) if a not in {b % len(shape(data)) for b in axes or ()}]
        if not axes:
            return None
        own = axis if keep else kept[axis]
        return [(data, own, same)] if own in kept else None
    if node.op == "Concat":
        return _of_concat(node, axis, same)
    own = axis - len(shape(tensor)) + len(shape(data))
    if node.op in ("Expand", "Tile"):
        return [(data, own, same % shape(data)[own])] if own >= 0 and shape(data)[own] > 1 else None
    if node.op == "Slice":
        cuts = {cut: np.arange(shape(data)[cut])[begin : end if end >= 0 else None : step]
                for cut, begin, end, step in slice_ranges(node)}  # fmt: skip
        return [(data, axis, cuts.get(axis, same))]
    if node.op == "Split":
        cut = int(node.attrs.get("axis", 0)) % len(shape(data))
        before = sum(split_sizes(node)[: [t.name for t in node.outputs].index(tensor.name)])
        return [(data, axis, same + before if axis == cut else same)]
    if node.op == "Gather" and isinstance(node.inputs[1], gs.Constant):
        return _of_gather(node, axis, same)
    return None if size else []


def _of_view(data: gs.Tensor, tensor: gs.Tensor, axis: int, same: Ids) -> list[Origin] | None:
    before, after = shape(data), shape(tensor)
    for olds, news in view_blocks(before, after):
        wide = [a for a in olds if before[a] > 1]
        if axis in news and len(wide) == 1 and before[wide[0]] == after[axis]:
            return [(data, wide[0], same)]
    return None


def _of_concat(node: gs.Node, axis: int, same: Ids) -> list[Origin]:
    joined = int(node.attrs["axis"]) % len(shape(node.outputs[0]))
    if axis != joined:
        return [(tensor, axis, same) for tensor in node.inputs]
    origins: list[Origin] = []
    start = 0
    for tensor in node.inputs:
        stop = start + shape(tensor)[axis]
        origins.append((tensor, axis, np.where((same >= start) & (same < stop), same - start, -1)))
        start = stop
    return origins


def _of_gather(node: gs.Node, axis: int, same: Ids) -> list[Origin] | None:
    data, indices = node.inputs[0], np.asarray(node.inputs[1].values)
    picked = int(node.attrs.get("axis", 0)) % len(shape(data))
    if axis < picked:
        return [(data, axis, same)]
    if axis >= picked + indices.ndim:
        return [(data, axis - indices.ndim + 1, same)]
    return [(data, picked, indices % shape(data)[picked])] if indices.ndim == 1 else None


def behind(tensor: gs.Tensor, axis: int) -> set[tuple[str, int]]:
    """The constants, and their axes, that a fixed tensor's axis is carried back to."""
    if isinstance(tensor, gs.Constant):
        return {(tensor.name, axis)}
    return {place for origin, own, _ in _origins(tensor, axis) for place in behind(origin, own)}


def expression(tensor: gs.Tensor) -> tuple[list[gs.Node], list[gs.Constant]]:
    """The nodes that compute a fixed tensor, in order, and the constants that they read."""
    nodes: dict[int, gs.Node] = {}
    constants: dict[str, gs.Constant] = {}

    def visit(read: gs.Tensor) -> None:
        if isinstance(read, gs.Constant):
            constants.setdefault(read.name, read)
        elif not read.is_empty() and id(read.inputs[0]) not in nodes:
            for other in read.inputs[0].inputs:
                visit(other)
            nodes[id(read.inputs[0])] = read.inputs[0]

    visit(tensor)
    return list(nodes.values()), list(constants.values())
