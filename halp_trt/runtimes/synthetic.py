"""A device that exists on paper: for rehearsals, and for tests that must come out the same on every machine.

A layer takes ``(5 + macs / 20000 + elements / 4000) * (1 + noise)`` microseconds. ``macs`` counts multiplications with
both widths rounded up to tiles of 16 channels, which makes a staircase; ``elements`` counts the numbers read and
written, rounded up alike; ``noise`` lies within half a percent and is drawn from the SHA-256 of spec and batch, so that
it is the same in every process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import onnx

from halp_trt.errors import BuildError, MeasurementError, RuntimeUnavailableError, UsageError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import SPEC_KEY, Array, Session, get_runtime
from halp_trt.runtimes.traits import NO_CLOCK
from halp_trt.specs import LayerSpec, Measurement, Target, TimingProtocol
from halp_trt.store import decode

__all__ = ["TILE", "Synthetic", "latency_us"]

TILE = 16
"""Width of a stair of its latencies, in channels."""
_NOISE = 0.005
"""Largest share by which noise changes a latency."""
_TITLE = "the synthetic device"
"""The device's name in sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """The device as a :class:`halp_trt.runtimes.Runtime`.

    Attributes:
        name: its key in ``RUNTIMES``.
        suffix: suffix of its engine files.
    """

    name: str = "synthetic"
    suffix: str = ".onnx"

    def target(self, precision: str, batch_size: int) -> Target:
        """The same target on every machine.

        Raises:
            UsageError: a precision other than ``fp32``.
        """
        if precision != "fp32":
            raise UsageError(f"{_TITLE} runs fp32, not {precision!r}; choose fp32 or another runtime")
        return Target(
            device="synthetic staircase",
            runtime=self.name,
            runtime_version="1",
            precision=precision,
            batch_size=batch_size,
            protocol=TimingProtocol(method="formula", num_samples=1, num_warmup=0),
        )

    def build(self, model: bytes, target: Target) -> bytes:
        """The model itself.

        Raises:
            BuildError: it is no valid ONNX model.
        """
        try:
            onnx.checker.check_model(model)
        except Exception as error:
            raise_if_stopped(error)
            raise BuildError(
                f"the model is not valid ONNX: {' '.join(str(error).split())[:300]}; export it again"
            ) from error
        return model

    def load(self, engine: bytes, target: Target) -> SilentSession:
        """A session that computes through ONNX Runtime, so that scores can be measured, but has no clock.

        Raises:
            RuntimeUnavailableError: ONNX Runtime is not installed.
        """
        runtime = get_runtime("onnxruntime")
        return SilentSession(runtime.load(engine, runtime.target(target.precision, target.batch_size)))

    @contextmanager
    def prober(self, target: Target) -> Iterator[FormulaProber]:
        """A prober that prices single layers by the formula."""
        yield FormulaProber(target.batch_size)


class SilentSession:
    """A network that runs but cannot be timed, as :class:`halp_trt.runtimes.Session` has it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.input_shapes = session.input_shapes
        self.output_names = session.output_names

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs."""
        return self._session.run(inputs)

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """Refuses to give a call for timing.

        Raises:
            RuntimeUnavailableError: always.
        """
        raise RuntimeUnavailableError(NO_CLOCK.format(title=_TITLE))

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Refuses to time kernels.

        Raises:
            RuntimeUnavailableError: always.
        """
        raise RuntimeUnavailableError(NO_CLOCK.format(title=_TITLE))


class FormulaProber:
    """Prices the layer that a probe's metadata names."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size

    def measure(self, probe: bytes) -> Measurement:
        """The formula's latency of a probe's layer.

        Raises:
            MeasurementError: the model is not a probe.
        """
        metadata = {entry.key: entry.value for entry in onnx.load_from_string(probe).metadata_props}
        if SPEC_KEY not in metadata:
            raise MeasurementError(f"the model is no probe: it has no metadata {SPEC_KEY!r}; make it with make_probe")
        latency = latency_us(decode(LayerSpec, json.loads(metadata[SPEC_KEY])), self._batch_size)
        return Measurement(latency_us=latency, p10_us=latency, p90_us=latency, num_samples=1)


def latency_us(spec: LayerSpec, batch_size: int) -> float:
    """Latency by the formula in this module's head, microseconds."""
    batch = spec.batch_at(batch_size)
    in_width, out_width = _tiled(spec.in_channels), _tiled(spec.out_channels)
    out_size = [
        -(-n // stride) for n, stride in zip(spec.in_size, spec.stride or (1,) * len(spec.in_size), strict=False)
    ]
    has_weights = spec.operator in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    per_output = max(in_width // spec.conv_groups, 1) * math.prod(spec.kernel_size)
    macs = batch * out_width * per_output * math.prod(out_size) if has_weights else 0
    num_written = batch * out_width * math.prod(out_size)
    elements = batch * in_width * math.prod(spec.in_size) + num_written * (1 + spec.epilogue.count("Add"))
    draw = hashlib.sha256(f"{batch} {spec!r}".encode()).digest()
    noise = _NOISE * (int.from_bytes(draw[:6], "big") / 2**47 - 1)
    return (5 + macs / 20000 + elements / 4000) * (1 + noise)


def _tiled(width: int) -> int:
    return -(-width // TILE) * TILE
