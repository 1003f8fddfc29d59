"""Brings a graph to the opset of an old parser: opset 17 and IR version 8 for TensorRT 8.5."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.operators import REDUCTIONS, constant, shape

OPSETS = {17: 8}
"""IR version by opset, for the opsets offered."""


def convert_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The same network in an older opset, reductions with their axes as attributes.

    TensorRT 8.5's parser reads the axes of ``ReduceMean`` from the attribute alone and, not finding it, reduces over
    all axes without a word; spatial means become ``GlobalAveragePool``.

    Raises:
        UnsupportedLayerError: the opset is not offered, or an operator has no form in it.
    """
    if opset not in OPSETS:
        raise UnsupportedLayerError(f"opset {opset} is not offered; expected {', '.join(map(str, OPSETS))}")
    graph = gs.import_onnx(model)
    for node in list(graph.nodes):
        if node.op in REDUCTIONS:
            _old_reduction(graph, node)
        elif node.op == "Split":
            node.attrs.pop("num_outputs", None)
        elif node.op == "Gelu":
            _old_gelu(graph, node)
        elif node.op in ("Resize", "AveragePool"):
            for attribute in ("antialias", "axes", "keep_aspect_ratio_policy", "dilations"):
                node.attrs.pop(attribute, None)
        elif node.op == "Pad" and len(node.inputs) > 3 and not node.inputs[3].is_empty():
            _old_pad(node)
        elif node.op == "Reshape":
            node.attrs.pop("allowzero", None)
        elif node.op == "Mish":
            raise UnsupportedLayerError(f"node {node.name!r} ({node.op}) has no form in opset {opset}; use another one")
    graph.cleanup().toposort()
    graph.import_domains = [onnx.helper.make_opsetid("", opset)]
    graph.ir_version = OPSETS[opset]
    old = gs.export_onnx(graph, do_type_check=False)
    old.ir_version = OPSETS[opset]
    del old.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(old, strict_mode=True)


def _old_reduction(graph: gs.Graph, node: gs.Node) -> None:
    rank = len(shape(node.inputs[0]))
    axes = sorted(a % rank for a in constant(node, 1, "axes") or range(rank))
    keep = bool(int(node.attrs.get("keepdims", 1)))
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
        node.inputs.append(gs.Constant(f"{node.name}.axes", np.array(axes, dtype=np.int64)))
    else:
        node.attrs["axes"] = axes


def _old_gelu(graph: gs.Graph, node: gs.Node) -> None:
    """``x/2 (1 + erf(x/sqrt 2))``, the exact form."""
    if node.attrs.get("approximate", "none") != "none":
        raise UnsupportedLayerError(f"node {node.name!r} (Gelu, tanh form) has no form in opset 17; use the exact Gelu")
    x, output, name = node.inputs[0], node.outputs[0], node.name
    node.outputs.clear()
    graph.nodes.remove(node)

    def emit(op: str, *inputs: gs.Tensor, to: gs.Tensor | None = None) -> gs.Tensor:
        result = to if to is not None else gs.Variable(f"{name}.{op}{len(graph.nodes)}", np.float32)
        graph.nodes.append(gs.Node(op, f"{name}.{op}{len(graph.nodes)}", inputs=list(inputs), outputs=[result]))
        return result

    def number(label: str, value: float) -> gs.Constant:
        return gs.Constant(f"{name}.{label}", np.array(value, dtype=np.float32))

    inner = emit("Erf", emit("Mul", x, number("inverse_root", 0.5**0.5)))
    emit("Mul", emit("Mul", x, number("half", 0.5)), emit("Add", inner, number("one", 1.0)), to=output)


def _old_pad(node: gs.Node) -> None:
    rank = len(shape(node.inputs[0]))
    axes, pads = constant(node, 3) or [], constant(node, 1) or []
    full = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        full[axis % rank], full[axis % rank + rank] = pads[i], pads[i + len(axes)]
    node.inputs = [*node.inputs[:3]]
    node.inputs[1] = gs.Constant(f"{node.name}.pads", np.array(full, dtype=np.int64))
