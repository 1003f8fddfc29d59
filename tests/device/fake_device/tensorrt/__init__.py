"""TensorRT 8.5 as far as the builder and a session go, for a device with Python 3.8 and nothing else.

A plan holds the latency that follows from its model's weights, and names and types. ``FAKE_FAULTS`` names a folder: a
file there, named by the SHA-256 of a model, says in one word what building it does (``crash``, ``hang``, ``memory``,
``refuse``), and with a number behind it how many times. ``FAKE_STEPS`` names a file to which a line is added for every
model that is built.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import time
from enum import IntEnum
from types import SimpleNamespace

__version__ = "8.5.2.2"

_CUDA = ctypes.CDLL("libcudart.so")
_CUDA.fake_work.argtypes = (ctypes.c_void_p, ctypes.c_double)
_PLAN = b"fake plan\0"


def _enum(name, members):
    return IntEnum(name, members.split(), start=0)


BuilderFlag = _enum("BuilderFlag", "FP16 INT8 DEBUG GPU_FALLBACK REFIT TF32 OBEY_PRECISION_CONSTRAINTS SPARSE_WEIGHTS")
DataType = _enum("DataType", "FLOAT HALF INT8 INT32 BOOL")
LayerType = _enum(
    "LayerType", "CONVOLUTION FULLY_CONNECTED DECONVOLUTION DEQUANTIZE MATRIX_MULTIPLY SHUFFLE ELEMENTWISE"
)
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH EXPLICIT_PRECISION")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY NONE DETAILED")
TensorFormat = _enum("TensorFormat", "LINEAR CHW2 HWC8 CHW4 CHW16 CHW32")
TensorIOMode = _enum("TensorIOMode", "NONE INPUT OUTPUT")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE JSON")
DeviceType = _enum("DeviceType", "GPU DLA")


def init_libnvinfer_plugins(log, namespace):
    return True


class ILogger:
    Severity = _enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class IProfiler:
    pass


class _Tensor:
    is_shape_tensor = False

    def __init__(self, name, dtype, shape):
        self.name, self.dtype, self.shape, self.allowed_formats = name, dtype, shape, 63


class _Layer:
    num_inputs, num_outputs, precision = 1, 1, None

    def __init__(self, name, kind, read, written, us):
        self.name, self.type, self.read, self.written, self.us = name, kind, read, written, us

    def get_input(self, index):
        return self.read

    def get_output(self, index):
        return self.written


class INetworkDefinition:
    def __init__(self):
        self.inputs, self.outputs, self.layers, self.model = [], [], [], b""

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))
    num_layers = property(lambda self: len(self.layers))

    def __iter__(self):
        return iter(self.layers)

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]

    def get_layer(self, index):
        return self.layers[index]

    def get_flag(self, flag):
        return False


class _Error:
    def code(self):
        return SimpleNamespace(name="UNSUPPORTED_NODE")

    def desc(self):
        return "no importer for it"

    def node(self):
        return 0


class OnnxParser:
    def __init__(self, network, log):
        self._network, self.num_errors = network, 0

    def parse(self, model):
        network = self._network
        network.model = bytes(model)
        if _fault(network.model, "refuse"):
            self.num_errors = 1
            return False
        network.inputs, network.outputs, network.layers = parsed(network.model)
        return bool(network.outputs)

    def get_error(self, index):
        return _Error()


class _Timings:
    def __init__(self, data):
        self.known = set(json.loads(data)) if data else set()

    def combine(self, other, ignore_mismatch):
        self.known |= other.known
        return True

    def serialize(self):
        return json.dumps(sorted(self.known)).encode()


class IBuilderConfig:
    DLA_core = -1
    default_device_type = DeviceType.GPU
    num_optimization_profiles = 0

    def __init__(self):
        self._flags, self._timings = {BuilderFlag.TF32}, None

    def add_optimization_profile(self, profile):
        return 0

    def get_flag(self, flag):
        return flag in self._flags

    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def get_memory_pool_limit(self, pool):
        return 0

    def create_timing_cache(self, data):
        return _Timings(data)

    def set_timing_cache(self, timings, ignore_mismatch):
        self._timings = timings
        return True

    def get_timing_cache(self):
        return self._timings


class _Profile:
    def set_shape(self, name, least, usual, most):
        pass


class Builder:
    def __init__(self, log):
        pass

    def create_network(self, flags=0):
        return INetworkDefinition()

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        key = hashlib.sha256(network.model).hexdigest()
        if os.environ.get("FAKE_STEPS"):
            with open(os.environ["FAKE_STEPS"], "a") as steps:
                steps.write(key + "\n")
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        if _fault(network.model, "crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if _fault(network.model, "hang"):
            time.sleep(1e6)
        if _fault(network.model, "memory"):
            os.kill(os.getpid(), signal.SIGKILL)
        config.get_timing_cache().known.add(key)
        edges = [
            [[tensor.name, tensor.dtype.name, tensor.shape] for tensor in tensors]
            for tensors in (network.inputs, network.outputs)
        ]
        layers = [[layer.name, layer.read.dtype.name] for layer in network.layers]
        us = sum(layer.us for layer in network.layers)
        return _PLAN + json.dumps({"us": us, "inputs": edges[0], "outputs": edges[1], "layers": layers}).encode()


def _fault(model, word):
    """True if this model is to fail so, this time."""
    path = os.path.join(os.environ.get("FAKE_FAULTS", ""), hashlib.sha256(model).hexdigest())
    if not os.environ.get("FAKE_FAULTS") or not os.path.exists(path):
        return False
    with open(path) as file:
        found, _, times = file.read().partition(" ")
    if found != word or times == "0":
        return False
    if times:
        with open(path, "w") as file:
            file.write(f"{found} {int(times) - 1}")
    return True


class Runtime:
    def __init__(self, log):
        self._log = log

    def deserialize_cuda_engine(self, plan):
        return _Engine(json.loads(plan[len(_PLAN) :])) if plan.startswith(_PLAN) else None


class _Engine:
    def __init__(self, plan):
        self.us, self._layers = plan["us"], plan["layers"]
        self._inputs = [tensor[0] for tensor in plan["inputs"]]
        self._tensors = {name: (dtype, shape) for name, dtype, shape in plan["inputs"] + plan["outputs"]}
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return self._tensors[name][1]

    def get_tensor_dtype(self, name):
        return DataType[self._tensors[name][0]]

    def get_tensor_components_per_element(self, name):
        return -1

    def get_tensor_vectorized_dim(self, name):
        return -1

    def create_engine_inspector(self):
        words = {"FLOAT": "FP32", "HALF": "FP16"}
        layers = [
            {"Name": name, "LayerType": "Convolution", "Inputs": [{"Name": "in", "Format/Datatype": words[dtype]}]}
            for name, dtype in self._layers
        ]
        report = json.dumps({"Layers": layers, "Bindings": self._inputs})
        return SimpleNamespace(get_engine_information=lambda kind: report)

    def create_execution_context(self):
        return _Context(self)


class _Context:
    profiler = None

    def __init__(self, engine):
        self._engine = engine

    def set_tensor_address(self, name, address):
        return True

    def execute_async_v3(self, handle):
        if self.profiler is not None:
            for name, _ in self._engine._layers:
                self.profiler.report_layer_time(name, 0.003)
        return _CUDA.fake_work(handle, self._engine.us) == 0


# ---- ONNX as far as times and types go ------------------------------------------------------------------------------

_KINDS = {
    "Conv": LayerType.CONVOLUTION,
    "ConvTranspose": LayerType.DECONVOLUTION,
    "Gemm": LayerType.MATRIX_MULTIPLY,
    "MatMul": LayerType.MATRIX_MULTIPLY,
}
_DTYPES = {1: DataType.FLOAT, 10: DataType.HALF}


def parsed(model):
    """Inputs, outputs and layers of an ONNX model; a layer takes a microsecond and its weights' share of one."""
    (graph,) = [value for number, value in _fields(model) if number == 7]
    parts = {number: [value for found, value in _fields(graph) if found == number] for number in (1, 5, 11, 12)}
    weights = dict(map(_weight, parts[5]))
    values = {name: _Tensor(name, dtype, shape) for name, dtype, shape in map(_value, parts[11]) if name not in weights}
    inputs, layers = list(values.values()), []
    for node in parts[1]:
        texts = {
            number: [bytes(v).decode() for found, v in _fields(node) if found == number] for number in (1, 2, 3, 4)
        }
        read = next((values[name] for name in texts[1] if name in values), None)
        if read is None:
            continue
        us = 1 + sum(weights.get(name, (0, 0))[1] for name in texts[1]) // 64 / 16
        (operator,) = texts[4]
        dtype = _cast_to(node) if operator == "Cast" else read.dtype
        for name in texts[2]:
            values[name] = _Tensor(name, dtype, read.shape)
        kind = _KINDS.get(operator, LayerType.ELEMENTWISE)
        layers.append(_Layer((texts[3] or [operator])[0], kind, read, values[texts[2][0]], us))
    outputs = [_Tensor(name, dtype, shape) for name, dtype, shape in map(_value, parts[12])]
    return inputs, outputs, layers


