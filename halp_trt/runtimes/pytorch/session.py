"""A network as PyTorch runs it, and single layers measured the same way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import torch
from torch import fx

from halp_trt.device.gpu import GpuDevice, make_launch
from halp_trt.errors import MeasurementError, UsageError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import Array
from halp_trt.runtimes.cpu.settled_bench import ProcessorBench
from halp_trt.runtimes.gpu_timing import Bench
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.runtimes.pytorch.network import NODE, input_shapes, make_module, output_names
from halp_trt.specs import Measurement, Target
from halp_trt.timing import Device, Processor

__all__ = ["Style", "TorchProber", "TorchSession"]

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A way to run networks with PyTorch.

    Attributes:
        channels_last: whether pictures lie in memory with their channels last, as tensor cores want them.
        uses_graphs: whether a GPU is given CUDA graphs.
        is_compiled: whether ``torch.compile`` fuses the network first.
    """

    channels_last: bool = True
    uses_graphs: bool = True
    is_compiled: bool = False


class TorchSession:
    """A network ready to run, as :class:`halp_trt.runtimes.Session` has it.

    Attributes:
        input_shapes: name and shape of every input.
        output_names: names of the outputs.
    """

    def __init__(self, model: bytes, target: Target, style: Style, gpu: GpuDevice | None = None) -> None:
        """The network of an ONNX model, on a GPU's stream or on the processor.

        Raises:
            BuildError: an operator is not known.
        """
        self.input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(dict(input_shapes(model)))
        self.output_names = output_names(model)
        self._gpu, self._style, self._target = gpu, style, target
        self._device = torch.device("cpu" if gpu is None else "cuda")
        self._dtype = _DTYPES[target.precision]
        self._module = make_module(model).eval().requires_grad_(False)
        if style.channels_last:
            self._module = self._module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # PyTorch's types lack memory_format here
        self._module = self._module.to(self._device, self._dtype)
        self._call: Callable[..., Any] = torch.compile(self._module) if style.is_compiled else self._module

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs, as float32 where they are floating.

        Raises:
            UsageError: an input is missing, unknown or of another shape.
        """
        tensors = self._tensors(inputs)
        try:
            with self._around():
                results = self._call(*tensors)
        except RuntimeError as error:  # shapes inside the network that do not fit each other
            raise_if_stopped(error)
            raise UsageError(f"the engine fails: {brief(str(error))}; export the network again") from error
        if self._gpu is not None:
            self._gpu.stream.wait()
        return {
            name: (value.float() if value.is_floating_point() else value).cpu().numpy()
            for name, value in zip(self.output_names, results, strict=True)
        }

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """One execution on tensors that lie on the device: a launch on a GPU, a plain call on the processor.

        Raises:
            UsageError: as :meth:`run`.
        """
        enqueue = self.enqueuer(inputs)
        if self._gpu is None:
            return enqueue
        return make_launch(self._gpu, enqueue, num_executions=1)

    def enqueuer(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that is one execution on the processor, or starts one on the GPU.

        Raises:
            UsageError: as :meth:`run`.
        """
        tensors = self._tensors(inputs)

        def enqueue() -> None:
            with self._around():
                self._call(*tensors)

        return enqueue

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Median microseconds of the calls that every ONNX node became, over ``num_runs`` runs after two untimed ones.

        Calls are timed one by one, uncompiled.
        """
        tensors = self._tensors(inputs)
        device: Device = Processor() if self._gpu is None else self._gpu
        samples: dict[str, list[float]] = defaultdict(list)
        for _ in range(num_runs + 2):
            with self._around():
                timed = _Timed(self._module, device)
                timed.run(*tensors)
            for name, total_us in timed.read().items():
                samples[name].append(total_us)
        return {name: float(np.median(taken[-num_runs:])) for name, taken in samples.items()}

    def _tensors(self, inputs: Mapping[str, Array]) -> list[torch.Tensor]:
        found = {name: tuple(np.shape(value)) for name, value in inputs.items()}
        if found != dict(self.input_shapes):
            raise UsageError(f"the engine refuses its inputs {found}; feed {dict(self.input_shapes)}")
        tensors = [self._placed(np.array(inputs[name], order="C")) for name in self.input_shapes]
        if self._gpu is not None:
            torch.cuda.synchronize()  # weights and inputs were put there by another stream
        return tensors

    def _placed(self, value: Array) -> torch.Tensor:
        tensor = torch.from_numpy(value)
        tensor = tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
        is_picture = self._style.channels_last and tensor.dim() == 4
        return tensor.contiguous(memory_format=torch.channels_last) if is_picture else tensor

    @contextmanager
    def _around(self) -> Iterator[None]:
        """Turns gradients off, sets the target's threads, or its stream and TF32, and restores all afterwards."""
        if self._gpu is None:
            threads, wanted = torch.get_num_threads(), self._target.protocol.num_threads
            with torch.inference_mode():
                torch.set_num_threads(wanted)
                try:
                    yield
                finally:
                    torch.set_num_threads(threads)
            return
        allows, matmul = self._target.precision == "tf32", torch.backends.cuda.matmul
        before = matmul.allow_tf32
        stream: Any = self._gpu.stream
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=allows)
        with torch.inference_mode(), torch.cuda.stream(stream.stream), flags:
            matmul.allow_tf32 = allows
            try:
                yield
            finally:
                matmul.allow_tf32 = before


