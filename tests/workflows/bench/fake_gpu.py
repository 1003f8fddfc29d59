"""A GPU made of numbers as a runtime that fresh processes can import: plans execute in known time on a known clock.

The environment scripts what a test needs: ``FAKE_VERSION`` and ``FAKE_MODE`` are what the machine says of itself,
``FAKE_REFUSES`` is a text whose plans do not load.
"""

from __future__ import annotations

import itertools
import json
import os
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from halp_trt.device.gpu import Gpu, GpuDevice
from halp_trt.device.plan_session import open_plan
from halp_trt.errors import RuntimeUnavailableError
from halp_trt.runtimes import RUNTIMES, Entry, Session, Traits
from halp_trt.runtimes.gpu_timing import PROTOCOL
from halp_trt.specs import Target
from tests.device.fake_cuda import QUIET, FakeCuda
from tests.runtimes.fake_trt import FLOAT, INPUT, LAYER_US, OUTPUT, Kind, fake_trt, make_plan

NAME = "fake-gpu"
ENTRY = Entry(
    make=f"{__name__}:FakeGpu",
    traits=Traits(builds=("fp32", "fp16"), needs_gpu=True, can_use_gpu=True, is_ahead_of_time=True),
)


class FakeGpu:
    """A runtime whose plans are chains of negations, executed by a fake TensorRT on a fake GPU."""

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
        return plan(4)  # whatever the model: only what plans do with time matters here

    def load(self, engine: bytes, target: Target) -> Session:
        if os.environ.get("FAKE_REFUSES", "none of them").encode() in engine:
            raise RuntimeUnavailableError("the plan is for another TensorRT; build it again")
        return open_plan(fake_trt(self._cuda, Chain), engine, made_by=NAME, gpu=self._gpu)

    def prober(self, target: Target) -> Any:
        return nullcontext(self)


class Chain:
    """An engine that negates its input some times, and its own execution context.

    It needs no onnx, which would be half of what a fresh process does; the gate starts one for each number.
    """

    SHAPE = (2, 3)
    num_io_tensors = 2

    def __init__(self, cuda: FakeCuda, model: bytes, **_: Any) -> None:
        self._cuda, self._num_nodes = cuda, int(json.loads(model)["num_nodes"])
        self._addresses: dict[str, int] = {}

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> Kind:
        return INPUT if name == "x" else OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.SHAPE

    def get_tensor_dtype(self, name: str) -> Kind:
        return FLOAT

    def get_tensor_components_per_element(self, name: str) -> int:
        return -1

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return -1

    def create_execution_context(self) -> Chain:
        return self

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        self._cuda.streams[handle].kernel(LAYER_US * self._num_nodes, self._compute)
        return True

    def _compute(self) -> None:
        values = np.empty(self.SHAPE, np.float32)
        self._cuda.copy_out(values, self._addresses["x"])
        self._cuda.copy_in(self._addresses["y"], values * (-1) ** self._num_nodes)


def register() -> None:
    """Adds the runtime, as a user adds one."""
    RUNTIMES[NAME] = ENTRY


def plan(num_nodes: int, name: str = "g") -> bytes:
    """A plan of some nodes, each of which takes 25 us."""
    return make_plan(json.dumps({"name": name, "num_nodes": num_nodes}).encode())


def network(num_nodes: int, name: str = "g", shape: tuple[int, ...] = (2, 3)) -> bytes:
    """A network that negates its input some times."""
    import onnx

    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in "xy"]
    names = ["x", *(f"v{index}" for index in range(num_nodes - 1)), "y"]
    nodes = [onnx.helper.make_node("Neg", [a], [b], b) for a, b in itertools.pairwise(names)]
    graph = onnx.helper.make_graph(nodes, name, values[:1], values[1:])
    opsets = [onnx.helper.make_opsetid("", 17)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
