"""Opening TensorRT plans, and measuring single layers as plans; the bindings module is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from halp_trt.device.gpu import Gpu, make_launch, open_gpu
from halp_trt.device.plan_session import PlanSession, open_plan
from halp_trt.runtimes.gpu_timing import Bench
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
    return open_plan(trt, engine, made_by=f"{target.runtime} {target.runtime_version}", gpu=gpu)


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
        self._trt, self._target, self._build, self._gpu = trt, target, build, gpu
        self._random = np.random.default_rng(0)
        reference = make_launch(gpu.device, self._open(gpu_reference()).enqueue)
        self._bench = Bench(device=gpu.device, protocol=target.protocol, reference=reference)

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe.

        Raises:
            BuildError: TensorRT refuses the layer.
            MeasurementError: the bytes are no probe.
        """
        return self._bench.measure(self._open(lone_layer(probe)).enqueue)

    def _open(self, model: bytes) -> PlanSession:
        session = open_session(self._trt, self._build(model, self._target), self._target, gpu=self._gpu)
        session.fill(self._random)
        return session
