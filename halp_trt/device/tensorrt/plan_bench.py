"""Layers measured as plans: each is built, opened, filled with noise, and timed in turns with the same reference."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np

from halp_trt.device.gpu import Gpu, make_launch
from halp_trt.device.gpu_bench import GpuBench, Rounds, Taken
from halp_trt.device.plan_session import PlanSession, open_plan

__all__ = ["PlanBench"]


class PlanBench:
    """Measures layers by the protocol ``gpu-events``."""

    def __init__(
        self,
        trt: ModuleType,
        build: Callable[[bytes], bytes],
        gpu: Gpu,
        *,
        made_by: str,
        rounds: Rounds,
        reference: bytes,
    ) -> None:
        """Builds and opens the reference.

        Args:
            trt: the bindings.
            build: the plan of a model.
            gpu: the GPU to measure on.
            made_by: runtime and version of the plans, in words.
            rounds: protocol by which samples are taken.
            reference: the model that takes turns with every layer.
        """
        self._trt, self._build, self._gpu, self._made_by = trt, build, gpu, made_by
        self._random = np.random.default_rng(0)
        launch = make_launch(gpu.device, self._open(reference).enqueue)
        self._bench = GpuBench(gpu.device, rounds, launch)

    def measure(self, model: bytes) -> Taken:
        """The latency of a model of one layer.

        Raises:
            BuildError: TensorRT refuses it.
        """
        return self._bench.measure(self._open(model).enqueue)

    def _open(self, model: bytes) -> PlanSession:
        session = open_plan(self._trt, self._build(model), made_by=self._made_by, gpu=self._gpu)
        session.fill(self._random)
        return session
