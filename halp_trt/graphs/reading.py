"""ONNX models as they are read from files: what the rest relies on is checked first, and refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import onnx

from halp_trt.errors import ArtefactError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.store import MODEL_BYTES, read_bytes

__all__ = ["check_network", "parse_model", "read_model"]

_AGAIN = "run prune again"
_MOST_NUMBERS = 1 << 30
"""Numbers in one tensor, at most: four gigabytes in fp32."""
_MOST_VERSION = 1000
"""Versions of operators and of the format are far below."""
_STANDARD = ("", "ai.onnx")
"""Names of the domain of ONNX itself."""


def read_model(path: Path) -> onnx.ModelProto:
    """The ONNX model in a file of a run: all that :func:`parse_model` and :func:`check_network` ask for holds.

    Raises:
        ArtefactError: it is missing, damaged or no sound network.
    """
    model = parse_model(read_bytes(path, MODEL_BYTES), str(path), advice=_AGAIN)
    check_network(model, str(path), advice=_AGAIN)
    return model


def parse_model(data: bytes, name: str, *, advice: str = "export it again") -> onnx.ModelProto:
    """The ONNX model in some bytes, whose names are texts and whose tensors hold what they say.

    Whether a runtime knows its operators is for the runtime to say.

    Args:
        data: the bytes.
        name: name of their file, for errors.
        advice: what to do, for errors.

    Raises:
        ArtefactError: they are no model or a part of one, or need another file.
    """
    fault = _Fault(name, advice)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except Exception as error:  # protobuf's own errors have no common root
        raise_if_stopped(error)
        raise ArtefactError(f"cannot read the model {name} ({brief(str(error))}); {advice}") from error
    if not model.opset_import or not model.graph.output:  # an empty file is a sound protobuf message
        raise ArtefactError(f"{name} holds no ONNX model; {advice}")
    if not 0 < model.ir_version < _MOST_VERSION:
        fault(f"it has version {model.ir_version} of the format")
    for one in model.opset_import:
        fault.check_text(one.domain)
        if not 0 < one.version < _MOST_VERSION:
            fault(f"it has version {one.version} of the operators {one.domain!r}")
    version = next((one.version for one in model.opset_import if one.domain in _STANDARD), 0)
    for graph in _graphs(model.graph):
        _check_graph(graph, fault)
        for node in graph.node:
            _check_operands(node, version, fault)
    for function in model.functions:
        _check_nodes(function.node, fault)
    return model


class _Fault:
    """The refusal of one model."""

    def __init__(self, name: str, advice: str) -> None:
        self._name, self._advice = name, advice

    def __call__(self, reason: str) -> NoReturn:
        raise ArtefactError(f"{self._name} is no sound ONNX model: {reason}; {self._advice}")

    def check_text(self, *texts: Any) -> None:
        """Refuses names that are no text: protobuf gives such as bytes."""
        for text in texts:
            if not isinstance(text, str) or "\0" in text:
                self(f"it has the name {brief(repr(text), 60)}")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _check_graph(graph: onnx.GraphProto, fault: _Fault) -> None:
    weights = {weight.name for weight in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        fault.check_text(value.name)
        _check_shape(value, fault)
    for value in graph.input:
        numbers = _num_numbers(value)
        if value.name not in weights and numbers > _MOST_NUMBERS:
            fault(f"its input {brief(value.name)!r} has {numbers:.3g} numbers, and at most {_MOST_NUMBERS:,} are fed")
    for weight in graph.initializer:
        _check_tensor(weight, fault)
    for sparse in graph.sparse_initializer:
        _check_tensor(sparse.values, fault)
        _check_tensor(sparse.indices, fault)
    _check_nodes(graph.node, fault)


def _check_nodes(nodes: Sequence[onnx.NodeProto], fault: _Fault) -> None:
    for node in nodes:
        fault.check_text(node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            fault.check_text(attribute.name)
            if attribute.type == onnx.AttributeProto.UNDEFINED:
                fault(f"attribute {brief(attribute.name)!r} of node {brief(node.name)!r} has no type that is known")
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                _check_tensor(tensor, fault)


def _check_operands(node: onnx.NodeProto, version: int, fault: _Fault) -> None:
    """Refuses a node with fewer or more inputs and outputs than its operator has: some runtimes die of such a one."""
    if node.domain not in _STANDARD or not onnx.defs.has(node.op_type):
        return
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:  # it is younger than the model; the runtime says so
        return
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    needed = zip(schema.inputs, [*node.input, *[""] * schema.min_input], strict=False)
    is_whole = all(name for one, name in needed if one.option == single)
    if not is_whole or len(node.input) > schema.max_input or not _fits(len(node.output), schema):
        fault(
            f"node {brief(node.name)!r} ({node.op_type}) has inputs {brief(str(list(node.input)), 60)} and "
            f"{len(node.output)} outputs, which its operator has not"
        )


def _fits(num_outputs: int, schema: Any) -> bool:
    return bool(schema.min_output <= num_outputs <= schema.max_output)


def _check_shape(value: onnx.ValueInfoProto, fault: _Fault) -> None:
    for size in value.type.tensor_type.shape.dim:
        fault.check_text(size.dim_param)
        if not 0 <= size.dim_value <= _MOST_NUMBERS:
            fault(f"{brief(value.name)!r} has a size of {size.dim_value}")


def _num_numbers(value: onnx.ValueInfoProto) -> int:
    return math.prod(size.dim_value or 1 for size in value.type.tensor_type.shape.dim)


def _check_tensor(tensor: onnx.TensorProto, fault: _Fault) -> None:
    fault.check_text(tensor.name)
    name = brief(tensor.name)
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        fault(f"the tensor {name!r} lies in another file, expected all weights in this one")
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > _MOST_NUMBERS:
        fault(f"the tensor {name!r} has the shape {brief(str(list(tensor.dims)), 60)}")
    try:
        onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # numpy's and ONNX's errors are of several kinds
        raise_if_stopped(error)
        reason = brief(str(error)) or type(error).__name__
        fault(f"the tensor {name!r} does not hold the numbers that it says ({reason})")


# ---- networks -------------------------------------------------------------------------------------------------------


def check_network(model: onnx.ModelProto, name: str, *, advice: str) -> None:
    """Makes sure that a model is a network that can be followed from its inputs to its outputs.

    Args:
        model: the model, from :func:`parse_model`.
        name: name of its file, for errors.
        advice: what to do, for errors.

    Raises:
        ArtefactError: a tensor is read before it is written, written twice or missing; an operator's domain is not
            named, or a tensor is larger than any.
    """
    fault = _Fault(name, advice)
    domains = {one.domain for one in model.opset_import} | set(_STANDARD)
    if model.graph.sparse_initializer:
        fault("it has sparse weights, which no export has")
    _check_order(model.graph, set(), domains, fault)
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the checker's own class, and others for what it cannot serialise
        raise_if_stopped(error)
        fault(brief(str(error)))
    for value in inferred.graph.value_info:
        numbers = _num_numbers(value)
        if numbers > _MOST_NUMBERS:
            fault(f"the tensor {brief(value.name)!r} would have {numbers:.3g} numbers")


def _check_order(graph: onnx.GraphProto, outer: set[str], domains: set[str], fault: _Fault) -> None:
    """Refuses a graph whose nodes do not follow each other."""
    written = {value.name for value in graph.input}
    written |= {weight.name for weight in graph.initializer}
    for node in graph.node:
        label = f"node {brief(node.name)!r} ({brief(node.op_type, 60)})"
        if node.domain not in domains:
            fault(f"{label} is of the domain {brief(node.domain)!r}, which the model does not name")
        for read in node.input:
            if read and read not in written and read not in outer:
                fault(f"{label} reads {brief(read)!r}, which nothing before it writes")
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _check_order(inner, outer | written, domains, fault)
        for made in node.output:
            if made and made in written:
                fault(f"{brief(made)!r} is written twice")
            written.add(made)
    for value in graph.output:
        if value.name not in written:
            fault(f"nothing writes the output {brief(value.name)!r}")
