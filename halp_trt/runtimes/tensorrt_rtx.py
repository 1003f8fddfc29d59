"""TensorRT for RTX: builds ``.plan`` files on any machine; loading one takes an NVIDIA GPU.

Flags and compute capabilities are looked up by name, because their numbers differ between versions.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import tensorrt_rtx as trt

from halp_trt.errors import BuildError, RuntimeUnavailableError, UsageError
from halp_trt.runtimes import Prober, Session
from halp_trt.specs import Protocol, Target

__all__ = ["build", "load", "name", "prober", "suffix", "target"]

name = "tensorrt-rtx"
suffix = ".plan"

_CAPABILITIES = ("8.6", "8.9", "12.0")
"""What a plan is built for: the GPUs that the library itself makes portable plans for (RTX 30, 40 and 50)."""


def target(precision: str, batch_size: int) -> Target:
    """The GPUs plans are built for; no device, because none is needed to build.

    Raises:
        UsageError: a precision other than ``fp32``.
    """
    if precision != "fp32":
        raise UsageError(f"tensorrt-rtx builds fp32 here, not {precision!r}; choose fp32")
    return Target(
        device="",
        runtime=name,
        runtime_version=trt.__version__,
        precision=precision,
        batch_size=batch_size,
        protocol=Protocol(method="build-only"),
        compute_capability="+".join(_CAPABILITIES),
    )


def build(model: bytes, target: Target) -> bytes:
    """The plan of an ONNX model: strongly typed, TF32 off, for the target's compute capabilities.

    Raises:
        BuildError: the parser or the builder refuses the model.
    """
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(_bits(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", "STRONGLY_TYPED"))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model) or not network.num_outputs:
        raise BuildError(_parser_sentence(parser))
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    capabilities = target.compute_capability.split("+")
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(_capability(capability), index)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT for RTX cannot build the model: {log.last()}; check the operator it names")
    return bytes(plan)


def load(engine: bytes, target: Target) -> Session:
    """Refuses, after trying: this version builds plans and does not execute them.

    Raises:
        RuntimeUnavailableError: always; the sentence says whether a GPU is missing or the plan is not for it.
    """
    log = _Log()
    if trt.Runtime(log).deserialize_cuda_engine(engine) is None:
        raise RuntimeUnavailableError(
            f"loading a TensorRT plan needs an NVIDIA GPU of compute capability {target.compute_capability} "
            f"({log.last()}); verify with --runtime onnxruntime here"
        )
    raise RuntimeUnavailableError("this version builds TensorRT plans but does not run them; use trtexec on the device")


def prober(target: Target) -> AbstractContextManager[Prober]:
    """Refuses: measuring takes a GPU.

    Raises:
        RuntimeUnavailableError: always.
    """
    raise RuntimeUnavailableError(
        "measuring with tensorrt-rtx needs an NVIDIA GPU, and this version only builds plans with it; "
        "measure with --runtime onnxruntime"
    )


class _Log(trt.ILogger):  # type: ignore[misc]  # the binding's class has no types
    """Keeps errors instead of printing them."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Called by the library."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self._errors.append(" ".join(message.split()))

    def last(self) -> str:
        """The last error, in one line."""
        return self._errors[-1][:300] if self._errors else "it gives no reason"


def _parser_sentence(parser: Any) -> str:
    if not parser.num_errors:
        return "TensorRT for RTX finds no network in these bytes; export the model again"
    error = parser.get_error(0)
    reason = f"{error.code().name}: {' '.join(error.desc().split())[:200]}"
    if error.node() < 0:
        return f"TensorRT for RTX cannot read the model ({reason}); change its inputs and outputs, or export it again"
    return (
        f"TensorRT for RTX refuses node {error.node_name() or error.node()} ({error.node_operator()}; {reason}); "
        "replace that operator or build with another runtime"
    )


def _bits(flags: Any, *names: str) -> int:
    """The flags of these names that this version has."""
    return sum(1 << int(getattr(flags, flag)) for flag in names if hasattr(flags, flag))


def _capability(text: str) -> Any:
    capability = getattr(trt.ComputeCapability, f"SM{text.replace('.', '')}", None)
    if capability is None:
        raise BuildError(f"this TensorRT for RTX cannot build for compute capability {text}; choose another target")
    return capability
