"""OpenVINO on the CPU: one stream on one thread, latency first, in fp32 also where the processor has faster formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import openvino

from halp_trt.errors import UsageError
from halp_trt.runtimes.cpu.settled_bench import processor_name
from halp_trt.runtimes.openvino.prober import PROFILED, OpenVinoProber
from halp_trt.runtimes.openvino.session import OpenVinoSession, compile_model
from halp_trt.specs import Protocol, Target
from halp_trt.timing import pin_to_one_core

__all__ = ["build", "load", "name", "prober", "suffix", "target"]

name = "openvino"
suffix = ".onnx"

_PRECISIONS = ("fp32", "fp16", "int8")
"""fp32 and fp16 graphs are computed in fp32 (fp16 shows accuracy, not speed); quantised convolutions and matrix
products of an int8 graph run in 8 bits, everything else of it in fp32."""


def target(precision: str, batch_size: int) -> Target:
    """This machine's processor.

    Raises:
        UsageError: a precision that its kernels do not have.
    """
    if precision not in _PRECISIONS:
        raise UsageError(
            f"openvino on the CPU runs {', '.join(_PRECISIONS)}, not {precision!r}; choose fp32 or another runtime"
        )
    return Target(
        device=processor_name(),
        runtime=name,
        runtime_version=openvino.__version__.partition("-")[0],
        precision=precision,
        batch_size=batch_size,
        protocol=Protocol(method=PROFILED, num_samples=30),
    )


def build(model: bytes, target: Target) -> bytes:
    """The model itself, once OpenVINO has compiled it: it does so again when it loads, for the processor it is on.

    Raises:
        BuildError: it refuses the model.
        PrecisionError: it would compute in fewer bits than the target has.
    """
    compile_model(model, target.protocol.num_threads)
    return model


def load(engine: bytes, target: Target) -> OpenVinoSession:
    """A session, ready to run.

    Raises:
        BuildError: the bytes are no model that OpenVINO accepts.
        PrecisionError: it would compute in fewer bits than the target has.
    """
    return OpenVinoSession(engine, num_threads=target.protocol.num_threads)


@contextmanager
def prober(target: Target) -> Iterator[OpenVinoProber]:
    """Measures single layers, with the calling thread kept on one core.

    Raises:
        UsageError: a precision other than ``fp32``; whole networks run in others.
    """
    if target.precision != "fp32":
        raise UsageError(
            f"openvino measures layers in fp32, not {target.precision!r}: prune with fp32 and deploy in the other"
        )
    with pin_to_one_core():
        yield OpenVinoProber(target)
