"""A TensorRT that parses and pretends to build, with the members of a real version and no others.

Polygraphy builds with it as with the real one: whatever it calls and a version lacks fails here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType
from typing import Any

import onnx

from halp_trt.graphs.precision import compute_types
from tests.runtimes.bindings import written_surface

_LAYERS = {
    "Conv": "CONVOLUTION",
    "ConvTranspose": "DECONVOLUTION",
    "Gemm": "MATRIX_MULTIPLY",
    "MatMul": "MATRIX_MULTIPLY",
    "DequantizeLinear": "DEQUANTIZE",
    "Reshape": "SHUFFLE",
    "Flatten": "SHUFFLE",
}
_DTYPES = {1: "FLOAT", 3: "INT8", 10: "HALF", 16: "BF16"}
_FULL_VERSIONS = {"8.5": "8.5.2.2", "8.6": "8.6.1", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}


class Tensor:
    def __init__(self, name: str, dtype: object, shape: tuple[int, ...]) -> None:
        self.name, self.dtype, self.shape, self.allowed_formats = name, dtype, shape, (1 << 13) - 1

    is_shape_tensor = False


class Layer:
    def __init__(self, name: str, kind: object, sources: list[Tensor], results: list[Tensor]) -> None:
        self.name, self.type, self._sources, self._results, self.precision = name, kind, sources, results, None

    num_inputs = property(lambda self: len(self._sources))
    num_outputs = property(lambda self: len(self._results))
    precision_is_set = property(lambda self: self.precision is not None)

    def get_input(self, index: int) -> Tensor:
        return self._sources[index]

    def get_output(self, index: int) -> Tensor:
        return self._results[index]


class Network:
    def __init__(self) -> None:
        self._layers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._flags: list[str] = []

    num_layers = property(lambda self: len(self._layers))
    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._layers)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    def get_layer(self, index: int) -> Any:
        return self._layers[index]

    def get_input(self, index: int) -> Any:
        return self._inputs[index]

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class TimingCache:
    """Names of timed layers; what another GPU timed is refused."""

    def __init__(self, entries: set[str], *, is_foreign: bool = False) -> None:
        self._entries, self._is_foreign = entries, is_foreign

    def combine(self, other: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch, "timings of another GPU or version would be taken for this one's"
        if other._is_foreign:
            return False
        self._entries |= other._entries
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self._entries)).encode()


class Config:
    def __init__(self, trt: Any) -> None:
        self._trt, self._flags, self._pools, self._cache, self._profiles = trt, {"TF32"}, {}, None, []

    DLA_core = -1
    default_device_type = 0
    num_optimization_profiles = property(lambda self: len(self._profiles))

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    def get_memory_pool_limit(self, pool: Any) -> int:
        return int(self._pools.get(pool.name, 0))

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, num_bytes: int) -> None:
        self._pools[pool.name] = num_bytes

    def create_timing_cache(self, data: bytes) -> Any:
        if data.startswith(b"damaged"):
            return None
        if data.startswith(b"another GPU"):
            return self._trt.ITimingCache({"foreign"}, is_foreign=True)
        return self._trt.ITimingCache(set(json.loads(data)) if data else set())

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if not cache._is_foreign:
            self._cache = cache
        return not cache._is_foreign

    def get_timing_cache(self) -> Any:
        return self._cache


class Profile:
    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        assert tuple(least) == tuple(usual) == tuple(most), "networks have fixed shapes"


class Builder:
    def __init__(self, log: Any) -> None:
        self._log = log

    def create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile()

    def create_network(self, flags: int = 0) -> Any:
        network = self._trt.INetworkDefinition()
        network._flags = [flag.name for flag in self._trt.NetworkDefinitionCreationFlag if flags & 1 << flag]
        return network

    def create_builder_config(self) -> Any:
        return self._trt.IBuilderConfig(self._trt)

    def build_serialized_network(self, network: Any, config: Any) -> bytes:
        if config._cache is not None:
            config._cache._entries |= {f"{layer.name} {layer.type.name}" for layer in network._layers}
        monitor = vars(config).get("progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building engine", None, 2)
            monitor.phase_start("Inner", "Building engine", 1)
            monitor.step_complete("Inner", 0)
            monitor.phase_finish("Inner")
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        settings = {name: str(value) for name, value in vars(config).items() if not name.startswith("_")}
        plan = {
            "network": network._flags,
            "flags": sorted(config._flags),
            "pools": config._pools,
            "settings": settings,
            "precisions": {
                layer.name: layer.precision.name for layer in network._layers if layer.precision is not None
            },
        }
        return json.dumps(plan).encode()


class Parser:
    def __init__(self, network: Any, log: Any) -> None:
        self._network, self._errors = network, []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, data: bytes) -> bool:
        trt, model = self._trt, onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
        for index, node in enumerate(model.graph.node):
            if node.op_type == "Det":
                error = trt.ParserError()
                error._node = index, node
                self._errors.append(error)
                return False
        tensors: dict[str, Any] = {}
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            kind = getattr(trt.DataType, _DTYPES.get(value.type.tensor_type.elem_type, "BOOL"))
            shape = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
            tensors[value.name] = trt.ITensor(value.name, kind, shape)
        for node in model.graph.node:
            kind = getattr(trt.LayerType, _LAYERS.get(node.op_type, "ELEMENTWISE"))
            sources = [tensors[name] for name in node.input if name in tensors]
            results = [tensors[name] for name in node.output if name in tensors]
            self._network._layers.append(trt.ILayer(node.name, kind, sources, results))
        self._network._inputs = [tensors[value.name] for value in model.graph.input]
        self._network._outputs = [tensors[value.name] for value in model.graph.output]
        assert compute_types(model)
        return True


class ParserError:
    def code(self) -> Any:
        return IntEnum("ErrorCode", ["UNSUPPORTED_NODE"])(1)

    def desc(self) -> str:
        return "no importer\nfor it"

    def node(self) -> int:
        return self._node[0]

    def node_name(self) -> str:
        return self._node[1].name

    def node_operator(self) -> str:
        return self._node[1].op_type


class Logger:
    pass


class Monitor:
    pass


_CLASSES = {
    "Builder": Builder,
    "IBuilderConfig": Config,
    "ILayer": Layer,
    "ILogger": Logger,
    "INetworkDefinition": Network,
    "IOptimizationProfile": Profile,
    "IProgressMonitor": Monitor,
    "ITensor": Tensor,
    "ITimingCache": TimingCache,
    "OnnxParser": Parser,
    "ParserError": ParserError,
}
_ENUMS = """BuilderFlag DataType DeviceType HardwareCompatibilityLevel LayerType MemoryPoolType
    NetworkDefinitionCreationFlag ProfilingVerbosity TensorFormat""".split()  # noqa: SIM905 (many names are easier to read as one text)


def fake_tensorrt(version: str) -> Any:
    """A module with the surface of a version of TensorRT as it is written down."""
    surface = written_surface(version)
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = _FULL_VERSIONS[version]
    for name in _ENUMS:
        if name in surface:
            members = [member for member in surface[name] if member not in ("name", "value")]
            setattr(trt, name, IntEnum(name, members, start=0))
    for name, whole in _CLASSES.items():
        if name in surface:
            setattr(trt, name, _limited(name, whole, set(surface[name]), trt))
    trt.init_libnvinfer_plugins = lambda log, namespace: True  # a function: surfaces have classes alone
    trt.ILogger.Severity = IntEnum("Severity", surface["ILogger.Severity"])
    return trt


def _limited(owner: str, whole: type, allowed: set[str], trt: Any) -> type:
    """The class without the members that the version lacks; like the real ones it takes no others either."""

    def set_member(self: Any, name: str, value: object) -> None:
        if not name.startswith("_") and name not in allowed:
            if name == "precision" and value is None:
                return
            raise AttributeError(f"{owner} has no {name}")
        object.__setattr__(self, name, value)

    names = {name: object() for name in allowed if name not in vars(whole)}  # there, and never looked at
    kept = {name: value for name, value in vars(whole).items() if name.startswith("_") or name in allowed}
    kept.pop("__dict__", None)
    kept.pop("__weakref__", None)
    free = owner in ("ILogger", "IProgressMonitor")  # Python classes derive from these
    extra = {"_trt": trt} if free else {"_trt": trt, "__setattr__": set_member}
    return type(owner, (), {**names, **kept, **extra, **({"precision": None} if owner == "ILayer" else {})})