def _fields(data):
    """Number and value of every field of a protobuf message."""
    data, at = memoryview(data), 0
    while at < len(data):
        key, at = _number(data, at)
        if key & 7 == 0:
            value, at = _number(data, at)
        else:
            size, at = _number(data, at) if key & 7 == 2 else (8 if key & 7 == 1 else 4, at)
            value, at = data[at : at + size], at + size
        yield key >> 3, value


def _number(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _weight(tensor):
    """Name of an initialiser, with its type and number of elements."""
    fields, count = list(_fields(tensor)), 1
    for number, value in fields:
        if number == 1:
            for size in [value] if isinstance(value, int) else list(_numbers(value)):
                count *= size
    name = next(bytes(value).decode() for number, value in fields if number == 8)
    return name, (next(value for number, value in fields if number == 2), count)


def _numbers(data):
    at = 0
    while at < len(data):
        value, at = _number(data, at)
        yield value


def _value(info):
    """Name, type and shape of an input or output."""
    fields = dict(_fields(info))
    tensor = dict(_fields(dict(_fields(fields[2]))[1]))
    shape = [dict(_fields(size)).get(1, -1) for number, size in _fields(tensor.get(2, b"")) if number == 1]
    return bytes(fields[1]).decode(), _DTYPES.get(tensor[1], DataType.INT32), shape


def _cast_to(node):
    """The type that a cast writes."""
    attributes = [dict(_fields(value)) for number, value in _fields(node) if number == 5]
    return next(_DTYPES[found[3]] for found in attributes if bytes(found[1]) == b"to")
