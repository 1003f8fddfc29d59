"""Sessions of TensorRT plans, to run and profile them: one code path for TensorRT 8.5 to 11 and TensorRT for RTX.

The bindings module is an argument (``tensorrt`` or ``tensorrt_rtx``). Only the tensor-name API is used, since all of
them have it. Enumerations are looked up by name, because their numbers differ between versions.
"""

from __future__ import annotations

import json
import math
import re
import weakref
from collections import defaultdict
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from halp_trt.device.faults import MeasurementError, RuntimeUnavailableError, UsageError
from halp_trt.device.gpu import Gpu, make_launch, open_gpu
from halp_trt.device.loop import Launch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["SURFACE", "PlanSession", "make_log", "onnx_name", "open_plan"]

SURFACE = tuple(
    """DataType.BOOL DataType.FLOAT DataType.HALF DataType.INT32 DataType.INT8 ICudaEngine.create_engine_inspector
    ICudaEngine.create_execution_context ICudaEngine.get_tensor_components_per_element ICudaEngine.get_tensor_dtype
    ICudaEngine.get_tensor_mode ICudaEngine.get_tensor_name ICudaEngine.get_tensor_shape
    ICudaEngine.get_tensor_vectorized_dim ICudaEngine.num_io_tensors EngineInspector.get_engine_information
    IExecutionContext.execute_async_v3 IExecutionContext.profiler IExecutionContext.set_tensor_address ILogger.Severity
    IProfiler.report_layer_time LayerInformationFormat.JSON Runtime.deserialize_cuda_engine
    TensorIOMode.INPUT""".split()  # noqa: SIM905 (many names are easier to read as one text)
)
"""Every name of the bindings that a session calls, in all versions, for the test that they exist."""

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "FLOAT": "float32",
        "HALF": "float16",
        "BF16": "bfloat16",
        "INT8": "int8",
        "UINT8": "uint8",
        "INT32": "int32",
        "INT64": "int64",
        "BOOL": "bool",
    }
)
"""Element types by TensorRT's names; ``trt.nptype`` of 8.5.2 fails with numpy 1.24 and newer."""


