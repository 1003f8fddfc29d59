"""Rewrites a dense ONNX graph into the pruned one: slices weights, mends attributes and shapes, folds, checks."""

from __future__ import annotations

from collections.abc import Callable, Set

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from halp_trt.errors import BuildError, GraphMismatchError, brief
from halp_trt.graphs.affine import fold_affine
from halp_trt.graphs.channels import alive, mask_of
from halp_trt.graphs.folding import fold_batch_norms, fold_constants
from halp_trt.graphs.gathers import mend_gather
from halp_trt.graphs.labels import Ids, Labels
from halp_trt.graphs.norms import NORMS, Shortened, counted_axes, recount, widen
from halp_trt.graphs.operators import REDUCTIONS, shape, slice_ranges, split_sizes
from halp_trt.graphs.opset import convert_opset
from halp_trt.graphs.propagate import propagate
from halp_trt.graphs.removed import absorb_additions, fold_removed
from halp_trt.graphs.values import evaluate_fixed
from halp_trt.specs import PruningPlan

Keep = npt.NDArray[np.bool_]
G_LOGGER.severity = G_LOGGER.CRITICAL  # it prints its warnings to standard output, where results stand


class _Cut:
    """The positions of labelled axes that stay: labels of the dense graph joined with a plan."""

    def __init__(self, labels: Labels, state: dict[int, bool]) -> None:
        self.labels, self.state = labels, state
        self.added: list[gs.Node] = []

    def of(self, ids: Ids) -> Keep:
        return mask_of(self.labels, self.state, ids)

    def axis(self, tensor: str, axis: int) -> Keep | None:
        ids = self.labels.get(tensor, axis)
        return None if ids is None else self.of(ids)

    def new_shape(self, tensor: gs.Tensor) -> list[int]:
        dims = list(shape(tensor))
        for axis, ids in self.labels.axes(tensor.name).items():
            dims[axis] = int(self.of(ids).sum())
        return dims


def rewrite(model: onnx.ModelProto, plan: PruningPlan, *, opset: int | None = None) -> onnx.ModelProto:
    """The pruned, physically narrow network.

    Initialisers are sliced by name; the groups of convolutions, the sizes of splits, slices and gathers, the shapes of
    reshapes and expansions follow; removed blocks become constants in the biases around them, batch norms and constants
    are folded, dead nodes dropped, shapes inferred again.

    Args:
        model: the dense export (``halp_trt.graphs.export``); it is not changed.
        plan: channels to keep; the dense plan gives the dense network, folded.
        opset: 17 gives opset 17 and IR version 8, as read by TensorRT 8.5; None keeps the exporter's.

    Raises:
        GraphMismatchError: the plan was made for another network.
        UnsupportedLayerError: a node cannot be followed, or has no form in the wanted opset.
        BuildError: the result is not a valid ONNX model.
    """
    graph = gs.import_onnx(model)
    _check_same_network(graph, plan)
    labels = propagate(graph)
    cut = _Cut(labels, alive(labels, plan.graph.parameters, plan.kept))
    _mask_expressions(graph, plan, labels.fixed)
    evaluate_fixed(graph, labels)
    for node in graph.nodes:
        mend = _MENDS.get(node.op)
        if mend is not None and node.name not in labels.fences:
            mend(cut, node)
    if cut.added:
        graph.nodes.extend(cut.added)
        graph.toposort()
    _slice_constants(graph, cut)
    additions = fold_removed(graph, cut.new_shape) if plan.removed_blocks else []
    graph.cleanup(remove_unused_graph_inputs=False)
    known = {t.name for t in graph.inputs} | {t.name for n in graph.nodes if n.name in labels.fences for t in n.outputs}
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.name not in known:
            tensor.shape = None
    fold_affine(graph, additions)
    fold_batch_norms(graph)
    fold_affine(graph, additions)
    fold_constants(graph)
    absorb_additions(graph, additions)
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    return _finish(graph, opset)


