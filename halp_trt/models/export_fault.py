"""Finds where an export departs from its module: the first node whose value differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn
from torch.export.graph_signature import InputKind

from halp_trt.errors import HalpError
from halp_trt.graphs.execute import Executor
from halp_trt.graphs.export import exported_program
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.reference import flatten

__all__ = ["first_fault"]

_ADVICE = "write what it computes with other operators, or leave it out"
_UNKNOWN = f"; look for a layer that PyTorch's ONNX exporter translates wrongly, and {_ADVICE}"
"""The end of the sentence where no node can be named."""


def first_fault(module: nn.Module, inputs: Sequence[torch.Tensor], model: onnx.ModelProto, tolerance: float) -> str:
    """The rest of a sentence that names the first node whose value is not that of the traced program, and what to do.

    The program that ``torch.export`` traced is run node by node beside the export; its nodes are called like the
    tensors of the export.

    Args:
        module: the network.
        inputs: inputs for which the export's outputs differ.
        model: its export.
        tolerance: difference that passes, relative to a tensor's largest value.
    """
    writers = {name: node for node in model.graph.node for name in node.output}
    try:
        program = exported_program(module, inputs).exported_program
        assert program is not None
        values = _values(model, inputs)
        steps = _Steps(program.graph_module, values, tolerance)
        traced = flatten(steps.run(*_arguments(program, inputs)))
        expected = flatten(module(*(x.clone() for x in inputs)))
    except (HalpError, RuntimeError, KeyError, TypeError, ValueError, AssertionError) as error:
        raise_if_stopped(error)
        return _UNKNOWN
    if steps.first is None:
        if all(_same(_array(a), _array(b), tolerance) for a, b in zip(expected, traced, strict=False)):
            return _UNKNOWN
        return (
            ", though each node computes what torch.export traced; forward must not depend on the values of its "
            "inputs, or on anything outside of the module"
        )
    node, layer = writers[steps.first], _layer(module, writers[steps.first].name)
    return (
        f", first at node {node.name!r} ({node.op_type}){layer}: PyTorch's ONNX exporter translates it wrongly; "
        f"{_ADVICE}"
    )


class _Steps(torch.fx.Interpreter):
    """A traced program that is run beside the values of its export.

    Attributes:
        first: name of the first tensor that differs; None for none.
    """

    def __init__(self, graph: torch.fx.GraphModule, values: Mapping[str, npt.NDArray[Any]], tolerance: float) -> None:
        super().__init__(graph)
        self.first: str | None = None
        self._values, self._tolerance = values, tolerance

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        if self.first is None and isinstance(result, torch.Tensor) and n.op == "call_function":
            found = self._values.get(n.name)
            if found is not None and not _same(_array(result), found, self._tolerance):
                self.first = n.name
        return result


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    return tensor.detach().cpu().to(torch.float64).numpy()


def _same(expected: npt.NDArray[Any], found: npt.NDArray[Any], tolerance: float) -> bool:
    """True if finite values differ by less than a share of the largest."""
    if expected.shape != found.shape:
        return False
    finite = np.isfinite(expected)
    if not finite.any():
        return True
    limit = tolerance * max(float(np.abs(expected[finite]).max()), 1e-3)
    return bool((np.abs(expected[finite] - found[finite].astype(np.float64)) <= limit).all())


def _values(model: onnx.ModelProto, inputs: Sequence[torch.Tensor]) -> dict[str, npt.NDArray[Any]]:
    """Every tensor that a node of the export writes."""
    typed = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    names = [name for node in model.graph.node for name in node.output if name in typed]
    fed = {given.name: x.detach().cpu().numpy() for given, x in zip(model.graph.input, inputs, strict=True)}
    return Executor(model, names)(fed)


def _arguments(program: torch.export.ExportedProgram, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """The arguments of a traced program's graph: parameters and buffers by name, then the inputs."""
    held: dict[str, Any] = {**dict(program.named_parameters()), **dict(program.named_buffers()), **program.constants}
    given = iter(inputs)
    return [
        next(given).clone() if spec.kind == InputKind.USER_INPUT else held[str(spec.target)]
        for spec in program.graph_signature.input_specs
    ]


def _layer(module: nn.Module, node: str) -> str:
    """The module that a node is named after, with its class; empty if there is none."""
    path, layers = node.rpartition(":")[0] or node, dict(module.named_modules())
    while path and path not in layers:
        path = path.rpartition("/")[0] or path.rpartition(".")[0]
    return f" of module {path!r} ({type(layers[path]).__name__})" if path else ""
