"""Layers described as they stand: every shape written down, for nodes whose widths never change."""

from __future__ import annotations

import base64
import math
from collections.abc import Set

import numpy as np
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from halp_trt.graphs.operators import is_static, reads, source
from halp_trt.graphs.rounds import num_rounds, work_inside
from halp_trt.planning.estimates import INSIDE, ROUNDS
from halp_trt.specs import Attribute, LayerSpec, Operand

__all__ = ["REFUSED", "TENSOR", "literal_spec"]

REFUSED = "probe.refused"
"""Attribute of a spec of which no probe can be made; its value is the reason in words."""
TENSOR = ".tensor"
"""Ending of an attribute's name that holds a tensor, as base64."""
_KEPT_VALUES = 64
"""Most numbers of a constant stored in an operand."""
_KEPT_BYTES = 1024
"""Longest tensor stored in an attribute, in bytes."""
_STANDARD = (None, "", "ai.onnx")


class _Refused(Exception):
    """No probe can be made; its text is the reason."""


def literal_spec(node: gs.Node, fixed: Set[str], network_inputs: Set[str]) -> LayerSpec:
    """The spec of a node that stays as it is, with all of its inputs and outputs; it may state why it has no probe.

    Args:
        node: the node.
        fixed: names of the tensors computed from constants alone.
        network_inputs: names of the network's inputs.
    """
    data = [t for t in node.inputs if _is_data(t, fixed)]
    dims = [_known_sizes(tensor) for tensor in (*data[:1], *(t for t in node.outputs if not t.is_empty()))] or [()]
    try:
        attributes = _attributes(node)
        _check(node)
    except _Refused as reason:
        attributes = ((REFUSED, str(reason)), *_work_inside(node))
    return LayerSpec(
        operator=node.op if node.domain in _STANDARD else f"{node.domain}::{node.op}",
        in_channels=_width(dims[0]),
        out_channels=_width(dims[1 if data and len(dims) > 1 else 0]),
        in_size=tuple(size for axis, size in enumerate(dims[0]) if axis > 1),
        operands=tuple(_operand(tensor, _is_data(tensor, fixed)) for tensor in node.inputs),
        outputs=tuple(_operand(tensor, True) for tensor in node.outputs),
        attributes=attributes,
        plain_input=any(tensor.name in network_inputs for tensor in data),
    )


def _known_sizes(tensor: gs.Tensor) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape or () if isinstance(size, int | np.integer))


def _width(dims: tuple[int, ...]) -> int:
    return max(1, dims[1] if len(dims) > 1 else math.prod(dims))


def _is_data(tensor: gs.Tensor, fixed: Set[str]) -> bool:
    return not tensor.is_empty() and source(tensor, 0) is None and tensor.name not in fixed


def _check(node: gs.Node) -> None:
    """Makes sure that a runtime can be given the node alone."""
    if node.domain not in _STANDARD:
        raise _Refused(f"its operator is of the domain {node.domain!r}")
    if list(node.subgraphs()):
        raise _Refused("it runs a sub-graph")
    for tensor in reads(node):
        if not is_static(tensor):
            raise _Refused(f"the shape of its input {tensor.name!r} is known at run time alone")
    if not all(tensor.is_empty() or tensor.dtype is not None for tensor in node.outputs):
        raise _Refused("the type of its output is not known")


def _attributes(node: gs.Node) -> tuple[Attribute, ...]:
    return tuple(_attribute(name, value) for name, value in sorted(node.attrs.items()) if not _is_graph(value))


def _work_inside(node: gs.Node) -> tuple[Attribute, ...]:
    """The work in a node's sub-graphs, by which it is estimated; none without any."""
    if not list(node.subgraphs()):
        return ()
    rounds = num_rounds(node)
    return (INSIDE, work_inside(node)), *(() if rounds is None else ((ROUNDS, rounds),))


def _is_graph(value: object) -> bool:
    return isinstance(value, gs.Graph) or (isinstance(value, list) and any(isinstance(v, gs.Graph) for v in value))


def _attribute(name: str, value: object) -> Attribute:
    if isinstance(value, int | float | str):
        return name, value
    if isinstance(value, list | tuple):
        for kind in (int, float, str):
            if all(isinstance(item, kind) for item in value):
                return name, tuple(value)
    if isinstance(value, gs.Constant):
        value = value.values
    if isinstance(value, np.ndarray) and value.nbytes <= _KEPT_BYTES:
        proto = numpy_helper.from_array(np.ascontiguousarray(value))
        return f"{name}{TENSOR}", base64.b64encode(proto.SerializeToString(deterministic=True)).decode()
    raise _Refused(f"its attribute {name!r} has no short form")


def _operand(tensor: gs.Tensor, is_data: bool) -> Operand:
    if tensor.is_empty():
        return Operand(shape=(), values=(), dtype="none")
    dtype = "none" if tensor.dtype is None else np.dtype(tensor.dtype).name
    shape = _known_sizes(tensor)
    if isinstance(tensor, gs.Constant) and 0 < tensor.values.size <= _KEPT_VALUES:
        values = tuple(float(v) for v in tensor.values.reshape(-1).tolist())
        return Operand(shape=shape, values=values, dtype=dtype)
    return Operand(shape=shape, dtype=dtype, is_data=is_data)
