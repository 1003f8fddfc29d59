"""Nodes of opsets 18 to 20 written out as opset 17 has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.operators import REDUCTIONS, constant, shape

__all__ = ["OLD_FORMS"]

_PLAIN = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})
"""Reductions that leave numbers as they are if they reduce no axis."""


class _Writing:
    """Writes several nodes in place of one; the last of them gives its output."""

    def __init__(self, graph: gs.Graph, node: gs.Node) -> None:
        self._graph, self._name, self._count = graph, node.name, 0
        self.inputs, self._output = list(node.inputs), node.outputs[0]
        self._dtype = node.inputs[0].dtype if node.inputs[0].dtype is not None else np.float32
        node.outputs.clear()
        graph.nodes.remove(node)

    def node(self, op: str, *inputs: gs.Tensor, last: bool = False, **attributes: Any) -> gs.Tensor:
        self._count += 1
        name = f"{self._name}.{op}{self._count}"
        result = self._output if last else gs.Variable(name, self._dtype)
        self._graph.nodes.append(gs.Node(op, name, attributes, list(inputs), [result]))
        return result

    def number(self, value: Any) -> gs.Constant:
        """A constant in the number format of the node's input."""
        return self._constant(np.array(value, dtype=self._dtype))

    def sizes(self, values: Any) -> gs.Constant:
        return self._constant(np.array(values, dtype=np.int64))

    def _constant(self, values: np.ndarray[Any, Any]) -> gs.Constant:
        self._count += 1
        return gs.Constant(f"{self._name}.constant{self._count}", values)


def _integers(node: gs.Node, label: str, values: list[int]) -> gs.Constant:
    return gs.Constant(f"{node.name}.{label}", np.array(values, dtype=np.int64))


def _given(node: gs.Node, position: int) -> bool:
    return len(node.inputs) > position and not node.inputs[position].is_empty()


def _reduction(graph: gs.Graph, node: gs.Node) -> None:
    rank = len(shape(node.inputs[0]))
    picked = constant(node, 1, "axes")
    keep = bool(int(node.attrs.get("keepdims", 1)))
    if not picked and int(node.attrs.get("noop_with_empty_axes", 0)):
        if node.op not in _PLAIN:
            raise UnsupportedLayerError(
                f"node {node.name!r} ({node.op}) has no form in opset 17: it reduces no axis; leave it out"
            )
        node.op, node.attrs, node.inputs = "Identity", {}, node.inputs[:1]
        return
    axes = sorted(a % rank for a in picked or range(rank))
    node.inputs = node.inputs[:1]
    node.attrs = {"keepdims": int(keep)}
    if node.op == "ReduceMean" and rank > 2 and axes == list(range(2, rank)):
        node.op, node.attrs = "GlobalAveragePool", {}
        if not keep:
            output = node.outputs[0]
            pooled = gs.Variable(f"{output.name}.pooled", output.dtype, [*shape(node.inputs[0])[:2], *[1] * (rank - 2)])
            node.outputs = [pooled]
            graph.nodes.append(gs.Node("Flatten", f"{node.name}.flatten", {"axis": 1}, [pooled], [output]))
    elif node.op == "ReduceSum":
        node.inputs.append(_integers(node, "axes", axes))
    else:
        node.attrs["axes"] = axes