def _finish(graph: gs.Graph, opset: int | None) -> onnx.ModelProto:
    try:
        rewritten = onnx.shape_inference.infer_shapes(gs.export_onnx(graph, do_type_check=False), strict_mode=True)
        if opset is not None:
            rewritten = convert_opset(rewritten, opset)
        onnx.checker.check_model(rewritten, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BuildError(
            f"the rewritten graph is not valid ONNX: {brief(str(error), 300)}; please report the network"
        ) from error
    return rewritten


def _check_same_network(graph: gs.Graph, plan: PruningPlan) -> None:
    tensors = graph.tensors()
    for axis in plan.graph.parameters:
        tensor = tensors.get(axis.parameter)
        length = sum(run.count * run.repeat for run in axis.runs)
        if tensor is None or shape(tensor)[axis.axis] != length:
            found = "missing" if tensor is None else f"of shape {shape(tensor)}"
            raise GraphMismatchError(
                f"the plan was made for another network: it wants {axis.parameter!r} with {length} channels on axis "
                f"{axis.axis}, here it is {found}; make a new plan for this network"
            )


def _mask_expressions(graph: gs.Graph, plan: PruningPlan, fixed: Set[str]) -> None:
    """Sets removed channels to zero in the parameters that expressions read, as masking does in the module.

    A weight that is divided by its norm, say, then has the norm of the masked network, whatever weights the export has.
    """
    read = {t.name for node in graph.nodes if all(out.name in fixed for out in node.outputs) for t in node.inputs}
    tensors = graph.tensors()
    for axis in plan.graph.parameters:
        tensor = tensors[axis.parameter]
        dead = np.setdiff1d(np.arange(shape(tensor)[axis.axis]), plan.kept_positions(axis))
        if axis.parameter in read and len(dead):
            values = np.array(tensor.values)
            values[(slice(None),) * axis.axis + (dead,)] = 0
            tensor.values = values


def _slice_constants(graph: gs.Graph, cut: _Cut) -> None:
    for tensor in graph.tensors().values():
        if not isinstance(tensor, gs.Constant):
            continue
        values = tensor.values
        for axis, ids in cut.labels.axes(tensor.name).items():
            values = np.compress(cut.of(ids), values, axis=axis)
        if values is not tensor.values:
            tensor.values = np.ascontiguousarray(values)


# ---- nodes that write widths down -----------------------------------------------------------------------------------


def _replace_constant(node: gs.Node, position: int, values: list[int]) -> None:
    while len(node.inputs) <= position:
        node.inputs.append(gs.Variable.empty())
    node.inputs[position] = gs.Constant(f"{node.name}.{position}", np.array(values, dtype=np.int64))


def _mend_conv(cut: _Cut, node: gs.Node) -> None:
    groups = int(node.attrs.get("group", 1))
    keep = cut.axis(node.inputs[0].name, 1)
    if keep is not None and groups == len(keep) and groups > 1:
        node.attrs["group"] = int(keep.sum())


def _mend_view(cut: _Cut, node: gs.Node) -> None:
    if isinstance(node.inputs[0], gs.Constant) and not cut.labels.axes(node.outputs[0].name):
        return
    if node.op in ("Reshape", "Expand") and cut.labels.axes(node.outputs[0].name):
        _replace_constant(node, 1, cut.new_shape(node.outputs[0]))
        node.attrs.pop("allowzero", None)


def _mend_split(cut: _Cut, node: gs.Node) -> None:
    axis = int(node.attrs.get("axis", 0)) % len(shape(node.inputs[0]))
    keeps = [cut.axis(output.name, axis) for output in node.outputs]
    sizes = [n if k is None else int(k.sum()) for n, k in zip(split_sizes(node), keeps, strict=True)]
    node.attrs.pop("num_outputs", None)
    _replace_constant(node, 1, sizes)


def _mend_slice(cut: _Cut, node: gs.Node) -> None:
    starts: list[int] = []
    stops: list[int] = []
    axes: list[int] = []
    steps: list[int] = []
    for axis, begin, end, step in slice_ranges(node):
        keep = cut.axis(node.inputs[0].name, axis)
        if keep is not None and step == 1:
            begin, end = int(keep[:begin].sum()), int(keep[:end].sum())
        if step < 0 and end < 0:
            end = -(2**31)
        for column, value in zip((starts, stops, axes, steps), (begin, end, axis, step), strict=True):
            column.append(value)
    for position, values in enumerate((starts, stops, axes, steps), start=1):
        _replace_constant(node, position, values)


def _mend_gather(cut: _Cut, node: gs.Node) -> None:
    mend_gather(cut.axis, node)


def _mend_resize(cut: _Cut, node: gs.Node) -> None:
    if len(node.inputs) > 3 and not node.inputs[3].is_empty():
        axes = node.attrs.get("axes")
        sizes = cut.new_shape(node.outputs[0])
        _replace_constant(node, 3, [sizes[a] for a in axes] if axes else sizes)


def _shortened(cut: _Cut, node: gs.Node) -> list[Shortened]:
    """The axes over which a node on data goes and of which some channels are removed."""
    if all(output.name in cut.labels.fixed for output in node.outputs):
        return []
    keeps = {axis: cut.axis(node.inputs[0].name, axis) for axis in sorted(counted_axes(node))}
    return [
        Shortened(axis=axis, keep=keep)
        for axis, keep in keeps.items()
        if keep is not None and keep.any() and not keep.all()
    ]


def _mend_norm(cut: _Cut, node: gs.Node) -> None:
    lost = _shortened(cut, node)
    if lost:
        cut.added += widen(node, lost, cut.new_shape(node.inputs[0]))


def _mend_reduction(cut: _Cut, node: gs.Node) -> None:
    lost = _shortened(cut, node)
    if lost:
        cut.added += recount(node, lost)


_MENDS: dict[str, Callable[[_Cut, gs.Node], None]] = {
    "Conv": _mend_conv,
    "ConvTranspose": _mend_conv,
    "Expand": _mend_view,
    "Gather": _mend_gather,
    "GatherND": _mend_gather,
    **dict.fromkeys(NORMS, _mend_norm),
    **dict.fromkeys(REDUCTIONS, _mend_reduction),
    "Reshape": _mend_view,
    "Resize": _mend_resize,
    "Slice": _mend_slice,
    "Split": _mend_split,
}