class _Buffer(NamedTuple):
    """The device memory of one input or output.

    Attributes:
        address: its address on the device.
        shape, dtype: shape and type of the tensor in numpy.
        num_elements: number of elements, padding of its format included.
        is_linear: True if its memory layout is numpy's.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    num_elements: int
    is_linear: bool


class PlanSession:
    """A plan ready to run, a ``halp_trt.runtimes.Session``.

    Attributes:
        input_shapes: name and shape of every input.
        output_names: names of the outputs.
    """

    def __init__(self, trt: ModuleType, loaded: tuple[Any, Any, Any], gpu: Gpu) -> None:
        """Takes ``loaded``, a tuple ``(logger, runtime, engine)``, and keeps it alive as long as the session."""
        self._trt, self._loaded, self._gpu = trt, loaded, gpu
        self._engine = loaded[-1]
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeUnavailableError(
                f"TensorRT cannot make room to run this plan ({loaded[0].last()}); free some of the GPU's memory"
            )
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._buffers = {name: self._allocate(name) for name in names}
        self._point(self._context)
        self.input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(
            {name: buffer.shape for name, buffer in self._buffers.items() if is_input[name]}
        )
        self.input_types: Mapping[str, str] = MappingProxyType(
            {name: buffer.dtype.name for name, buffer in self._buffers.items() if is_input[name]}
        )
        self.output_names = tuple(name for name in names if not is_input[name])

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for given inputs, each in its own type.

        Raises:
            UsageError: an input is missing, unknown or of another shape.
        """
        self._copy_in(inputs)
        self.enqueue()
        self._gpu.device.stream.wait()
        return {name: self._copy_out(name) for name in self.output_names}

    def bind(self, inputs: Mapping[str, Array]) -> Launch:
        """A launch of one execution on these inputs, as a CUDA graph if possible; its runs copy nothing.

        Raises:
            UsageError: as :meth:`run`.
        """
        self._copy_in(inputs)
        return make_launch(self._gpu.device, self.enqueue, num_executions=1)

    def enqueue(self) -> None:
        """Puts one execution on the GPU's stream and does not wait for it.

        Raises:
            MeasurementError: TensorRT refuses the execution.
        """
        if not self._context.execute_async_v3(self._gpu.device.stream.handle):
            raise MeasurementError(f"TensorRT cannot execute the plan: {self._loaded[0].last()}; build it again")

    def fill(self, random: np.random.Generator) -> None:
        """Fills every input with random numbers within ±1, whatever its format; whole numbers become 0."""
        for name in self.input_shapes:
            buffer = self._buffers[name]
            is_whole = np.issubdtype(buffer.dtype, np.integer) and buffer.dtype != np.int8
            values = random.uniform(-1, 1, buffer.num_elements)
            scaled = values * (0 if is_whole else 127 if buffer.dtype == np.int8 else 1)
            self._gpu.cuda.copy_in(buffer.address, scaled.astype(buffer.dtype))

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """The median microseconds of every layer over ``num_runs`` runs, after two untimed ones.

        Layers are named by their ONNX nodes if the plan was built with detailed profiling verbosity. TensorRT puts
        events between layers while it profiles, so their sum differs from the engine's latency.

        Raises:
            UsageError: as :meth:`run`.
        """
        self._copy_in(inputs)
        times = _make_profiler(self._trt)
        context = self._engine.create_execution_context()  # one of its own: a profiler makes executions wait
        self._point(context)
        context.profiler = times
        for _ in range(num_runs + 2):
            context.execute_async_v3(self._gpu.device.stream.handle)
            self._gpu.device.stream.wait()
        names = self._layer_names()
        medians_us: dict[str, float] = {}
        for layer, samples in times.samples_us.items():
            name = names.get(layer, layer)
            medians_us[f"{name} ({layer})" if name in medians_us else name] = float(np.median(samples[-num_runs:]))
        return medians_us

    # ---- memory

    def _allocate(self, name: str) -> _Buffer:
        """New memory for an input or output, freed with this session.

        Raises:
            UsageError: the tensor has no fixed shape.
        """
        shape = tuple(int(size) for size in self._engine.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise UsageError(f"tensor {name!r} of the plan has no fixed shape {shape}; export with a fixed input shape")
        padded, lanes = list(shape), int(self._engine.get_tensor_components_per_element(name))
        axis = int(self._engine.get_tensor_vectorized_dim(name))
        if axis >= 0 and lanes > 1:
            padded[axis] = -(-padded[axis] // lanes) * lanes
        dtype = self._dtype(name)
        address = self._gpu.cuda.malloc(max(1, math.prod(padded)) * dtype.itemsize)
        weakref.finalize(self, self._gpu.cuda.free, address)
        return _Buffer(
            address=address,
            shape=shape,
            dtype=dtype,
            num_elements=max(1, math.prod(padded)),
            is_linear=axis < 0 or lanes <= 1,
        )

    def _dtype(self, name: str) -> np.dtype[Any]:
        """The numpy type of an input or output.

        Raises:
            UsageError: numpy lacks the type.
        """
        kind = self._engine.get_tensor_dtype(name)
        for own, theirs in _TYPES.items():
            if getattr(self._trt.DataType, own, None) == kind:
                if own == "BF16":
                    import ml_dtypes  # noqa: F401  # teaches numpy the type

                return np.dtype(theirs)
        raise UsageError(
            f"tensor {name!r} of the plan is of type {kind}, which numpy lacks; cast it inside the network"
        )

    def _point(self, context: Any) -> None:
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.address)

    def _copy_in(self, inputs: Mapping[str, Array]) -> None:
        shapes = {name: tuple(np.shape(value)) for name, value in inputs.items()}
        if shapes != dict(self.input_shapes):
            raise UsageError(f"the engine refuses its inputs {shapes}; feed {dict(self.input_shapes)}")
        for name, value in inputs.items():
            buffer = self._linear(name)
            self._gpu.cuda.copy_in(buffer.address, np.ascontiguousarray(value, dtype=buffer.dtype))

    def _copy_out(self, name: str) -> Array:
        buffer = self._linear(name)
        values = np.empty(buffer.shape, buffer.dtype)
        self._gpu.cuda.copy_out(values, buffer.address)
        return values

    def _linear(self, name: str) -> _Buffer:
        buffer = self._buffers[name]
        if not buffer.is_linear:
            raise UsageError(f"tensor {name!r} of the plan lies in a vector format; build it with linear inputs")
        return buffer

    # ---- names

    def inspect(self) -> dict[str, Any]:
        """The report of TensorRT's inspector on the plan; without detailed verbosity its layers are names alone."""
        inspector = self._engine.create_engine_inspector()
        try:
            report = json.loads(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))
        except ValueError:
            return {}
        return report if isinstance(report, dict) else {}

    def _layer_names(self) -> dict[str, str]:
        """The names of every layer's ONNX nodes, as far as the inspector tells."""
        layers = self.inspect().get("Layers", [])
        detailed = [layer for layer in layers if isinstance(layer, dict)]
        names = {layer["Name"]: onnx_name(layer["Name"], layer.get("Metadata", "")) for layer in detailed}
        names.update({layer: onnx_name(layer, "") for layer in layers if isinstance(layer, str)})
        return names


