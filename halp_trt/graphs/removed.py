"""Folds the remains of removed blocks, a constant per channel, into the layers around them.

A layer without inputs writes its bias, the same at every position. The nodes behind it are evaluated at once, down to
the addition joining the branch with its bypass. There the constant goes into the bias of the bypass's writer or, past
an activation, of the sum's readers. Only a convolution with padding cannot take it, since zeros stand around its input
and not the constant; before such a one the addition stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
from onnx.reference import ReferenceEvaluator

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs import operators
from halp_trt.graphs.operators import NARY, PRODUCTS, UNARY, VIEWS

__all__ = ["absorb_additions", "fold_removed"]

Array = npt.NDArray[np.floating[Any]]
ShapeOf = Callable[[gs.Tensor], Sequence[int]]
_POINTWISE = UNARY | NARY | {"BatchNormalization", "Transpose"}
"""Operators that turn constants per channel into constants per channel."""
_BIASED = ("Conv", "ConvTranspose", "Gemm")
"""Operators whose bias can take a constant."""
_HANDS_ON = VIEWS | {"Identity", "Dropout"}
"""Operators that hand a constant per channel on unchanged."""


# ---- from layers without inputs to constants ------------------------------------------------------------------------


def fold_removed(graph: gs.Graph, shape_of: ShapeOf) -> list[gs.Node]:
    """Replaces layers without input channels, and nodes computed from these alone, by constants per channel.

    Args:
        graph: the network with its constants cut already; layers without output channels are left for ``cleanup``.
        shape_of: gives the shape of a tensor without the removed channels.

    Returns:
        The additions with such a constant as an input.

    Raises:
        UnsupportedLayerError: a bias is computed at run time.
    """
    shapes: dict[str, Sequence[int]] = {}  # dense shapes of the tensors that became constants
    additions = []
    for node in list(graph.nodes):
        output = node.outputs[0]
        if 0 in shape_of(output):
            continue
        empty = [t for t in node.inputs if isinstance(t, gs.Variable) and not t.is_empty() and 0 in shape_of(t)]
        if empty and node.op in PRODUCTS:
            values = _bias(node, shape_of(output))
        elif empty:  # a concatenation
            node.inputs = [tensor for tensor in node.inputs if tensor not in empty]
            continue
        elif not any(tensor.name in shapes for tensor in node.inputs):
            continue
        elif node.op in _POINTWISE and all(isinstance(t, gs.Constant) or t.is_empty() for t in node.inputs):
            values = _evaluate(graph, node)
        else:
            if not _broadcasts(node, shape_of):
                _expand(node, shapes)
            elif node.op == "Add":
                additions.append(node)
            continue
        shapes[output.name] = shape_of(output)
        _replace(graph, output, values, shapes)
    return additions


def _bias(node: gs.Node, shape: Sequence[int]) -> Array:
    """The output of a layer without inputs: its bias, shaped for broadcasting."""
    is_conv = node.op in ("Conv", "ConvTranspose")
    wide = [size if axis == (1 if is_conv else len(shape) - 1) else 1 for axis, size in enumerate(shape)]
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return np.zeros(wide, dtype=node.outputs[0].dtype)
    if not isinstance(node.inputs[2], gs.Constant):
        raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) computes its bias at run time; fuse it first")
    values: Array = node.inputs[2].values * np.asarray(node.attrs.get("beta", 1), node.inputs[2].values.dtype)
    return values.reshape(wide)


def _evaluate(graph: gs.Graph, node: gs.Node) -> Array:
    inputs = [
        gs.Variable.empty() if t.is_empty() else gs.Constant(f"{position}", t.values)
        for position, t in enumerate(node.inputs)
    ]
    output = gs.Variable("output", dtype=node.outputs[0].dtype)
    alone = gs.Node(op=node.op, name=node.name, attrs=dict(node.attrs), inputs=inputs, outputs=[output])
    model = gs.export_onnx(gs.Graph(nodes=[alone], outputs=[output], opset=graph.opset), do_type_check=False)
    (values,) = ReferenceEvaluator(model).run(None, {})
    return np.asarray(values)


def _broadcasts(node: gs.Node, shape_of: ShapeOf) -> bool:
    """True if an element-wise node's other inputs alone give its output the right shape."""
    others = [tuple(shape_of(t)) for t in node.inputs if isinstance(t, gs.Variable) and not t.is_empty()]
    return node.op in NARY and list(np.broadcast_shapes(*others)) == list(shape_of(node.outputs[0]))


def _expand(node: gs.Node, shapes: dict[str, Sequence[int]]) -> None:
    for position, tensor in enumerate(node.inputs):
        if tensor.name in shapes:
            whole = np.ascontiguousarray(np.broadcast_to(tensor.values, shapes[tensor.name]))
            node.inputs[position] = gs.Constant(f"{tensor.name}@{node.name}", whole)


