"""Cutting a probe to the nodes that belong to its layer, in ONNX Runtime's optimised graph.

ONNX Runtime computes convolutions in a blocked layout (domain ``com.microsoft.nchwc``) and puts ``ReorderInput`` and
``ReorderOutput`` nodes where the layout changes. Inside a network they stand at few places; around a lone layer they
stand on both sides and are charged to it: two thirds of a small depthwise convolution. A probe therefore carries
*markers*, convolutions before the layer's inputs, and a *consumer* behind its output: the optimiser then gives both
edges of the layer the layout that they have inside a network. Here markers and consumer are cut off again. A reorder
left between the cuts costs time inside a network, too; so does one that writes channels last, for it does the work of a
transposition behind it.
"""

from __future__ import annotations

import onnx

from halp_trt.errors import MeasurementError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import CONSUMER, MARKER

__all__ = ["cut_to_layer", "lone_layer"]

_REORDER_OUTPUT = "ReorderOutput"


def lone_layer(probe: bytes) -> bytes:
    """The model of the layer in a probe that no optimiser has changed, without markers and consumer.

    Raises:
        MeasurementError: the bytes are no probe.
    """
    try:
        model = onnx.load_from_string(probe)
    except Exception as error:  # protobuf's own errors have no common root
        raise_if_stopped(error)
        raise MeasurementError(f"the probe is no ONNX model ({error}); make it with make_probe") from error
    return bytes(cut_to_layer(model).SerializeToString())


def cut_to_layer(optimised: onnx.ModelProto) -> onnx.ModelProto:
    """The nodes between markers and consumer, with the edges they have there as inputs and outputs.

    Raises:
        MeasurementError: the optimiser has changed the markers so that the layer cannot be told apart.
    """
    graph = optimised.graph
    producers = {name: node for node in graph.node for name in node.output if name}
    edges = _marker_edges(optimised, producers)
    outputs = _layer_outputs(graph, producers)
    nodes = _nodes_between(producers, set(edges), outputs)
    used = {name for node in nodes for name in node.input if name}
    weights = [weight for weight in graph.initializer if weight.name in used]
    inputs = [value for name, value in edges.items() if name in used]
    for value in graph.input:
        if value.name in used and value.name.startswith(MARKER):
            raise MeasurementError(f"{_REPORT}: the layer reads {value.name} behind its marker's back")
        if value.name in used and value.name not in {weight.name for weight in weights}:
            inputs.append(value)
    if not nodes:
        raise MeasurementError(f"{_REPORT}: nothing is left between markers and output")
    return onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "layer", inputs, [_described(graph, name) for name in outputs], weights),
        opset_imports=optimised.opset_import,
        ir_version=optimised.ir_version,
    )


def _described(graph: onnx.GraphProto, name: str) -> onnx.ValueInfoProto:
    """A tensor with its type and shape in the graph; a blocked tensor gets none, as its own differ."""
    known: dict[str, onnx.ValueInfoProto] = {value.name: value for value in (*graph.value_info, *graph.output)}
    if name in known and not any(node.domain for node in graph.node):
        return known[name]
    return onnx.helper.make_empty_tensor_value_info(name)


_REPORT = "this ONNX Runtime optimises probes in an unknown way, please report it with its version"


def _marker_edges(optimised: onnx.ModelProto, producers: dict[str, onnx.NodeProto]) -> dict[str, onnx.ValueInfoProto]:
    """The tensor that every marker really writes, possibly blocked, with its real shape."""
    graph = optimised.graph
    weights = {weight.name: weight for weight in graph.initializer}
    edges = {}
    for output in graph.output:
        if not output.name.startswith(MARKER):
            continue
        name = output.name
        node = producers.get(name)
        if node is not None and node.op_type == _REORDER_OUTPUT:
            name = node.input[0]
            node = producers.get(name)
        if node is None or "Conv" not in node.op_type or node.input[1] not in weights:
            found = node.op_type if node is not None else "nothing"
            raise MeasurementError(f"{_REPORT}: expected a convolution behind {output.name}, found {found}")
        plain = [dimension.dim_value for dimension in output.type.tensor_type.shape.dim]
        shape = [plain[0], weights[node.input[1]].dims[0], *plain[2:]]
        edges[name] = onnx.helper.make_tensor_value_info(name, output.type.tensor_type.elem_type, shape)
    return edges


def _layer_outputs(graph: onnx.GraphProto, producers: dict[str, onnx.NodeProto]) -> list[str]:
    """The tensors that the layer writes: the consumer's inputs, or the graph's outputs without a last reorder."""
    outputs = []
    for output in graph.output:
        if output.name.startswith(MARKER):
            continue
        name = output.name
        if name.startswith(CONSUMER):
            name = _consumer(name, producers).input[0]
        node = producers.get(name)
        if node is not None and node.op_type == _REORDER_OUTPUT and not _writes_channels_last(node):
            name = node.input[0]
        outputs.append(name)
    return outputs


def _writes_channels_last(reorder: onnx.NodeProto) -> bool:
    return any(attribute.name == "channels_last" and attribute.i for attribute in reorder.attribute)


def _consumer(output: str, producers: dict[str, onnx.NodeProto]) -> onnx.NodeProto:
    node = producers[output]
    if node.op_type == _REORDER_OUTPUT:
        node = producers[node.input[0]]
    if "Conv" not in node.op_type:
        raise MeasurementError(f"{_REPORT}: expected the consuming convolution, found {node.op_type}")
    return node


def _nodes_between(producers: dict[str, onnx.NodeProto], starts: set[str], ends: list[str]) -> list[onnx.NodeProto]:
    """The nodes between the starts and the ends, in an order that can be executed."""
    ordered: list[onnx.NodeProto] = []
    seen: set[str] = set(starts)
    pending = [(name, False) for name in reversed(ends)]
    while pending:
        name, is_done = pending.pop()
        if is_done:
            ordered.append(producers[name])
        elif name not in seen and name in producers:
            seen.update(producers[name].output)
            pending.append((name, True))
            pending.extend((source, False) for source in producers[name].input)
    return ordered