def open_plan(trt: ModuleType, engine: bytes, *, made_by: str, gpu: Gpu | None = None) -> PlanSession:
    """The session of a plan.

    Args:
        trt: the bindings.
        engine: the plan's bytes.
        made_by: runtime and version that it is for, in words.
        gpu: the GPU to run it on; None for this machine's.

    Raises:
        RuntimeUnavailableError: there is no GPU, or the plan is for another GPU or TensorRT.
        UsageError: an input has no fixed shape.
    """
    gpu = gpu or open_gpu()
    log = make_log(trt)
    runtime = trt.Runtime(log)
    plan = runtime.deserialize_cuda_engine(engine)
    if plan is None:
        here = gpu.cuda.device()
        raise RuntimeUnavailableError(
            f"{made_by} cannot load this plan on {here.name} (compute capability "
            f"{here.compute_capability}): {log.last()}; build it again on this machine, for this TensorRT"
        )
    return PlanSession(trt, (log, runtime, plan), gpu)


def onnx_name(layer: str, metadata: str) -> str:
    """The ONNX nodes of a layer, joined by ``+``: from its metadata, else from its own name."""
    nodes = re.findall(r"\[ONNX Layer: ([^\]]+)\]", metadata or "")
    return " + ".join(dict.fromkeys(nodes)) or re.sub(r"^PWN\((.*)\)$", r"\1", layer)


def make_log(trt: ModuleType) -> Any:
    """A logger that keeps errors instead of printing them."""

    class Log(trt.ILogger):  # type: ignore[misc,name-defined]  # the class comes from the bindings that are passed in
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Keeps an error; the library calls it."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def last(self) -> str:
            """The last error, in one line."""
            return self.errors[-1][:300] if self.errors else "it gives no reason"

    return Log()


def _make_profiler(trt: ModuleType) -> Any:
    """A profiler that keeps the times of every layer."""

    class Times(trt.IProfiler):  # type: ignore[misc,name-defined]  # the class comes from the bindings passed in
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.samples_us: defaultdict[str, list[float]] = defaultdict(list)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Keeps a layer's time; the library calls it after each execution."""
            self.samples_us[layer_name].append(ms * 1e3)

    return Times()
