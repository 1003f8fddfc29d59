"""ONNX Runtime on the CPU: one thread, all of its optimisations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import onnxruntime as ort

from halp_trt.errors import UsageError
from halp_trt.runtimes import Unit, traits_of
from halp_trt.runtimes.cpu.round_bench import ROUNDS
from halp_trt.runtimes.cpu.settled_bench import processor_name
from halp_trt.runtimes.ort.kernels import executed_units
from halp_trt.runtimes.ort.prober import CpuProber, reference
from halp_trt.runtimes.ort.session import ALL, CpuSession, open_model, optimised
from halp_trt.specs import Target, TimingProtocol
from halp_trt.timing import pin_to_one_core

__all__ = ["OnnxRuntime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntime:
    """ONNX Runtime as a :class:`halp_trt.runtimes.Runtime` and :class:`halp_trt.runtimes.TellsKernels`.

    Attributes:
        name: its key in ``RUNTIMES``.
        suffix: suffix of its engine files.
    """

    name: str = "onnxruntime"
    suffix: str = ".onnx"

    def target(self, precision: str, batch_size: int) -> Target:
        """This machine's processor. On most, fp16 is computed in fp32 between casts: it shows the score, not the speed.

        Raises:
            UsageError: a precision that its kernels do not have.
        """
        known = traits_of(self.name).builds
        if precision not in known:
            raise UsageError(
                f"onnxruntime on the CPU runs {', '.join(known)}, not {precision!r}; choose fp32 or another runtime"
            )
        return Target(
            device=processor_name(),
            runtime=self.name,
            runtime_version=ort.__version__,
            precision=precision,
            batch_size=batch_size,
            protocol=TimingProtocol(method=ROUNDS, num_samples=60),
        )

    def build(self, model: bytes, target: Target) -> bytes:
        """The model itself, after ONNX Runtime has accepted it: it optimises at loading, for the processor it is on.

        Raises:
            BuildError: it does not accept the model.
        """
        open_model(target.protocol.num_threads, model, ALL)
        return model

    def load(self, engine: bytes, target: Target) -> CpuSession:
        """A session with all optimisations.

        Raises:
            BuildError: the bytes are no model that ONNX Runtime accepts.
        """
        return CpuSession(engine, num_threads=target.protocol.num_threads)

    @contextmanager
    def prober(self, target: Target) -> Iterator[CpuProber]:
        """A prober of single layers, with the calling thread kept on one core."""
        with pin_to_one_core():
            yield CpuProber(target)

    def units(self, model: bytes, target: Target) -> tuple[Unit, ...]:
        """The kernels that ONNX Runtime executes of a model on this processor: its optimised graph's nodes, in order.

        Raises:
            BuildError: it does not accept the model.
        """
        num_threads = target.protocol.num_threads
        return executed_units(optimised(model, num_threads), partial(open_model, num_threads))

    def reference(self, target: Target) -> Callable[[], None]:
        """A call that runs a small fixed network once, to show a drift of the machine's speed."""
        return reference(target)
