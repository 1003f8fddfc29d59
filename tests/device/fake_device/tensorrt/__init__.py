"""TensorRT 8.5 as far as the builder and a session go, for a device with Python 3.8 and nothing else.

A plan holds its model's SHA-256; its latency follows from that. ``FAKE_FAULTS`` names a folder: a file there, named by
the SHA-256 of a model, says in one word what building it does (``crash``, ``hang``, ``memory``, ``refuse``), and with
a number behind it how many times. ``FAKE_STEPS`` names a file to which a line is added for every model that is built.
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

    def __init__(self, name):
        self.name, self.dtype, self.shape, self.allowed_formats = name, DataType.FLOAT, (1, 8, 4, 4), 63


class _Layer:
    type, name, num_inputs, num_outputs, precision = LayerType.CONVOLUTION, "layer", 1, 1, None

    def __init__(self, network):
        self._network = network

    def get_input(self, index):
        return self._network.inputs[index]

    def get_output(self, index):
        return self._network.outputs[index]


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
        network.inputs, network.outputs, network.layers = [_Tensor("x")], [_Tensor("y")], [_Layer(network)]
        return True

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
        return _PLAN + key.encode()


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
        return _Engine(plan[len(_PLAN) :].decode()) if plan.startswith(_PLAN) else None


class _Engine:
    num_io_tensors = 2

    def __init__(self, key):
        self.us = 5 + int(key[:3], 16) / 64  # sums of these are exact

    def get_tensor_name(self, index):
        return "xy"[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "x" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return (1, 8, 4, 4)

    def get_tensor_dtype(self, name):
        return DataType.FLOAT

    def get_tensor_components_per_element(self, name):
        return -1

    def get_tensor_vectorized_dim(self, name):
        return -1

    def create_engine_inspector(self):
        edge = {"Name": "x", "Datatype": "Half", "Format/Datatype": "Row major linear FP16 format"}
        layer = {"Name": "layer", "LayerType": "Convolution", "Inputs": [edge], "Outputs": [], "Metadata": ""}
        report = json.dumps({"Layers": [layer], "Bindings": ["x"]})
        return SimpleNamespace(get_engine_information=lambda kind: report)

    def create_execution_context(self):
        return _Context(self)


class _Context:
    def __init__(self, engine):
        self._engine = engine

    def set_tensor_address(self, name, address):
        return True

    def execute_async_v3(self, handle):
        return _CUDA.fake_work(handle, self._engine.us) == 0
