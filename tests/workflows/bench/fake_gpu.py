"""A GPU made of numbers as a runtime that fresh processes can import: plans execute in known time on a known clock.

The environment scripts what a test needs: ``FAKE_VERSION`` and ``FAKE_MODE`` are what the machine says of itself,
``FAKE_REFUSES`` is a text whose plans do not load.
"""

from __future__ import annotations

import itertools
import os
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from halp_trt.device.gpu import Gpu, GpuDevice
from halp_trt.errors import RuntimeUnavailableError
from halp_trt.runtimes import RUNTIMES, Entry, Session, Traits
from halp_trt.runtimes.gpu_timing import PROTOCOL
from halp_trt.runtimes.tensorrt.prober import open_session
from halp_trt.specs import Target
from tests.device.fake_cuda import QUIET, FakeCuda
from tests.runtimes.fake_trt import fake_trt, make_plan

NAME = "fake-gpu"
ENTRY = Entry(
    make=f"{__name__}:FakeGpu",
    traits=Traits(builds=("fp32", "fp16"), needs_gpu=True, can_use_gpu=True, is_ahead_of_time=True),
)


class FakeGpu:
    """A runtime whose plans are ONNX models, executed by a fake TensorRT on a fake GPU."""

    name, suffix = NAME, ".plan"

    def __init__(self) -> None:
        self._cuda = FakeCuda()
        self._gpu = Gpu(cuda=self._cuda, device=GpuDevice(self._cuda.stream(), QUIET, clock_ns=self._cuda.clock_ns))

    def target(self, precision: str, batch_size: int) -> Target:
        return Target(
            device="Fake V", compute_capability="7.0", runtime=NAME, precision=precision, batch_size=batch_size,
            runtime_version=os.environ.get("FAKE_VERSION", "8.5.2.2"), power_mode=os.environ.get("FAKE_MODE", ""),
            protocol=replace(PROTOCOL, num_samples=5, warmup_ms=1.0),
        )  # fmt: skip

    def build(self, model: bytes, target: Target) -> bytes:
        return plan(4)  # only references are built here; executing convolutions in numpy would take minutes

    def load(self, engine: bytes, target: Target) -> Session:
        if os.environ.get("FAKE_REFUSES", "none of them").encode() in engine:
            raise RuntimeUnavailableError("the plan is for another TensorRT; build it again")
        return open_session(fake_trt(self._cuda), engine, target, gpu=self._gpu)

    def prober(self, target: Target) -> Any:
        return nullcontext(self)


def register() -> None:
    """Adds the runtime, as a user adds one."""
    RUNTIMES[NAME] = ENTRY


def plan(num_nodes: int, name: str = "g") -> bytes:
    """A plan of some nodes, each of which takes 25 us."""
    return make_plan(network(num_nodes, name))


def network(num_nodes: int, name: str = "g", shape: tuple[int, ...] = (2, 3)) -> bytes:
    """A network that negates its input some times."""
    import onnx

    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in "xy"]
    names = ["x", *(f"v{index}" for index in range(num_nodes - 1)), "y"]
    nodes = [onnx.helper.make_node("Neg", [a], [b], b) for a, b in itertools.pairwise(names)]
    graph = onnx.helper.make_graph(nodes, name, values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
