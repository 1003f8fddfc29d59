"""Networks that OpenVINO's CPU plugin runs, and the times of their kernels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import openvino as ov

from halp_trt.errors import BuildError, PrecisionError, UsageError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import Array
from halp_trt.runtimes.openvino.counters import Counters

__all__ = ["OpenVinoSession", "compile_model", "info", "kernel_names", "kinds", "make_request"]

_WARMUP = 2
"""Untimed runs before a profile."""
_REDUCED = ("bf16", "f16")
"""OpenVINO's names of number formats with fewer bits than fp32."""
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose nodes name a kernel before all others."""
_VIEWS = ("Output", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators whose nodes name a kernel only if there are no others."""


class OpenVinoSession:
    """A network ready to run, as :class:`halp_trt.runtimes.Session` has it.

    Attributes:
        input_shapes: name and shape of every input.
        output_names: names of the outputs.
    """

    def __init__(self, model: bytes, *, num_threads: int) -> None:
        """Compiles an ONNX model.

        Raises:
            BuildError: OpenVINO refuses the model.
            PrecisionError: it would compute in fewer bits than asked for.
        """
        self._model, self._num_threads = model, num_threads
        self._compiled = compile_model(model, num_threads)
        inputs, self.output_names = _port_names(model)
        try:
            ports = {name: self._compiled.input(name) for name in inputs}
            shapes = {name: tuple(port.shape) for name, port in ports.items()}
            types = {name: port.element_type.to_dtype().name for name, port in ports.items()}
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            raise_if_stopped(error)
            raise BuildError(
                f"OpenVINO finds no inputs {', '.join(inputs)} of fixed shapes ({brief(str(error))}); export the model "
                "again"
            ) from error
        self.input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(shapes)
        self.input_types: Mapping[str, str] = MappingProxyType(types)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs.

        Raises:
            UsageError: an input is missing, unknown or of another shape or type.
        """
        request = make_request(self._compiled, inputs)
        try:
            request.infer(share_outputs=True)
            return {name: request.get_tensor(name).data.copy() for name in self.output_names}
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            raise_if_stopped(error)
            raise UsageError(f"the engine fails: {brief(str(error))}; export the network again") from error

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that is one execution; inputs and outputs lie in memory of their own, touched before.

        Raises:
            UsageError: as :meth:`run`.
        """
        request = make_request(self._compiled, inputs)

        def run() -> None:
            request.infer(share_outputs=True)

        run()
        return run

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Microseconds of every executed kernel, the mean of ``num_runs`` undisturbed runs after two untimed ones.

        OpenVINO counts in a network compiled for counting, and keeps only sums: see :class:`Counters`. A kernel bears
        the name of the first node that it covers; a reorder bears the name of the kernel it serves.
        """
        compiled = compile_model(self._model, self._num_threads, counts=True)
        request = make_request(compiled, inputs)
        counters = Counters(request)
        for _ in range(_WARMUP + num_runs):
            counters.run()
        names = kernel_names(compiled, self._model)
        kernels: dict[str, float] = {}
        for name, kernel_us in counters.kernels_us(skip=_WARMUP).items():
            name = names.get(name, name)
            kernels[name] = kernels.get(name, 0.0) + kernel_us
        return kernels


def compile_model(model: bytes, num_threads: int, *, counts: bool = False) -> ov.CompiledModel:
    """A network for the CPU: one stream, latency first, no thread moved, fp32 where the model says fp32.

    Without the hint OpenVINO computes fp32 networks in bf16 on processors that multiply such matrices faster.

    Args:
        model: the ONNX model's bytes.
        num_threads: threads of the one stream.
        counts: whether it counts the time of its kernels.

    Raises:
        BuildError: OpenVINO refuses the model; the sentence names the node where it is known.
        PrecisionError: a kernel computes in 16 bits nevertheless.
    """
    settings: dict[str, Any] = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": num_threads,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": counts,
    }
    core = ov.Core()
    try:
        network = core.read_model(model)
        if network.is_dynamic():
            network.reshape({port: [_fixed(size) for size in port.partial_shape] for port in network.inputs})
        compiled = core.compile_model(network, "CPU", settings)
    except Exception as error:  # OpenVINO raises plain RuntimeErrors
        raise_if_stopped(error)
        raise BuildError(
            f"OpenVINO refuses the model: {_reason(str(error), model)}; check the node it names"
        ) from error
    reduced = {node: kind for node, kind in kinds(compiled).items() if kind in _REDUCED}
    if reduced:
        node, kind = next(iter(reduced.items()))
        raise PrecisionError(f"OpenVINO computes {node!r} in {kind} though it was told f32; please report its version")
    return compiled


def kinds(compiled: ov.CompiledModel) -> dict[str, str]:
    """The number format that every kernel computes in, in OpenVINO's words (``f32``, ``bf16``, ``u8`` ...)."""
    return {node.get_friendly_name(): info(node, "runtimePrecision") for node in _kernels(compiled)}


