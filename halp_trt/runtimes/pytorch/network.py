"""An ONNX graph as a PyTorch module: straight-line code of the calls that an eager network would make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx

from halp_trt.errors import BuildError, HalpError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes.pytorch.call import Call
from halp_trt.runtimes.pytorch.operators import OPERATORS

__all__ = ["NODE", "input_shapes", "make_module", "output_names"]

NODE = "onnx_node"
"""Key of a call's metadata in the module's graph; its value is the name of the ONNX node that the call came from."""


def make_module(model: bytes) -> fx.GraphModule:
    """A module that computes the model, its weights as buffers, its code one call after the other.

    Batch norms that a graph has folded stay folded. Nodes that depend on constants alone are computed once, here.

    Raises:
        BuildError: the bytes are no model, or an operator is not known; the sentence names the node.
    """
    try:
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(model), data_prop=True).graph
    except Exception as error:  # protobuf's and ONNX's errors have no common root
        raise_if_stopped(error)
        raise BuildError(f"PyTorch cannot read the model ({_line(error)}); export it again") from error
    if not graph.output:
        raise BuildError("PyTorch finds no network in these bytes; export the model again")
    try:
        return _Drawing(graph).module()
    except HalpError:
        raise
    except Exception as error:  # an operator's inputs or attributes are not those of its definition
        raise_if_stopped(error)
        raise BuildError(
            f"PyTorch cannot make calls of the model ({type(error).__name__}: {_line(error)}); export it again"
        ) from error


class _Drawing:
    """A module's graph while it is drawn: every tensor is a constant or a proxy that records the calls on it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._onnx, self._graph, self._root = graph, fx.Graph(), torch.nn.Module()
        self._tracer = fx.proxy.GraphAppendingTracer(self._graph)
        self._constants = {weight.name: _tensor(weight) for weight in graph.initializer}
        self._values: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        tensors = (*graph.input, *graph.value_info, *graph.output)
        self._shapes = {t.name: tuple(d.dim_value for d in t.type.tensor_type.shape.dim) for t in tensors}

    def module(self) -> fx.GraphModule:
        for value in self._onnx.input:
            if value.name not in self._constants:
                name = f"input_{len(self._values)}"
                self._values[value.name] = fx.Proxy(self._graph.placeholder(name), self._tracer)
        for index, node in enumerate(self._onnx.node):
            self._draw(node, node.name or f"{node.op_type}_{index}")
        self._graph.output(tuple(self._value(output.name).node for output in self._onnx.output))
        self._graph.eliminate_dead_code()  # constants that were read as plain numbers
        return fx.GraphModule(self._root, self._graph)

    def _draw(self, node: onnx.NodeProto, name: str) -> None:
        if node.op_type == "Constant":
            values = onnx.helper.get_attribute_value(node.attribute[0])
            self._constants[node.output[0]] = (
                _tensor(values) if isinstance(values, onnx.TensorProto) else torch.tensor(values)
            )
            return
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise BuildError(
                f"node {brief(name)} ({brief(node.op_type)}) has no counterpart in the torch runtime; choose another "
                "runtime"
            )
        is_constant = all(not key or key in self._constants for key in node.input)
        num_drawn = len(self._graph.nodes)
        call = Call(
            node=f"{name} ({node.op_type})",
            attributes={attribute.name: _plain(attribute) for attribute in node.attribute},
            inputs=tuple(self._input(key, is_constant=is_constant) for key in node.input),
            constants=tuple(self._constants.get(key) for key in node.input),
            shapes=tuple(self._shape(key) for key in node.input),
            num_outputs=len(node.output),
        )
        result = OPERATORS[node.op_type](call)
        written = self._constants if is_constant else self._values
        if node.op_type == "Split":
            written.update({key: result[position] for position, key in enumerate(node.output)})
        else:  # further outputs are masks and statistics of training, which nothing here reads
            written[node.output[0]] = result
        for made in list(self._graph.nodes)[num_drawn:]:
            if made.op in ("call_function", "call_method"):
                made.meta[NODE] = name

    def _input(self, key: str, *, is_constant: bool) -> Any:
        if not key:
            return None
        return self._constants[key] if is_constant else self._value(key)

    def _value(self, key: str) -> Any:
        """The proxy of a tensor; constants become buffers of the module."""
        if key in self._values:
            return self._values[key]
        if key not in self._constants:
            raise BuildError(f"tensor {brief(key)!r} is read before anything writes it; export the model again")
        if key not in self._attributes:
            name = f"constant_{len(self._attributes)}"
            self._root.register_buffer(name, self._constants[key])
            self._attributes[key] = fx.Proxy(self._graph.get_attr(name), self._tracer)
        return self._attributes[key]

    def _shape(self, key: str) -> tuple[int, ...]:
        constant = self._constants.get(key)
        return tuple(constant.shape) if constant is not None else self._shapes.get(key, ())


def _tensor(weight: onnx.TensorProto) -> torch.Tensor:
    values = onnx.numpy_helper.to_array(weight)
    if values.dtype.name == "bfloat16":
        return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(values))


def _plain(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if not isinstance(value, int | float | str | onnx.TensorProto) else value


def _line(error: Exception) -> str:
    return brief(str(error))


def input_shapes(model: bytes) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every input that is not a weight; sizes left open are 1."""
    graph = onnx.load_from_string(model).graph
    weights = {weight.name for weight in graph.initializer}
    return {
        value.name: tuple(size.dim_value or 1 for size in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name not in weights
    }


def output_names(model: bytes) -> tuple[str, ...]:
    """Names of the outputs."""
    return tuple(output.name for output in onnx.load_from_string(model).graph.output)