def _split(_: gs.Graph, node: gs.Node) -> None:
    """Equal parts need no sizes; unequal ones, the last the smallest, do."""
    node.attrs.pop("num_outputs", None)
    if _given(node, 1):
        return
    dims, count = shape(node.inputs[0]), len(node.outputs)
    length = dims[int(node.attrs.get("axis", 0)) % len(dims)]
    if length % count:
        most = -(-length // count)
        node.inputs = [node.inputs[0], _integers(node, "sizes", [*[most] * (count - 1), length - most * (count - 1)])]


def _gelu(graph: gs.Graph, node: gs.Node) -> None:
    """``x/2 (1 + erf(x/sqrt 2))``, or ``x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``."""
    approximate = node.attrs.get("approximate", "none") == "tanh"
    to = _Writing(graph, node)
    x = to.inputs[0]
    if approximate:
        cube = to.node("Mul", to.node("Mul", x, x), to.node("Mul", x, to.number(0.044715)))
        inner = to.node("Tanh", to.node("Mul", to.node("Add", x, cube), to.number((2 / np.pi) ** 0.5)))
    else:
        inner = to.node("Erf", to.node("Mul", x, to.number(0.5**0.5)))
    to.node("Mul", to.node("Mul", x, to.number(0.5)), to.node("Add", inner, to.number(1.0)), last=True)


def _mish(graph: gs.Graph, node: gs.Node) -> None:
    """``x tanh(log(1 + exp x))``."""
    to = _Writing(graph, node)
    to.node("Mul", to.inputs[0], to.node("Tanh", to.node("Softplus", to.inputs[0])), last=True)


def _pad(_: gs.Graph, node: gs.Node) -> None:
    if not _given(node, 3):
        return
    rank = len(shape(node.inputs[0]))
    axes, pads = constant(node, 3) or [], constant(node, 1) or []
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
    node.inputs = [*node.inputs[:3]]
    node.inputs[1] = _integers(node, "pads", full)


def _resize(_: gs.Graph, node: gs.Node) -> None:
    """Scales or sizes of some axes become those of all; antialiasing goes where it changes nothing.

    Linear antialiasing is interpolation where nothing gets smaller, its outside then that of interpolation.
    """
    dims = shape(node.inputs[0])
    if "axes" in node.attrs:
        axes = [int(a) % len(dims) for a in node.attrs.pop("axes")]
        for position, fill in ((1, [0] * len(dims) + [1] * len(dims)), (2, [1] * len(dims)), (3, list(dims))):
            if _given(node, position):
                node.inputs[position] = _of_all_axes(node, position, axes, fill)
    if node.attrs.get("antialias") and node.attrs.get("mode") == "linear" and _grows(node):
        node.attrs.pop("antialias")
        node.attrs.pop("exclude_outside", None)


def _grows(node: gs.Node) -> bool:
    """True if no axis gets shorter."""
    sizes = zip(shape(node.inputs[0]), shape(node.outputs[0]), strict=True)
    return all(before <= after for before, after in sizes)


def _of_all_axes(node: gs.Node, position: int, axes: list[int], fill: list[int]) -> gs.Constant:
    tensor = node.inputs[position]
    if not isinstance(tensor, gs.Constant):
        raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) computes its sizes at run time; give fixed ones")
    values = np.array(fill, dtype=tensor.values.dtype)
    step = len(values) if position > 1 else len(values) // 2
    for start in range(0, len(values), step):
        part = tensor.values[start // step * len(axes) :]
        for i, axis in enumerate(axes):
            values[start + axis] = part[i]
    return gs.Constant(f"{node.name}.all{position}", values)


def _group_norm(graph: gs.Graph, node: gs.Node) -> None:
    """An instance norm over each group, then scale and bias, which opset 18 has for groups and 21 for channels."""
    dims, groups = shape(node.inputs[0]), int(node.attrs["num_groups"])
    parameters = [t.values if isinstance(t, gs.Constant) else None for t in node.inputs[1:3]]
    if any(values is None for values in parameters):
        raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) computes its scale at run time; give a fixed one")
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    to = _Writing(graph, node)
    grouped = to.node("Reshape", to.inputs[0], to.sizes([0, groups, -1]))
    ones, zeros = to.number([1.0] * groups), to.number([0.0] * groups)
    normed = to.node("InstanceNormalization", grouped, ones, zeros, epsilon=epsilon)
    back = to.node("Reshape", normed, to.sizes(dims))
    scale, bias = (
        to.number(np.repeat(values, dims[1] // len(values)).reshape(-1, *[1] * (len(dims) - 2)))
        for values in parameters
        if values is not None
    )
    to.node("Add", to.node("Mul", back, scale), bias, last=True)


def _dft(_: gs.Graph, node: gs.Node) -> None:
    """The axis, an input since opset 20, becomes an attribute, whose default is another."""
    if "axis" in node.attrs:
        return
    picked = constant(node, 2)
    node.attrs["axis"] = (picked[0] if picked else -2) % len(shape(node.inputs[0]))
    node.inputs = node.inputs[:2]


def _grid_sample(_: gs.Graph, node: gs.Node) -> None:
    if len(shape(node.inputs[0])) != 4:
        raise UnsupportedLayerError(
            f"node {node.name!r} ({node.op}) has no form in opset 17: its input is no picture; use a newer runtime"
        )
    old = {"linear": "bilinear", "cubic": "bicubic"}
    if node.attrs.get("mode") in old:
        node.attrs["mode"] = old[node.attrs["mode"]]


def _reshape(_: gs.Graph, node: gs.Node) -> None:
    """``allowzero`` goes where no size is zero; TensorRT 8.5 is spared it."""
    if isinstance(node.inputs[1], gs.Constant) and np.all(node.inputs[1].values):
        node.attrs.pop("allowzero", None)


OLD_FORMS: Mapping[str, Callable[[gs.Graph, gs.Node], None]] = MappingProxyType(
    {
        **dict.fromkeys(REDUCTIONS, _reduction),
        "DFT": _dft,
        "Gelu": _gelu,
        "GridSample": _grid_sample,
        "GroupNormalization": _group_norm,
        "Mish": _mish,
        "Pad": _pad,
        "Reshape": _reshape,
        "Resize": _resize,
        "Split": _split,
    }
)
"""Functions that write a node, in place, as opset 17 has it, by operator."""
