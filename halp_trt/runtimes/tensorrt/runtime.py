"""The runtimes ``tensorrt`` and ``tensorrt-rtx``: their targets, their builds, and the opening of their sessions."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from halp_trt.device.plan_session import PlanSession
from halp_trt.device.tensorrt.bindings import Library
from halp_trt.device.tensorrt.build import capability, settings_of
from halp_trt.device.tensorrt.checks import check_gpu, check_precision
from halp_trt.device.tensorrt.inspector import engine_formats, engine_types
from halp_trt.errors import RuntimeUnavailableError
from halp_trt.runtimes import BUILD_ONLY, BuildOptions, BuildResult, Inspected, Prober, Session, has_nvidia_gpu
from halp_trt.runtimes.tensorrt.build import compile_plan
from halp_trt.specs import PRECISIONS, Target, TimingProtocol

if TYPE_CHECKING:
    from halp_trt.device.cuda import CudaDevice

__all__ = ["PORTABLE", "TensorRT"]

PORTABLE = ("8.6", "8.9", "12.0")
"""Compute capabilities that TensorRT for RTX builds for on a machine without a GPU: those of its portable plans (RTX
30, 40 and 50)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRT:
    """A :class:`halp_trt.runtimes.Compiler` over one of the two libraries.

    Attributes:
        library: the library that builds and runs.
        suffix: suffix of its engine files.
    """

    library: Library
    suffix: str = ".plan"

    @property
    def name(self) -> str:
        """The runtime's key in ``RUNTIMES``."""
        return self.library.name

    def target(self, precision: str, batch_size: int) -> Target:
        """This machine's GPU; without one, the GPUs that TensorRT for RTX makes portable plans for.

        Raises:
            UsageError: there is no such precision, or not in this version or on this GPU.
            RuntimeUnavailableError: TensorRT itself, and no GPU: it picks kernels by timing them there.
        """
        check_precision(self.library, precision, PRECISIONS)
        device, capabilities, protocol, power = "", "+".join(PORTABLE), TimingProtocol(method=BUILD_ONLY), ""
        gpu = self._gpu()
        if gpu is not None:
            from halp_trt.device.conditions import power_mode
            from halp_trt.runtimes.gpu_timing import PROTOCOL

            check_gpu(precision, gpu.name, gpu.compute_capability)
            device, capabilities, protocol, power = gpu.name, gpu.compute_capability, PROTOCOL, power_mode()
        return Target(
            device=device,
            runtime=self.library.name,
            runtime_version=self.library.module.__version__,
            precision=precision,
            batch_size=batch_size,
            protocol=protocol,
            compute_capability=capabilities,
            power_mode=power,
        )

    def _gpu(self) -> CudaDevice | None:
        """The GPU to build for, or None where plans for others are built."""
        if not self.library.is_rtx and not has_nvidia_gpu():
            raise RuntimeUnavailableError(
                f"{self.library} builds engines on the GPU they will run on, and there is no NVIDIA GPU here; "
                "build there, or choose --runtime tensorrt-rtx or onnxruntime"
            )
        if not has_nvidia_gpu():
            return None
        from halp_trt.device.cuda import require_device

        try:
            gpu = require_device()
        except RuntimeUnavailableError:  # the driver shows a GPU, and no package here drives it
            if not self.library.is_rtx:
                raise
            return None
        is_known = not self.library.is_rtx or capability(self.library, gpu.compute_capability) is not None
        return gpu if is_known else None

    def check(self, target: Target, options: BuildOptions) -> None:
        """Refuses, before anything is built, a target or options that this version cannot satisfy.

        Raises:
            BuildError: target or options ask for something that this version lacks.
        """
        settings_of(self.library, target, options)

    def inspect(self, session: Session) -> Inspected:
        """The number formats in a plan, as TensorRT's inspector tells them; empty without detailed verbosity."""
        assert isinstance(session, PlanSession), "it loads nothing else"
        found = session.inspect()
        return Inspected(types=engine_types(found), formats=engine_formats(found))

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> BuildResult:
        """The plan of a typed ONNX model, and the facts that building it showed.

        Raises:
            BuildError: the parser or the builder refuses the model, or lacks something that the options ask for.
        """
        return compile_plan(self.library, model, target, options)

    def build(self, model: bytes, target: Target) -> bytes:
        """The plan of a typed ONNX model.

        Raises:
            BuildError: as :meth:`compile`.
        """
        return compile_plan(self.library, model, target, BuildOptions()).engine

    def load(self, engine: bytes, target: Target) -> Session:
        """A plan, ready to run.

        Raises:
            RuntimeUnavailableError: there is no NVIDIA GPU, or the plan is not for it.
        """
        _require_gpu(f"loading a TensorRT plan (for compute capability {target.compute_capability})")
        from halp_trt.runtimes.tensorrt.prober import open_session

        session: Session = open_session(self.library.module, engine, target)
        return session

    @contextmanager
    def prober(self, target: Target) -> Iterator[Prober]:
        """A prober that measures single layers on the GPU while the context is open; they share their kernel timings.

        Raises:
            RuntimeUnavailableError: there is no NVIDIA GPU.
        """
        _require_gpu(f"measuring with {self.library.name}")
        from halp_trt.runtimes.tensorrt.prober import open_prober

        with tempfile.TemporaryDirectory() as folder:
            options = BuildOptions(timing_cache=Path(folder) / "timings")

            def build(model: bytes, target: Target) -> bytes:
                return compile_plan(self.library, model, target, options, is_layer=True).engine

            with open_prober(self.library.module, target, build) as prober:
                yield prober


def _require_gpu(what: str) -> None:
    if not has_nvidia_gpu():
        raise RuntimeUnavailableError(
            f"{what} needs an NVIDIA GPU, and there is none here; use --runtime onnxruntime on this machine"
        )
    from halp_trt.device.cuda import require_device

    require_device()