def _replace(graph: gs.Graph, output: gs.Tensor, values: Array, shapes: dict[str, Sequence[int]]) -> None:
    """Gives the readers of a tensor a constant in its place; an output of the network is written out whole."""
    folded = gs.Constant(output.name, np.ascontiguousarray(values))
    for reader in list(output.outputs):
        reader.inputs = [folded if tensor is output else tensor for tensor in reader.inputs]
    output.inputs.clear()
    if any(tensor is output for tensor in graph.outputs):
        whole = np.ascontiguousarray(np.broadcast_to(values, shapes[output.name]))
        held = gs.Constant(f"{output.name}@whole", whole)
        graph.nodes.append(gs.Node(op="Identity", name=held.name, inputs=[held], outputs=[output]))


# ---- from constants into biases -------------------------------------------------------------------------------------


def absorb_additions(graph: gs.Graph, additions: Sequence[gs.Node]) -> None:
    """Moves the constants of additions into biases, as far as that changes nothing.

    If a block ends in a ReLU, the bypass mostly comes out of one as well. Then ``relu(relu(y) + k) = relu(y + min(k,
    0)) + max(k, 0)``: the negative part goes to the bias before, the positive part to the readers behind.

    Args:
        graph: the network with its batch norms folded.
        additions: additions from :func:`fold_removed`, in the order of the data.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    for node in additions:
        _merge(node, outputs)
        tensor, constant = _sides(node)
        if _absorb(tensor, constant, outputs):
            _bypass(graph, node, tensor)
            continue
        _split_at_relu(graph, node, outputs)
        _push(node, outputs)
        if not _sides(node)[1].any():
            _bypass(graph, node, _sides(node)[0])
    graph.cleanup(remove_unused_graph_inputs=False)
    for node in additions:
        if node.outputs and node.outputs[0].outputs:
            _as_batch_norm(node)
    graph.cleanup(remove_unused_graph_inputs=False)


def _sides(node: gs.Node) -> tuple[gs.Tensor, Array]:
    """The data and the constant of an addition."""
    constant = next(tensor for tensor in node.inputs if isinstance(tensor, gs.Constant))
    return next(tensor for tensor in node.inputs if tensor is not constant), constant.values


def _set_sides(node: gs.Node, tensor: gs.Tensor, constant: Array) -> None:
    node.inputs = [tensor, gs.Constant(f"{node.name}.constant", np.ascontiguousarray(constant))]


def _is_addition(node: gs.Node) -> bool:
    return node.op == "Add" and sum(isinstance(tensor, gs.Constant) for tensor in node.inputs) == 1


def _only_reader(tensor: gs.Tensor, outputs: set[str]) -> gs.Node | None:
    return tensor.outputs[0] if len(tensor.outputs) == 1 and tensor.name not in outputs else None


def _merge(node: gs.Node, outputs: set[str]) -> None:
    """Merges an addition right before this one into it."""
    tensor, constant = _sides(node)
    while tensor.inputs and _is_addition(tensor.inputs[0]) and _only_reader(tensor, outputs) is node:
        before, more = _sides(tensor.inputs[0])
        tensor.inputs[0].inputs.clear()
        tensor, constant = before, constant + more
        _set_sides(node, tensor, constant)


def _absorb(tensor: gs.Tensor, constant: Array, outputs: set[str]) -> bool:
    """Adds a constant to a tensor at its writer; returns False, and changes nothing, if that is impossible."""
    if _only_reader(tensor, outputs) is None or not tensor.inputs:
        return False
    node = tensor.inputs[0]
    if node.op == "Add":
        return any(_absorb(term, constant, outputs) for term in node.inputs if isinstance(term, gs.Variable))
    return node.op in _BIASED and _add_bias(node, constant)


def _add_bias(node: gs.Node, constant: Array) -> bool:
    axis = constant.ndim - 1 if node.op == "Gemm" else 1
    if constant.size != constant.shape[axis] or (node.op == "Gemm" and float(node.attrs.get("beta", 1)) != 1):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else gs.Variable.empty()
    if not bias.is_empty() and not isinstance(bias, gs.Constant):
        return False
    values = constant.reshape(-1) + (0 if bias.is_empty() else bias.values)
    name = f"{node.name}.shifted_bias"
    node.inputs = [*node.inputs[:2], gs.Constant(name, np.ascontiguousarray(values, dtype=constant.dtype))]
    return True


def _bypass(graph: gs.Graph, node: gs.Node, tensor: gs.Tensor) -> None:
    """Takes a node out: its readers read ``tensor`` instead; an output of the network keeps its name."""
    output = node.outputs[0]
    node.inputs.clear()
    node.outputs.clear()
    for reader in list(output.outputs):
        reader.inputs = [tensor if read is output else read for read in reader.inputs]
    if any(held is output for held in graph.outputs):
        graph.nodes.append(gs.Node(op="Identity", name=f"{node.name}.output", inputs=[tensor], outputs=[output]))


def _split_at_relu(graph: gs.Graph, node: gs.Node, outputs: set[str]) -> None:
    tensor, constant = _sides(node)
    after = _only_reader(node.outputs[0], outputs)
    relu = _source(tensor, {"Relu"}, outputs)
    if after is None or after.op != "Relu" or relu is None:
        return
    negative, positive = np.minimum(constant, 0), np.maximum(constant, 0)
    if negative.any() and not _absorb(relu.inputs[0], negative, outputs):
        return
    _set_sides(node, tensor, positive)
    _bypass(graph, after, node.outputs[0])


def _as_batch_norm(node: gs.Node) -> None:
    """Writes a remaining addition as a batch norm: through one ONNX Runtime keeps its blocked layout.

    An addition of a constant would be put between two reorders. An epsilon of 0 makes both the same to the bit.
    """
    tensor, constant = _sides(node)
    if constant.ndim < 3 or constant.size != constant.shape[1]:
        return
    ones, zeros = np.ones(constant.size, constant.dtype), np.zeros(constant.size, constant.dtype)
    values = {"scale": ones, "shift": constant.reshape(-1), "mean": zeros, "variance": ones}
    node.op, node.attrs = "BatchNormalization", {"epsilon": 0.0}
    node.inputs = [tensor, *(gs.Constant(f"{node.name}.{name}", value) for name, value in values.items())]


def _source(tensor: gs.Tensor, wanted: set[str], outputs: set[str]) -> gs.Node | None:
    """The node behind a tensor, looking through max pools, if nothing else reads the tensors between.

    A max pool hands on a shift of all positions of a channel, and its padding never wins.
    """
    while tensor.inputs and _only_reader(tensor, outputs) is not None:
        node = tensor.inputs[0]
        if node.op in wanted:
            return node
        if node.op != "MaxPool":
            return None
        tensor = node.inputs[0]
    return None


def _push(node: gs.Node, outputs: set[str]) -> None:
    """Hands the constant on to the readers of an addition that can take it into a bias; they then read its input."""
    (tensor, constant), output = _sides(node), node.outputs[0]
    for reader in list(output.outputs):
        others = [read for read in reader.inputs if read is not output]
        if len(others) == len(reader.inputs) - 1 and _takes(reader, others, constant, outputs):
            reader.inputs = [tensor if read is output else read for read in reader.inputs]


def _takes(reader: gs.Node, others: Sequence[gs.Tensor], constant: Array, outputs: set[str]) -> bool:
    """Adds a reader's response to the constant to its bias; returns False, and changes nothing, if it cannot."""
    if reader.op == "Add":
        return isinstance(others[0], gs.Variable) and _absorb(others[0], constant, outputs)
    is_pooled = constant.ndim == 2
    while _averages(reader, constant.ndim) or reader.op == "MaxPool" or (is_pooled and reader.op in _HANDS_ON):
        is_pooled = is_pooled or reader.op != "MaxPool"
        following = _only_reader(reader.outputs[0], outputs)
        if following is None:
            return False
        reader = following
    if not (_is_unpadded(reader) or (is_pooled and _is_linear(reader))):
        return False
    shift = _through(reader, constant)
    return shift is not None and _add_bias(reader, shift)


