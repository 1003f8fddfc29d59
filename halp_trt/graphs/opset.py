"""Brings a graph to the opset of an old parser: opset 17 and IR version 8 for TensorRT 8.5."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from halp_trt.errors import BuildError, UnsupportedLayerError
from halp_trt.graphs.old_forms import OLD_FORMS
from halp_trt.interrupts import raise_if_stopped

OPSETS = {17: 8}
"""IR version by opset, for the opsets offered."""
_NEW_VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("Pad", "mode"): frozenset({"wrap"}),
    ("Resize", "coordinate_transformation_mode"): frozenset({"half_pixel_symmetric"}),
    ("ScatterElements", "reduction"): frozenset({"max", "min"}),
    ("ScatterND", "reduction"): frozenset({"max", "min"}),
}
"""Values that an option took on after opset 17, by operator and option."""
_KINDS = {"float32": "float", "float64": "double"}
"""ONNX's names of number formats that NumPy calls something else."""


def convert_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same network in an older opset, reductions with their axes as attributes.

    TensorRT 8.5's parser reads the axes of ``ReduceMean`` from the attribute alone and, not finding it, reduces over
    all axes without a word; spatial means become ``GlobalAveragePool``. An option that the opset does not know is
    dropped only where it changes nothing.

    Raises:
        UnsupportedLayerError: the opset is not offered, or an operator or one of its options has no form in it.
        BuildError: the result is not a valid ONNX model.
    """
    if opset not in OPSETS:
        raise UnsupportedLayerError(f"opset {opset} is not offered; expected {', '.join(map(str, OPSETS))}")
    graph = gs.import_onnx(model)
    _convert(graph, int(graph.opset), opset)
    try:
        graph.cleanup().toposort()
        graph.import_domains = [onnx.helper.make_opsetid("", opset)]
        graph.ir_version = OPSETS[opset]
        old = gs.export_onnx(graph, do_type_check=False)
        old.ir_version = OPSETS[opset]
        del old.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(old, strict_mode=True)
    except Exception as error:  # GraphSurgeon's and ONNX's errors have no common root
        raise_if_stopped(error)
        reason = " ".join(str(error).split())[:300]
        raise BuildError(f"the network has no valid form in opset {opset}: {reason}; please report it") from error


def _convert(graph: gs.Graph, new: int, old: int) -> None:
    for node in list(graph.nodes):
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                _convert(value, new, old)
        write = OLD_FORMS.get(node.op)
        if write is not None:
            write(graph, node)
    for node in graph.nodes:
        _check(node, new, old)


def _check(node: gs.Node, new: int, old: int) -> None:
    """Drops options that hold the default of the newer opset.

    Raises:
        UnsupportedLayerError: the node has no form in the old opset.
    """
    if getattr(node, "domain", None) not in (None, "", "ai.onnx"):
        raise _no_form(node, f"its operator is of the domain {node.domain}", old)
    try:
        schema = onnx.defs.get_schema(node.op, old, "")
    except onnx.defs.SchemaError:
        raise _no_form(node, "the operator came later", old) from None
    newer = onnx.defs.get_schema(node.op, max(new, old), "")
    for name, value in list(node.attrs.items()):
        if name not in schema.attributes:
            if not _changes_nothing(newer, name, value):
                raise _no_form(node, f"its option {name} is {value}", old)
            del node.attrs[name]
        elif value in _NEW_VALUES.get((node.op, name), ()):
            raise _no_form(node, f"its option {name} is {value}", old)
    while node.inputs and node.inputs[-1].is_empty():
        node.inputs.pop()
    if len(node.inputs) > schema.max_input:
        raise _no_form(node, f"it has {len(node.inputs)} inputs", old)
    for position, tensor in enumerate(node.inputs):
        kind = _kind(tensor)
        if kind in _kinds(newer, position) and kind not in _kinds(schema, position):
            raise _no_form(node, f"it reads a {kind}", old)


def _no_form(node: gs.Node, reason: str, opset: int) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        f"node {node.name!r} ({node.op}) has no form in opset {opset}: {reason}; use another operator or a newer "
        "runtime"
    )


def _changes_nothing(schema: onnx.defs.OpSchema, name: str, value: Any) -> bool:
    """True for an option's default, and for dilations of one."""
    if name == "dilations":
        return all(int(step) == 1 for step in value)
    if name not in schema.attributes:
        return False
    default = schema.attributes[name].default_value
    if default.type == onnx.AttributeProto.UNDEFINED:
        return False
    held = onnx.helper.get_attribute_value(default)
    return bool((held.decode() if isinstance(held, bytes) else held) == value)


def _kind(tensor: gs.Tensor) -> str:
    """A tensor's type in ONNX's words; empty where it is unknown."""
    try:
        name = np.dtype(tensor.dtype).name if tensor.dtype is not None and not isinstance(tensor.dtype, int) else ""
    except TypeError:
        return ""
    return f"tensor({_KINDS.get(name, name)})" if name else ""


def _kinds(schema: onnx.defs.OpSchema, position: int) -> set[str]:
    formal = schema.inputs[min(position, len(schema.inputs) - 1)] if schema.inputs else None
    return set() if formal is None else {str(kind) for kind in formal.types}
