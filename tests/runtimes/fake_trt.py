"""TensorRT bindings made of numpy: a plan is an ONNX model, executed when the fake GPU gets to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.device.fake_cuda import FakeCuda

LAYER_US = 25.0
PLAN = b"fake plan\0"


class Kind:
    """A member of an enumeration, as pybind11 makes them."""

    def __init__(self, name: str) -> None:
        self.name = name


FLOAT, HALF, INT32, INT8, BOOL = (Kind(name) for name in ("FLOAT", "HALF", "INT32", "INT8", "BOOL"))
KINDS = {1: FLOAT, 10: HALF, 6: INT32, 3: INT8, 9: BOOL}
INPUT, OUTPUT = Kind("INPUT"), Kind("OUTPUT")
TYPES = {FLOAT: np.float32, HALF: np.float16, INT32: np.int32, INT8: np.int8, BOOL: np.bool_}


class ILogger:
    Severity = SimpleNamespace(ERROR="error", INTERNAL_ERROR="internal", INFO="info")


class IProfiler:
    pass


def make_plan(model: bytes, *, lanes: int = 0, detailed: bool = True) -> bytes:
    """A plan; with ``lanes`` its inputs and outputs lie in a vector format along axis 1."""
    return PLAN + json.dumps({"lanes": lanes, "detailed": detailed}).encode() + b"\0" + model


def fake_trt(cuda: FakeCuda, load: Callable[..., Any] | None = None) -> Any:
    """The bindings module; ``load`` makes an engine of the GPU, a plan's model and its options, :class:`Engine` if not.

    The import of onnx waits for an :class:`Engine`: fresh processes that need none start in half the time.
    """

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, engine: bytes) -> Any:
            if not engine.startswith(PLAN):
                self.log.log("info", "Loading")
                self.log.log("error", "the plan was made  by another version\n")
                return None
            options, _, model = engine.removeprefix(PLAN).partition(b"\0")
            return (load or Engine)(cuda, model, **json.loads(options))

    return SimpleNamespace(
        ILogger=ILogger,
        IProfiler=IProfiler,
        Runtime=Runtime,
        DataType=SimpleNamespace(FLOAT=FLOAT, HALF=HALF, INT32=INT32, INT8=INT8, BOOL=BOOL),
        TensorIOMode=SimpleNamespace(INPUT=INPUT, OUTPUT=OUTPUT),
        LayerInformationFormat=SimpleNamespace(JSON="json"),
    )


class Engine:
    def __init__(self, cuda: FakeCuda, model: bytes, *, lanes: int, detailed: bool) -> None:
        import onnx

        self.cuda, self.lanes, self.detailed = cuda, lanes, detailed
        self.model = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
        graph = self.model.graph
        inferred = {value.name: value for value in graph.value_info}
        self.outputs = {value.name: inferred.get(value.name, value) for value in graph.output}
        self.tensors = {value.name: value for value in graph.input} | self.outputs
        self.num_io_tensors = len(self.tensors)
        self.out_of_memory = False

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Kind:
        return OUTPUT if name in self.outputs else INPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(d.dim_value if d.dim_value else -1 for d in self.tensors[name].type.tensor_type.shape.dim)

    def get_tensor_dtype(self, name: str) -> Kind:
        return KINDS.get(self.tensors[name].type.tensor_type.elem_type, Kind("FP8"))

    def get_tensor_components_per_element(self, name: str) -> int:
        return self.lanes or -1

    def get_tensor_vectorized_dim(self, name: str) -> int:
        return 1 if self.lanes else -1

    def create_execution_context(self) -> Context:
        return Context(self)

    def create_engine_inspector(self) -> Any:
        nodes = self.model.graph.node
        layers: list[Any] = [f"kernel {index}" for index in range(len(nodes))]
        if self.detailed:
            layers = [
                {"Name": f"kernel {index}", "Metadata": f"[ONNX Layer: {node.name}]\x1e[ONNX Layer: {node.name}_act]"}
                for index, node in enumerate(nodes)
            ]
        return SimpleNamespace(get_engine_information=lambda kind: json.dumps({"Layers": layers}))


class Context:
    def __init__(self, engine: Engine) -> None:
        from onnx.reference import ReferenceEvaluator

        self.engine, self.profiler, self.addresses = engine, None, {}
        self.evaluator = ReferenceEvaluator(engine.model)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle: int) -> bool:
        assert set(self.addresses) == set(self.engine.tensors), "a tensor has no address"
        num_layers = len(self.engine.model.graph.node)
        self.engine.cuda.streams[handle].kernel(LAYER_US * num_layers, self.compute)
        if self.profiler is not None:
            for index in range(num_layers):
                self.profiler.report_layer_time(f"kernel {index}", LAYER_US * (index + 1) / 1e3)
        return True

    def compute(self) -> None:
        """Reads the inputs from the fake GPU's memory and writes the outputs there."""
        if self.engine.lanes:
            return  # what lies in a vector format is timed only
        inputs = {name: self.read(name) for name in self.engine.tensors if name not in self.engine.outputs}
        for name, values in zip(self.engine.outputs, self.evaluator.run(None, inputs), strict=True):
            self.engine.cuda.copy_in(self.addresses[name], np.ascontiguousarray(values))

    def read(self, name: str) -> np.ndarray:
        values = np.empty(self.engine.get_tensor_shape(name), TYPES[self.engine.get_tensor_dtype(name)])
        self.engine.cuda.copy_out(values, self.addresses[name])
        return values
