"""Mends an export of PyTorch's exporter where it is not the network that it was given."""

from __future__ import annotations

import re

import numpy as np
import onnx_graphsurgeon as gs
import onnx_ir

from halp_trt.errors import ModelError

__all__ = ["drop_misshapen_biases", "own_outputs", "separate_names", "without_first_name"]

# ---- while it is PyTorch's model ------------------------------------------------------------------------------------


def separate_names(model: onnx_ir.Model) -> None:
    """Gives every tensor a name of its own, in place: an export knows tensors by their names alone.

    Parameters and buffers keep theirs. An input called like one becomes ``input_NAME``, the result of a node
    ``NAME_result``, with a number behind it where that is taken, too.
    """
    graph = model.graph
    results = [value for node in graph.all_nodes() for value in node.outputs]
    names = {str(name) for name in graph.initializers}
    names.update(str(value.name) for value in (*graph.inputs, *results))
    taken = {str(name) for name in graph.initializers}
    for value, form in (*((v, "input_{}") for v in graph.inputs), *((v, "{}_result") for v in results)):
        if value.name in taken:
            value.name = _free(form.format(value.name), names)
            names.add(value.name)
        taken.add(str(value.name))


def without_first_name(model: onnx_ir.Model, first: str, scopes: str) -> None:
    """Takes the first name off the dotted names of initialisers and of the modules that nodes come from, in place.

    Args:
        model: the export of a module that holds the network.
        first: the network's name in that module.
        scopes: key of the list of modules in a node's metadata.
    """
    held = model.graph.initializers
    moved = {name[len(first) + 1 :]: held.pop(name) for name in list(held) if name.startswith(f"{first}.")}
    for name, value in moved.items():
        value.name = name
        held[name] = value
    for node in model.graph.all_nodes():
        if scopes in node.metadata_props:
            node.metadata_props[scopes] = re.sub(rf"'{first}(?:\.|(?='))", "'", node.metadata_props[scopes])


def _free(name: str, names: set[str]) -> str:
    candidate, count = name, 1
    while candidate in names:
        count += 1
        candidate = f"{name}_{count}"
    return candidate


# ---- while it is a graph of GraphSurgeon's --------------------------------------------------------------------------


def own_outputs(graph: gs.Graph) -> None:
    """Gives every output of the network a tensor of its own, in place.

    An input, parameter or constant that is returned, and what is returned a second time, is copied by an ``Identity``.
    """
    names, seen = set(graph.tensors()), {tensor.name for tensor in graph.inputs}
    for position, tensor in enumerate(graph.outputs):
        fixed = isinstance(tensor, gs.Constant) or not tensor.inputs or tensor.inputs[0].op == "Constant"
        if fixed or tensor.name in seen:
            name = _free(f"{tensor.name}_output", names)
            names.add(name)
            copied = gs.Variable(name, tensor.dtype, tensor.shape)
            graph.nodes.append(gs.Node("Identity", f"node_{name}", inputs=[tensor], outputs=[copied]))
            graph.outputs[position] = copied
        seen.add(graph.outputs[position].name)


def drop_misshapen_biases(graph: gs.Graph) -> None:
    """Drops zeros in another shape than a bias's, which the exporter gives convolutions without one, in place.

    Raises:
        ModelError: a bias of another shape is not zero.
    """
    for node in graph.nodes:
        if node.op not in ("Conv", "ConvTranspose") or len(node.inputs) < 3 or node.inputs[2].is_empty():
            continue
        weight, bias = node.inputs[1], node.inputs[2]
        if weight.shape is None or bias.shape is None:
            continue
        width = weight.shape[0] if node.op == "Conv" else weight.shape[1] * int(node.attrs.get("group", 1))
        if tuple(bias.shape) == (width,):
            continue
        if not isinstance(bias, gs.Constant) or np.any(bias.values):
            raise ModelError(
                f"PyTorch's ONNX exporter gives the convolution {node.name!r} a bias of shape {tuple(bias.shape)} for "
                f"{width} channels; write the layer another way"
            )
        del node.inputs[2]
