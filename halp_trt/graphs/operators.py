"""Families of ONNX operators, and readers of a node's static facts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError

UNARY = frozenset(
    """Abs BitShift Cast Ceil Celu Clip Cos DequantizeLinear Dropout Elu Erf Exp Floor Gelu HardSigmoid HardSwish
    Identity LeakyRelu Log Mish Neg QuantizeLinear Reciprocal Relu Round Selu Sigmoid Sign Sin Softplus Softsign
    Sqrt Swish Tanh ThresholdedRelu""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
NARY = frozenset(
    """Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Not Or PRelu Pow Sub Sum Where
    Xor""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"})
REDUCTIONS = frozenset(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
SCATTERS = frozenset({"ScatterElements", "ScatterND"})
PICKS = SCATTERS | {"Gather", "GatherElements"}
"""Operators that read or write at places along some axes, and hand the others on."""
VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def shape(tensor: gs.Tensor) -> tuple[int, ...]:
    """A tensor's static shape.

    Raises:
        UnsupportedLayerError: the shape is dynamic or unknown.
    """
    dims = tensor.shape
    if dims is None or not all(isinstance(d, int | np.integer) for d in dims):
        raise UnsupportedLayerError(f"tensor {tensor.name!r} has no static shape ({dims}); give a fixed --input")
    return tuple(int(d) for d in dims)


def is_static(tensor: gs.Tensor) -> bool:
    """True if a tensor's element type and shape are known before the network runs."""
    dims = tensor.shape
    return tensor.dtype is not None and dims is not None and all(isinstance(d, int | np.integer) for d in dims)


def constant(node: gs.Node, position: int, name: str | None = None) -> list[int] | None:
    """An integer list that newer opsets take as an input and older ones as an attribute; None where it is absent."""
    if position < len(node.inputs) and not node.inputs[position].is_empty():
        tensor = node.inputs[position]
        if not isinstance(tensor, gs.Constant):
            raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) computes its {name or 'shape'} at run time")
        return [int(v) for v in np.asarray(tensor.values).reshape(-1).tolist()]
    value = node.attrs.get(name) if name else None
    return None if value is None else [int(v) for v in np.asarray(value).reshape(-1).tolist()]


def source(tensor: gs.Tensor, axis: int) -> tuple[str, int] | None:
    """The constant and its axis behind a constant tensor, through transpositions and views; None for data."""
    if isinstance(tensor, gs.Constant):
        return tensor.name, axis
    if not tensor.inputs or not isinstance(next(iter(tensor.inputs[0].inputs), None), gs.Constant):
        return None
    node = tensor.inputs[0]
    if node.op == "Transpose":
        return node.inputs[0].name, permutation(node)[axis]
    wide = [a for a, size in enumerate(shape(node.inputs[0])) if size > 1]
    if node.op in VIEWS and len(wide) == 1:
        return node.inputs[0].name, wide[0]
    return None


def reads(node: gs.Node) -> tuple[gs.Tensor, ...]:
    """The tensors that a node reads, and all that its sub-graphs read and hand back."""
    captured = (tensor for graph in node.subgraphs() for inner in graph.nodes for tensor in reads(inner))
    returned = (tensor for graph in node.subgraphs() for tensor in graph.outputs)
    return tuple(tensor for tensor in (*node.inputs, *captured, *returned) if not tensor.is_empty())


def is_repeated(tensor: gs.Tensor, axis: int) -> bool:
    """True for data of one channel that are expanded for one reader alone: fewer copies will do as well."""
    node = tensor.inputs[0] if tensor.inputs else None
    if node is None or node.op != "Expand" or len(tensor.outputs) > 1:
        return False
    own = axis - len(shape(tensor)) + len(shape(node.inputs[0]))
    return own < 0 or shape(node.inputs[0])[own] == 1


def fixed_tensors(graph: gs.Graph) -> frozenset[str]:
    """Names of the tensors that nodes compute from weights and constants alone; they carry no channels."""
    fixed: set[str] = set()
    for node in graph.nodes:
        if node.inputs and all(isinstance(t, gs.Constant) or t.name in fixed for t in reads(node)):
            fixed.update(tensor.name for tensor in node.outputs)
    return frozenset(fixed)


def split_sizes(node: gs.Node) -> list[int]:
    """Sizes of a split's parts on the dense graph."""
    axis = int(node.attrs.get("axis", 0))
    return [shape(output)[axis % len(shape(output))] for output in node.outputs]


def slice_ranges(node: gs.Node) -> list[tuple[int, int, int, int]]:
    """``(axis, start, stop, step)`` of a Slice on the dense graph, made non-negative."""
    dims = shape(node.inputs[0])
    starts, stops = constant(node, 1, "starts") or [], constant(node, 2, "ends") or []
    axes = constant(node, 3, "axes") or list(range(len(starts)))
    steps = constant(node, 4, "steps") or [1] * len(starts)
    ranges = []
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        begin, end, stride = slice(start, stop, step).indices(dims[axis % len(dims)])
        ranges.append((axis % len(dims), begin, end, stride))
    return ranges


def permutation(node: gs.Node) -> list[int]:
    """The axes of a Transpose."""
    rank = len(shape(node.inputs[0]))
    return [int(a) for a in node.attrs.get("perm", list(range(rank))[::-1])]


def view_blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes with equal products, ones attached to the run they stand in."""
    cuts, i, j, left, right = [(0, 0)], 0, 0, 1, 1
    while i < len(before) or j < len(after):
        if (left <= right and i < len(before)) or j >= len(after):
            left, i = left * before[i], i + 1
        else:
            right, j = right * after[j], j + 1
        if left == right and not (j < len(after) and after[j] == 1 and i == len(before)):
            cuts.append((i, j))
    blocks = [(list(range(a, c)), list(range(b, d))) for (a, b), (c, d) in pairwise(cuts)]
    return [(olds, news) for olds, news in blocks if olds and news]