class _Timed(fx.Interpreter):
    """Runs a module call by call and times every one."""

    def __init__(self, module: fx.GraphModule, device: Device) -> None:
        super().__init__(module)
        self._device, self._name = device, ""
        self._marks: list[tuple[str, Any]] = []

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node of the graph."""
        self._name = str(n.meta.get(NODE, ""))
        return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Times one call of a function."""
        return self._time(lambda: super(_Timed, self).call_function(target, args, kwargs))

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Times one call of a tensor's method."""
        return self._time(lambda: super(_Timed, self).call_method(target, args, kwargs))

    def read(self) -> dict[str, float]:
        """Microseconds of every ONNX node, in order."""
        totals: dict[str, float] = defaultdict(float)
        for name, mark in self._marks:
            totals[name] += self._device.read(mark).elapsed_us
        return totals

    def _time(self, call: Callable[[], Any]) -> Any:
        results: list[Any] = []
        self._marks.append((self._name, self._device.start(lambda: results.append(call()))))
        return results[0]


class TorchProber:
    """Measures layers in turns with a reference, a 3x3 convolution: on a GPU by its events, else by the processor."""

    def __init__(self, target: Target, style: Style, gpu: GpuDevice | None = None) -> None:
        self._target, self._style, self._gpu = target, style, gpu
        self._random = np.random.default_rng(0)
        reference = self._bound(_network("Conv", (1, 128, 28, 28), (128, 128, 3, 3)))
        self._bench: Bench | ProcessorBench
        if gpu is not None:
            self._bench = Bench(device=gpu, protocol=target.protocol, reference=make_launch(gpu, reference))
        else:
            empty = self._bound(_network("Identity", (1,)))
            self._bench = ProcessorBench(protocol=target.protocol, reference=reference, empty=empty)

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe, with everything that its epilogue became.

        Raises:
            BuildError: an operator has no counterpart in PyTorch.
            MeasurementError: the bytes are no probe.
        """
        try:
            model = onnx.load_from_string(probe)
        except Exception as error:  # protobuf's own errors have no common root
            raise_if_stopped(error)
            raise MeasurementError(f"the probe is no ONNX model ({error}); make it with make_probe") from error
        return self._bench.measure(self._bound(cut_to_layer(model).SerializeToString()))

    def _bound(self, model: bytes) -> Callable[[], None]:
        session = TorchSession(model, self._target, self._style, self._gpu)
        kinds = {value.name: value.type.tensor_type.elem_type for value in onnx.load_from_string(model).graph.input}
        inputs: dict[str, Array] = {}
        for name, shape in session.input_shapes.items():
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kinds[name])
            is_float = np.issubdtype(dtype, np.floating)
            inputs[name] = self._random.standard_normal(shape, np.float32) if is_float else np.zeros(shape, dtype)
        return session.enqueuer(inputs)


def _network(operator: str, shape: tuple[int, ...], kernel: tuple[int, ...] = ()) -> bytes:
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in "xy"]
    weights = []
    attributes: dict[str, Any] = {}
    if kernel:
        numbers = np.random.default_rng(1).standard_normal(kernel, np.float32)
        weights, attributes = [onnx.numpy_helper.from_array(numbers, "weight")], {"pads": [1] * 4}
    node = onnx.helper.make_node(operator, ["x", *(weight.name for weight in weights)], ["y"], operator, **attributes)
    graph = onnx.helper.make_graph([node], operator, values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
