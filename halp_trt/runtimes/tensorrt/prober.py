"""Opening TensorRT plans, and measuring single layers as plans; the bindings module is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from halp_trt.device.gpu import Gpu, open_gpu
from halp_trt.device.plan_session import PlanSession, open_plan
from halp_trt.device.tensorrt.plan_bench import PlanBench
from halp_trt.runtimes.gpu_timing import measurement_of, rounds_of
from halp_trt.runtimes.probe_cut import lone_layer
from halp_trt.runtimes.reference import gpu_reference
from halp_trt.specs import Measurement, Target

__all__ = ["PlanProber", "open_prober", "open_session"]

Build = Callable[[bytes, Target], bytes]
"""A function that builds the plan of a layer's model for a target."""


def open_session(trt: ModuleType, engine: bytes, target: Target, *, gpu: Gpu | None = None) -> PlanSession:
    """A plan that was built for a target, loaded as :func:`halp_trt.device.plan_session.open_plan` does.

    Raises:
        RuntimeUnavailableError: there is no GPU, or the plan is not for this one or this TensorRT.
        UsageError: an input has no fixed shape.
    """
    return open_plan(trt, engine, made_by=_maker(target), gpu=gpu)


@contextmanager
def open_prober(trt: ModuleType, target: Target, build: Build, *, gpu: Gpu | None = None) -> Iterator[PlanProber]:
    """A prober that measures single layers while the context is open.

    Args:
        trt: the bindings.
        target: the layers' target, whose protocol is followed.
        build: the plan of a layer's model. The model holds the layer alone: the markers and the consumer of its probe
            are cut off, because TensorRT takes the formats of inputs and outputs as they are asked for. To measure no
            reformatting kernel, ``build`` allows the formats that the layer has inside a network.
        gpu: the GPU to measure on; by default this machine's.

    Raises:
        RuntimeUnavailableError: there is no GPU.
    """
    yield PlanProber(trt, target, build, gpu or open_gpu())


class PlanProber:
    """Measures layers by the protocol ``gpu-events``, each in turns with the same reference network."""

    def __init__(self, trt: ModuleType, target: Target, build: Build, gpu: Gpu) -> None:
        self._protocol = target.protocol
        self._bench = PlanBench(
            trt,
            lambda model: build(model, target),
            gpu,
            made_by=_maker(target),
            rounds=rounds_of(target.protocol),
            reference=gpu_reference(),
        )

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe.

        Raises:
            BuildError: TensorRT refuses the layer.
            MeasurementError: the bytes are no probe.
        """
        return measurement_of(self._bench.measure(lone_layer(probe)), self._protocol)


def _maker(target: Target) -> str:
    """The runtime of a target's plans and its version, in words."""
    return f"{target.runtime} {target.runtime_version}"