def make_request(compiled: ov.CompiledModel, inputs: Mapping[str, Array]) -> ov.InferRequest:
    """A request with copies of its inputs, in memory of its own.

    Raises:
        UsageError: an input is missing, unknown or of another shape or type.
    """
    request = compiled.create_infer_request()
    expected = {next(iter(port.get_names())): port for port in compiled.inputs}
    missing = [name for name, port in expected.items() if not port.get_names() & set(inputs)]
    shapes = {name: tuple(port.shape) for name, port in expected.items()}
    if missing or len(inputs) != len(expected):
        raise UsageError(f"the engine refuses its inputs {sorted(inputs)}; feed {shapes}")
    for name, value in inputs.items():
        try:
            request.set_tensor(name, ov.Tensor(np.array(value, order="C")))
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            raise_if_stopped(error)
            found = f"{name!r} of shape {np.shape(value)} and type {np.asarray(value).dtype}"
            raise UsageError(f"the engine refuses its input {found}; feed {shapes}") from error
    return request


def kernel_names(compiled: ov.CompiledModel, model: bytes) -> dict[str, str]:
    """A name for every kernel: that of the ONNX node it covers, a product before others and a view last.

    A reorder is called after its reader, or after its writer where nothing but a view or an output reads it.
    """
    ranks: dict[str, int] = {}
    for node in onnx.load_from_string(model).graph.node:
        rank = 0 if node.op_type in _PRODUCTS else 2 if node.op_type in _VIEWS else 1
        ranks |= dict.fromkeys((node.name, *node.output), rank)
    names = {}
    for kernel in _kernels(compiled):
        owner = kernel
        if info(kernel, "layerType") == "Reorder":
            readers = [target.get_node() for target in kernel.output(0).get_target_inputs()]
            computing = [reader for reader in readers if info(reader, "layerType") not in _VIEWS]
            owner = computing[0] if computing else kernel.input_value(0).get_node()
        covered = [part.removesuffix("/WithoutBiases") for part in info(owner, "originalLayersNames").split(",")]
        known = sorted((part for part in covered if part in ranks), key=lambda part: ranks[part])
        name = known[0] if known else owner.get_friendly_name()
        names[kernel.get_friendly_name()] = name if owner is kernel else f"{name}/reorder"
    return names


def _kernels(compiled: ov.CompiledModel) -> list[ov.Node]:
    """The nodes of the network as it runs, in order, without its constants, inputs and outputs."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return [node for node in nodes if info(node, "layerType") not in ("Const", "Input", "Output")]


def info(node: ov.Node, key: str) -> str:
    """A fact that OpenVINO tells about a node of an executed network; empty where it tells none."""
    known = node.get_rt_info()
    return str(known[key].astype(str)) if key in known else ""


def _fixed(size: ov.Dimension) -> int:
    return int(size.get_length()) if size.is_static else 1


def _port_names(model: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a network's inputs and outputs; OpenVINO itself may know a tensor by several names."""
    graph = onnx.load_from_string(model).graph
    weights = {weight.name for weight in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in weights)
    return inputs, tuple(value.name for value in graph.output)


_NO_RULE = "No conversion rule found for operations: "
_NODE = re.compile(r"ONNX node '<Node\((\w+)\): ([^>]*)>'")


def _reason(message: str, model: bytes) -> str:
    """The line of an error message that gives the reason, with the node where it is known."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    for line in lines:
        if line.startswith(_NO_RULE):
            operators = {word.partition("-")[0] for word in line.removeprefix(_NO_RULE).split(", ")}
            nodes = [node for node in onnx.load_from_string(model).graph.node if node.op_type in operators]
            return brief("it has no " + ", ".join(f"{node.op_type} (node {node.name!r})" for node in nodes[:3]), 300)
    detail = [line for line in lines if not line.startswith(("Exception from", "Check ", "While ", "Summary", "Conv"))]
    reason = brief((detail or lines or ["no reason given"])[-1].removesuffix("."), 300)
    found = _NODE.search(message)
    return f"node {brief(found[2])!r} ({found[1]}): {reason}" if found else reason