def _averages(node: gs.Node, rank: int) -> bool:
    """True if a node takes the mean over all positions of each channel."""
    axes = operators.constant(node, 1, "axes") if node.op == "ReduceMean" else None
    return node.op == "GlobalAveragePool" or (axes is not None and all(axis % rank > 1 for axis in axes))


def _is_unpadded(node: gs.Node) -> bool:
    is_explicit = str(node.attrs.get("auto_pad", "NOTSET")) in ("NOTSET", "VALID")
    return node.op == "Conv" and is_explicit and not any(node.attrs.get("pads", ()))


def _is_linear(node: gs.Node) -> bool:
    return node.op == "Gemm" and bool(int(node.attrs.get("transB", 0))) and float(node.attrs.get("alpha", 1)) == 1


def _through(node: gs.Node, constant: Array) -> Array | None:
    """A product's output for a constant per channel, summed in float64; None if it does not fit its inputs."""
    if not isinstance(node.inputs[1], gs.Constant):
        return None
    weight, groups = node.inputs[1].values, int(node.attrs.get("group", 1))
    if constant.size != constant.shape[1] or constant.size != groups * weight.shape[1]:
        return None
    per_input = weight.astype(np.float64).sum(axis=tuple(range(2, weight.ndim))).reshape(groups, -1, weight.shape[1])
    sums = per_input @ constant.astype(np.float64).reshape(groups, -1, 1)
    return np.asarray(sums.reshape(1, -1, *[1] * (weight.ndim - 2)), dtype=weight.dtype)
