"""Exports a PyTorch module to a dense ONNX graph with its parameter names; the room's only module on torch."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnx_ir
import onnx_ir.passes.common
import onnxscript.optimizer
import torch
from torch.utils._pytree import tree_leaves

from halp_trt.errors import ModelError
from halp_trt.graphs.mended import drop_misshapen_biases, own_outputs, separate_names, without_first_name
from halp_trt.graphs.mended_pools import mend_divisors, mend_last_windows
from halp_trt.interrupts import raise_if_stopped

_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
_SCOPES = "pkg.torch.onnx.name_scopes"
_INSIDE = "network"
"""Name of a network in the module around it."""


def export(module: torch.nn.Module, example: Sequence[torch.Tensor]) -> onnx.ModelProto:
    """The dense network as ONNX, ready for tracing and rewriting.

    Weights are not folded: the initialisers of parameters and buffers keep their ``state_dict()`` names, so a plan can
    slice them by name. Other constants are folded and belong to one node each. Nodes are named after the module they
    come from, inputs after the arguments of ``forward``; an argument called like a parameter or buffer becomes
    ``input_NAME``.

    Args:
        module: the network; it is exported in eval mode and left in the mode it was in.
        example: example inputs; their shapes, batch included, become the graph's.

    Raises:
        ModelError: the network does not run on the example, or the exporter cannot trace it.
    """
    program = exported_program(module, example)
    try:
        return _canonical(program, set(module.state_dict()))
    except ModelError:
        raise
    except Exception as error:  # the exporter's model is at fault, and each of the packages here has errors of its own
        raise_if_stopped(error)
        raise ModelError(
            f"PyTorch's ONNX exporter writes a model that cannot be read ({_reason(error)}); please report the network"
        ) from error


def exported_program(module: torch.nn.Module, example: Sequence[torch.Tensor]) -> torch.onnx.ONNXProgram:
    """A network as PyTorch's exporter gives it, with the traced program that it was made from.

    The exporter may take a parameter called ``p_scale`` for one called ``scale``. A network with such a name is
    exported from inside another module, where no names are alike, and has its own names afterwards; those of the traced
    program begin with the other module's.

    Raises:
        ModelError: the network does not run on the example, or the exporter cannot trace it.
    """
    was_training, confusing = module.training, _has_confusing_names(module)
    module.eval()
    try:
        try:
            with torch.no_grad():
                outputs = module(*(x.clone() for x in example))  # forward may write into its arguments
        except Exception as error:
            raise_if_stopped(error)
            shapes = [tuple(x.shape) for x in example]
            raise ModelError(
                f"the network does not run on an input of shape {shapes}: {error}; give --input"
            ) from error
        try:
            around = _Around(module).eval() if confusing else module
            with quiet():
                program = torch.onnx.export(around, tuple(example), dynamo=True, optimize=False, verbose=False)
        except Exception as error:
            raise_if_stopped(error)
            others = {type(leaf).__name__ for leaf in tree_leaves(outputs) if not isinstance(leaf, torch.Tensor)}
            advice = (
                f"forward must return tensors alone, not {' or '.join(sorted(others))}"
                if others
                else "torch.export must accept it: remove data-dependent control flow"
            )
            raise ModelError(
                f"PyTorch's ONNX exporter cannot trace the network ({_reason(error)}); {advice}"
            ) from error
    finally:
        module.train(was_training)
    assert program is not None
    if confusing:
        without_first_name(program.model, _INSIDE, _SCOPES)
    return program


class _Around(torch.nn.Module):
    """A module that only calls the network inside, with the arguments of its ``forward``."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        setattr(self, _INSIDE, network)
        self.forward = functools.wraps(network.forward)(lambda *inputs: network(*inputs))


def _has_confusing_names(module: torch.nn.Module) -> bool:
    """True if a tensor at the top of a module is called like an argument that ``torch.export`` makes of another one."""
    tensors = {**vars(module), **module._parameters, **module._buffers}
    return any(re.match("[pbc]_", name) for name, value in tensors.items() if isinstance(value, torch.Tensor))


def _reason(error: Exception) -> str:
    """The first line of what an error, or the one behind it, says."""
    return str(error.__cause__ or error).strip().partition("\n")[0] or type(error).__name__


def _canonical(program: torch.onnx.ONNXProgram, parameters: set[str]) -> onnx.ModelProto:
    """Folds subgraphs independent of parameters, gives constants one consumer each, names nodes after modules."""
    model = program.model
    mend_divisors(model, list(program.exported_program.graph.nodes) if program.exported_program is not None else [])
    mend_last_windows(model)
    separate_names(model)
    _fold(model)
    scopes = {node.name: node.metadata_props.get(_SCOPES, "") for node in model.graph}
    graph = gs.import_onnx(onnx_ir.to_proto(model))
    own_outputs(graph)
    _inline_constants(graph)
    drop_misshapen_biases(graph)
    for node in graph.nodes:
        for position, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant) and tensor.name not in parameters and len(tensor.outputs) > 1:
                node.inputs[position] = gs.Constant(f"{tensor.name}@{node.name}.{position}", tensor.values)
    names: set[str] = set()
    for node in graph.nodes:
        node.name = _unique(_node_name(node, scopes.get(node.name, ""), parameters), names)
    graph.cleanup().toposort()
    exported = gs.export_onnx(graph, do_type_check=False)
    return onnx.shape_inference.infer_shapes(exported, strict_mode=True, data_prop=True)


def _fold(model: onnx_ir.Model) -> None:
    """Folds what is computed from constants alone, in place; what parameters enter is left."""
    initializers = set(model.graph.initializers.values())

    def foldable(node: onnx_ir.Node) -> bool | None:
        if any(value in initializers for value in node.inputs) and node.op_type not in ("Shape", "Size"):
            return False
        return True if node.op_type == "ConstantOfShape" else None  # by default the optimiser leaves it

    limit = 1 << 22
    with quiet():
        onnxscript.optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=limit,
            output_size_limit=limit,
            should_fold=foldable,
        )
        onnx_ir.passes.common.RemoveUnusedNodesPass()(model)


def _inline_constants(graph: gs.Graph) -> None:
    """Turns ``Constant`` nodes into constants of their consumers."""
    for node in [n for n in graph.nodes if n.op == "Constant"]:
        (kind, value), output = next(iter(node.attrs.items())), node.outputs[0]
        if kind not in _CONSTANT_DTYPES and kind != "value":
            continue
        values = value.values if kind == "value" else np.array(value, _CONSTANT_DTYPES[kind])
        constant = gs.Constant(output.name, values)
        for consumer in list(output.outputs):
            consumer.inputs = [constant if t is output else t for t in consumer.inputs]
        node.outputs.clear()


def _node_name(node: gs.Node, scopes: str, parameters: set[str]) -> str:
    weights = [t.name for t in node.inputs if isinstance(t, gs.Constant) and t.name in parameters]
    if weights and "." in weights[0]:
        return str(weights[0].rpartition(".")[0])
    names = [name.strip(" '\"") for name in scopes.strip("[]").split(",")] if scopes else []
    path = next((name for name in reversed(names[:-1]) if name), "")
    return f"{path}/{node.op}" if path else node.op


def _unique(name: str, names: set[str]) -> str:
    candidate, count = name, 1
    while candidate in names:
        count += 1
        candidate = f"{name}:{count}"
    names.add(candidate)
    return candidate


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's messages off the terminal; its errors are raised, so it need not log them as well."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        chatter = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
