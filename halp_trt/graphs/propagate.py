"""Follows channels through a dense ONNX graph: one rule per family of operators, a fence at every other operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.fences import fence, seal
from halp_trt.graphs.fixed import is_fixed, settle, state
from halp_trt.graphs.gathers import gather
from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.norms import counted_axes, reduced_axes, regroup
from halp_trt.graphs.operators import (
    NARY,
    POOLS,
    REDUCTIONS,
    UNARY,
    VIEWS,
    constant,
    fixed_tensors,
    is_repeated,
    permutation,
    shape,
    slice_ranges,
    split_sizes,
    view_blocks,
)
from halp_trt.graphs.places import gather_elements, scatter
from halp_trt.graphs.products import conv, matmul, need


def propagate(graph: gs.Graph) -> Labels:
    """Labels of every tensor of a dense graph; what cannot be followed is fenced in.

    Raises:
        UnsupportedLayerError: an input of the network has no static shape.
    """
    fixed = fixed_tensors(graph)
    labels = Labels(fixed)
    for tensor in graph.inputs:
        if len(shape(tensor)) > 1:
            labels.put(tensor.name, 1, labels.fresh(shape(tensor)[1], "it is the network's input"))
    for node in graph.nodes:
        if all(tensor.name in fixed for tensor in node.outputs):
            continue  # what uses it states its channels
        rule = RULES.get(node.op) if node.domain in (None, "", "ai.onnx") else None
        if rule is None:
            fence(labels, node, f"{node.name} ({node.op}) reads it, and channels cannot be followed through that")
            continue
        try:
            rule(labels, node)
        except UnsupportedLayerError as error:
            fence(labels, node, str(error).partition(";")[0])
    settle(labels)
    seal(labels, graph, fixed)
    for tensor in graph.outputs:
        for ids in labels.axes(tensor.name).values():
            labels.freeze(ids, "it is the network's output")
    return labels


# ---- element-wise -------------------------------------------------------------------------------------------------


def _unary(labels: Labels, node: gs.Node) -> None:
    for output in node.outputs:
        for axis, ids in labels.axes(node.inputs[0].name).items():
            labels.put(output.name, axis, ids)


def _nary(labels: Labels, node: gs.Node) -> None:
    output = node.outputs[0]
    rank = len(shape(output))
    for axis in range(rank):
        sized = [(t, axis - rank + len(shape(t))) for t in node.inputs if not t.is_empty()]
        sized = [(t, a) for t, a in sized if a >= 0 and shape(t)[a] == shape(output)[axis]]
        found = [labels.get(t.name, a) for t, a in sized]
        ids = next((f for f in found if f is not None), None)
        if ids is None:
            continue
        for (tensor, own), theirs in zip(sized, found, strict=True):
            if theirs is not None:
                labels.couple(ids, theirs)
            elif is_fixed(labels, tensor):
                state(labels, tensor, own, ids)
            elif is_repeated(tensor, own):
                labels.put(tensor.name, own, ids)
            elif shape(tensor)[own] > 1:
                labels.freeze(ids, f"{node.name} combines it with data that has no channels")
        labels.put(output.name, axis, ids)


def _channelwise(labels: Labels, node: gs.Node) -> None:
    """Batch and instance normalisation: one scale and bias per channel on axis 1."""
    data = node.inputs[0]
    ids = need(labels, data, 1)
    for parameter in node.inputs[1:]:
        if not parameter.is_empty():
            state(labels, parameter, 0, ids)
    _unary(labels, node)


# ---- pooling, reductions and everything that mixes an axis ----------------------------------------------------------


def _pool(labels: Labels, node: gs.Node) -> None:
    for output in node.outputs[:1]:
        for axis in (0, 1):
            ids = labels.get(node.inputs[0].name, axis)
            if ids is not None:
                labels.put(output.name, axis, ids)


def _reduce(labels: Labels, node: gs.Node) -> None:
    data, output = node.inputs[0], node.outputs[0]
    reduced, counted = reduced_axes(node), counted_axes(node)
    keep = bool(int(node.attrs.get("keepdims", 1)))
    for axis, ids in labels.axes(data.name).items():
        if axis in reduced and axis not in counted:
            labels.freeze(ids, f"{node.name} ({node.op}) reduces over it")
        elif axis not in reduced:
            labels.put(output.name, axis if keep else axis - sum(a < axis for a in reduced), ids)


def _mixing(labels: Labels, node: gs.Node) -> None:
    """Softmax and its kind: the axis that they mix cannot lose channels."""
    data = node.inputs[0]
    mixed = {int(node.attrs.get("axis", -1)) % len(shape(data))}
    if node.op == "LRN":
        mixed = {1}
    for axis, ids in labels.axes(data.name).items():
        if axis in mixed:
            labels.freeze(ids, f"{node.name} ({node.op}) mixes it with other channels")
    _unary(labels, node)


def _layer_norm(labels: Labels, node: gs.Node) -> None:
    """Layer normalisation: a removed channel counts as zero; scale and bias follow the axes that it sums over."""
    data, output = node.inputs[0], node.outputs[0]
    rank, counted = len(shape(data)), counted_axes(node)
    for axis, ids in labels.axes(data.name).items():
        for parameter in node.inputs[1:] if axis in counted else ():
            own = axis - rank + len(parameter.shape or ())
            if parameter.is_empty() or own < 0 or shape(parameter)[own] == 1:
                continue
            if is_fixed(labels, parameter):
                state(labels, parameter, own, ids)
            else:
                labels.freeze(ids, f"{node.name} computes its scale or bias at run time")
        labels.put(output.name, axis, ids)
        for statistic in node.outputs[1:] if axis not in counted else ():
            labels.put(statistic.name, axis, ids)


# ---- moving channels ------------------------------------------------------------------------------------------------


def _concat(labels: Labels, node: gs.Node) -> None:
    output = node.outputs[0]
    rank = len(shape(output))
    joined = int(node.attrs["axis"]) % rank
    parts = [labels.get(t.name, joined) for t in node.inputs]
    if any(part is not None for part in parts):
        pieces = [
            labels.fresh(shape(t)[joined], "its width is fixed") if part is None else part
            for t, part in zip(node.inputs, parts, strict=True)
        ]
        labels.put(output.name, joined, np.concatenate(pieces))
    for tensor in node.inputs:
        for axis, ids in labels.axes(tensor.name).items():
            if axis != joined:
                labels.put(output.name, axis, ids)
    for axis, ids in labels.axes(output.name).items():
        for tensor in node.inputs:
            if axis != joined and labels.get(tensor.name, axis) is None:
                if is_fixed(labels, tensor):
                    state(labels, tensor, axis, ids)
                else:
                    labels.freeze(ids, f"{node.name} joins it with data that has no channels")


def _split(labels: Labels, node: gs.Node) -> None:
    data = node.inputs[0]
    cut = int(node.attrs.get("axis", 0)) % len(shape(data))
    sizes = split_sizes(node)
    for axis, ids in labels.axes(data.name).items():
        if axis != cut:
            for output in node.outputs:
                labels.put(output.name, axis, ids)
            continue
        parts = np.split(ids, np.cumsum(sizes)[:-1])
        if len(set(sizes)) == 1:
            for part in parts[1:]:
                labels.couple(parts[0], part)
        for output, part in zip(node.outputs, parts, strict=True):
            labels.put(output.name, axis, part)


def _slice(labels: Labels, node: gs.Node) -> None:
    data = node.inputs[0]
    cuts = {axis: (begin, end, step) for axis, begin, end, step in slice_ranges(node)}
    for axis, ids in labels.axes(data.name).items():
        begin, end, step = cuts.get(axis, (0, len(ids), 1))
        if step != 1:
            labels.freeze(ids, f"{node.name} takes channels of it in steps of {step}")
        part = ids[list(range(begin, end, step))]
        for other in _equal_slices(data, axis, len(part)):
            labels.couple(part, ids[other])
        labels.put(node.outputs[0].name, axis, part)


def _equal_slices(data: gs.Tensor, axis: int, size: int) -> list[slice]:
    """Ties slices of equal size cut from one tensor: code that computes halves needs them to stay equal."""
    nodes = [node for node in data.outputs if node.op == "Slice" and isinstance(node.inputs[1], gs.Constant)]
    cuts = [
        slice(begin, end) for node in nodes for at, begin, end, step in slice_ranges(node) if (at, step) == (axis, 1)
    ]
    return [cut for cut in cuts if cut.stop - cut.start == size]


def _transpose(labels: Labels, node: gs.Node) -> None:
    for new, old in enumerate(permutation(node)):
        ids = labels.get(node.inputs[0].name, old)
        if ids is not None:
            labels.put(node.outputs[0].name, new, ids)


def _view(labels: Labels, node: gs.Node) -> None:
    """Reshape and its kind: axes are matched in blocks of equal size; within a block channels repeat or are tied."""
    data, output = node.inputs[0], node.outputs[0]
    before, after = shape(data), shape(output)
    for olds, news in view_blocks(before, after):
        marked = [a for a in olds if labels.get(data.name, a) is not None]
        if not marked:
            continue
        if len(marked) > 1 or min(_num_wide(before, olds), _num_wide(after, news)) > 1:
            if regroup(labels, node, olds, news):
                continue
            for axis in marked:
                labels.freeze(labels.axes(data.name)[axis], f"{node.name} ({node.op}) mixes it with other axes")
            continue
        ids = labels.axes(data.name)[marked[0]]
        wide = [a for a in news if after[a] > 1]
        if len(wide) <= 1:
            grid = ids.reshape([-1 if a == marked[0] else 1 for a in olds])
            spread = np.broadcast_to(grid, [before[a] for a in olds]).reshape(-1)
            labels.put(output.name, wide[0] if wide else news[0], spread)
        else:
            _tie(labels, output.name, ids.reshape([after[a] for a in news]), news)


def _num_wide(dims: tuple[int, ...], axes: list[int]) -> int:
    return sum(dims[a] > 1 for a in axes)


def _tie(labels: Labels, tensor: str, grid: Ids, news: list[int]) -> None:
    """An axis cut into several: channels are tied along all but the widest of the new axes."""
    widest = int(np.argmax(grid.shape))
    rows = np.moveaxis(grid, widest, 0).reshape(grid.shape[widest], -1)
    for column in rows.T[1:]:
        labels.couple(rows[:, 0], column)
    labels.put(tensor, news[widest], rows[:, 0].copy())


def _expand(labels: Labels, node: gs.Node) -> None:
    data, output = node.inputs[0], node.outputs[0]
    added = len(shape(output)) - len(shape(data))
    for axis, ids in labels.axes(data.name).items():
        if shape(output)[axis + added] == len(ids):
            labels.put(output.name, axis + added, ids)
        else:
            labels.freeze(ids, f"{node.name} repeats it")


def _tile(labels: Labels, node: gs.Node) -> None:
    repeats = constant(node, 1) or []
    for axis, ids in labels.axes(node.inputs[0].name).items():
        labels.put(node.outputs[0].name, axis, np.tile(ids, repeats[axis]))


def _pad(labels: Labels, node: gs.Node) -> None:
    data = node.inputs[0]
    rank = len(shape(data))
    pads = constant(node, 1, "pads") or [0] * (2 * rank)
    axes = constant(node, 3) or list(range(rank))
    for axis, ids in labels.axes(data.name).items():
        at = axes.index(axis) if axis in axes else None
        before, after = (pads[at], pads[at + len(axes)]) if at is not None else (0, 0)
        if before < 0 or after < 0:
            raise UnsupportedLayerError(f"node {node.name!r} (Pad) crops channels; slice them instead")
        fixed = "its width is fixed by zero padding"
        pieces = [labels.fresh(before, fixed), ids, labels.fresh(after, fixed)]
        labels.put(node.outputs[0].name, axis, np.concatenate(pieces) if before or after else ids)


def _resize(labels: Labels, node: gs.Node) -> None:
    before, after = shape(node.inputs[0]), shape(node.outputs[0])
    for axis, ids in labels.axes(node.inputs[0].name).items():
        if before[axis] == after[axis]:
            labels.put(node.outputs[0].name, axis, ids)
        else:
            labels.freeze(ids, f"{node.name} resamples it")


def _depth_to_space(labels: Labels, node: gs.Node) -> None:
    block = int(node.attrs["blocksize"]) ** 2
    ids = need(labels, node.inputs[0], 1)
    if node.op == "SpaceToDepth":
        labels.put(node.outputs[0].name, 1, np.tile(ids, block))
        return
    crd = node.attrs.get("mode", "DCR") == "CRD"
    columns = ids.reshape(-1, block) if crd else ids.reshape(block, -1).T
    for column in columns.T[1:]:
        labels.couple(columns[:, 0], column)
    labels.put(node.outputs[0].name, 1, columns[:, 0].copy())


Rule = Callable[[Labels, gs.Node], None]
RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(NARY, _nary),
    **dict.fromkeys(POOLS, _pool),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **dict.fromkeys(VIEWS, _view),
    "ArgMax": _reduce,
    "ArgMin": _reduce,
    "BatchNormalization": _channelwise,
    "Concat": _concat,
    "Conv": conv,
    "ConvTranspose": conv,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather,
    "Gemm": matmul,
    "Hardmax": _mixing,
    "InstanceNormalization": _channelwise,
    "LRN": _mixing,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _mixing,
    "LpNormalization": _mixing,
    "MatMul": matmul,
    "Pad": _pad,
    "Resize": _resize,
    "ScatterElements": scatter,
    "ScatterND": scatter,
    "Slice": _slice,
    "Softmax": _mixing,
    "SpaceToDepth": _depth_to_space,
    "Split": _split,
    "Tile": _tile,
    "Transpose": _transpose,
}
