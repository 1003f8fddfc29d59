"""OpenVINO on the CPU: one stream on one thread, latency first, in fp32 also where the processor has faster formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import openvino

from halp_trt.errors import UsageError
from halp_trt.runtimes import traits_of
from halp_trt.runtimes.cpu.settled_bench import processor_name
from halp_trt.runtimes.openvino.prober import PROFILED, OpenVinoProber
from halp_trt.runtimes.openvino.session import OpenVinoSession, compile_model
from halp_trt.specs import Target, TimingProtocol
from halp_trt.timing import pin_to_one_core

__all__ = ["OpenVino"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVino:
    """OpenVINO as a :class:`halp_trt.runtimes.Runtime`.

    fp32 and fp16 graphs are computed in fp32 (fp16 shows the score, not the speed); quantised convolutions and matrix
    products of an int8 graph run in 8 bits, everything else of it in fp32.

    Attributes:
        name: its key in ``RUNTIMES``.
        suffix: suffix of its engine files.
    """

    name: str = "openvino"
    suffix: str = ".onnx"

    def target(self, precision: str, batch_size: int) -> Target:
        """This machine's processor.

        Raises:
            UsageError: a precision that its kernels do not have.
        """
        known = traits_of(self.name).builds
        if precision not in known:
            raise UsageError(
                f"openvino on the CPU runs {', '.join(known)}, not {precision!r}; choose fp32 or another runtime"
            )
        return Target(
            device=processor_name(),
            runtime=self.name,
            runtime_version=openvino.__version__.partition("-")[0],
            precision=precision,
            batch_size=batch_size,
            protocol=TimingProtocol(method=PROFILED, num_samples=30),
        )

    def build(self, model: bytes, target: Target) -> bytes:
        """The model itself, after a trial: OpenVINO compiles it again at loading, for the processor it is on.

        Raises:
            BuildError: it refuses the model.
            PrecisionError: it would compute in fewer bits than the target has.
        """
        compile_model(model, target.protocol.num_threads)
        return model

    def load(self, engine: bytes, target: Target) -> OpenVinoSession:
        """A session, ready to run.

        Raises:
            BuildError: the bytes are no model that OpenVINO accepts.
            PrecisionError: it would compute in fewer bits than the target has.
        """
        return OpenVinoSession(engine, num_threads=target.protocol.num_threads)

    @contextmanager
    def prober(self, target: Target) -> Iterator[OpenVinoProber]:
        """A prober of single layers, with the calling thread kept on one core.

        Raises:
            UsageError: a precision other than ``fp32``; whole networks run in others.
        """
        traits_of(self.name).check_measures(target)
        with pin_to_one_core():
            yield OpenVinoProber(target)
