"""ONNX Runtime on the CPU: one thread, all of its optimisations."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from halp_trt.errors import BuildError, UsageError
from halp_trt.runtimes import DEFAULT_FOOTPRINT, Array, Unit
from halp_trt.runtimes.cpu.round_bench import ROUNDS, RoundBench, windows
from halp_trt.runtimes.cpu.settled_bench import processor_name
from halp_trt.runtimes.ort.kernels import executed_units, is_unit
from halp_trt.runtimes.ort.probe_network import Arena, ProbedLayer, ProfiledNetwork, probed_layer, profiler_charge
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.specs import Footprint, Measurement, Protocol, Target
from halp_trt.timing import pin_to_one_core

__all__ = ["build", "load", "name", "prober", "reference", "suffix", "target", "units"]

name = "onnxruntime"
suffix = ".onnx"

_ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
_NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL

_PRECISIONS = ("fp32", "fp16", "int8")
"""On most processors fp16 is computed in fp32 between casts: it shows accuracy, not speed."""


def target(precision: str, batch_size: int) -> Target:
    """This machine's processor.

    Raises:
        UsageError: a precision that its kernels do not have.
    """
    if precision not in _PRECISIONS:
        raise UsageError(
            f"onnxruntime on the CPU runs {', '.join(_PRECISIONS)}, not {precision!r}; choose fp32 or another runtime"
        )
    return Target(
        device=processor_name(),
        runtime=name,
        runtime_version=ort.__version__,
        precision=precision,
        batch_size=batch_size,
        protocol=Protocol(method=ROUNDS, num_samples=60),
    )


def build(model: bytes, target: Target) -> bytes:
    """The model itself, once ONNX Runtime has accepted it: it optimises when it loads, for the processor it is on.

    Raises:
        BuildError: it does not accept the model.
    """
    _open(target.protocol.num_threads, model, _ALL)
    return model


def load(engine: bytes, target: Target) -> CpuSession:
    """A session with all optimisations.

    Raises:
        BuildError: the bytes are no model that ONNX Runtime accepts.
    """
    return CpuSession(engine, num_threads=target.protocol.num_threads)


class CpuSession:
    """A network ready to run, as :class:`halp_trt.runtimes.Session` has it."""

    def __init__(self, model: bytes, *, num_threads: int, optimise: bool = True) -> None:
        self._model, self._num_threads, self._level = model, num_threads, _ALL if optimise else _NONE
        self._session = _open(num_threads, model, self._level)
        self.input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(
            {i.name: tuple(n if isinstance(n, int) else 1 for n in i.shape) for i in self._session.get_inputs()}
        )
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs for some inputs.

        Raises:
            UsageError: an input is missing, unknown or of another shape or type.
        """
        try:
            values = self._session.run(list(self.output_names), dict(inputs))
        except Exception as error:  # ONNX Runtime's own classes have no common root but this
            raise UsageError(
                f"the engine refuses its inputs: {_first_line(error)}; feed {dict(self.input_shapes)}"
            ) from error
        return dict(zip(self.output_names, values, strict=True))

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that is one execution; inputs and outputs lie in memory of their own, touched before."""
        kept = {key: np.array(value, order="C") for key, value in inputs.items()}
        kept |= {f"output {key}": value for key, value in self.run(inputs).items()}
        binding = self._session.io_binding()
        for key in inputs:
            _bind(binding.bind_input, key, kept[key], kept[key].shape)
        for key in self.output_names:
            _bind(binding.bind_output, key, kept[f"output {key}"], kept[f"output {key}"].shape)
        return _runner(self._session, binding, kept)

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Median kernel microseconds of every executed node over ``num_runs`` runs, after two untimed ones.

        Nodes without a name are called ``<operator>_<position>``. Profiling itself slows the network by 7 to 20 %.
        """
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._num_threads, self._level)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _session(self._model, options)
            for _ in range(num_runs + 2):
                session.run(list(self.output_names), dict(inputs))
            events = json.loads(Path(session.end_profiling()).read_bytes())
        samples: dict[str, list[float]] = defaultdict(list)
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                arguments = event["args"]
                node = event["name"].removesuffix("_kernel_time") or f"{arguments['op_name']}_{arguments['node_index']}"
                samples[node].append(float(event["dur"]))
        return {node: float(np.median(times[-num_runs:])) for node, times in samples.items()}


@contextmanager
def prober(target: Target) -> Iterator[CpuProber]:
    """Measures layers, with the calling thread kept on one core."""
    with pin_to_one_core():
        yield CpuProber(target)


def units(model: bytes, target: Target) -> tuple[Unit, ...]:
    """What ONNX Runtime executes of a model on this processor: the nodes of its optimised graph, in order.

    Raises:
        BuildError: it does not accept the model.
    """
    return executed_units(_optimised(model, target.protocol.num_threads), partial(_open, target.protocol.num_threads))


def reference(target: Target) -> Callable[[], None]:
    """One run of a small fixed network, by which a drift of the machine's speed shows.

    An inverted bottleneck and a 3x3 convolution, 64 channels at 28x28: pointwise, depthwise and full convolutions.
    """
    session = CpuSession(_reference_network(), num_threads=target.protocol.num_threads)
    return session.bind({name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()})


class CpuProber:
    """Measures layers with a ``RoundBench``, in probe networks of ONNX Runtime.

    Attributes:
        bench: what takes the time.
    """

    def __init__(self, target: Target) -> None:
        self._num_threads = target.protocol.num_threads
        self._open = partial(_open, self._num_threads)
        self._arena = Arena()
        self.bench = RoundBench(
            protocol=target.protocol,
            open_network=lambda layers, arena_bytes: ProfiledNetwork(
                layers, self._arena, self._open_profiled, arena_bytes=arena_bytes
            ),
            reference=reference(target),
            charge_us=profiler_charge(self._open_profiled),
        )

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in one probe, with a network of ``DEFAULT_FOOTPRINT`` around it.

        Raises:
            BuildError: ONNX Runtime refuses the probe.
            MeasurementError: its optimiser did not leave the layer recognisable.
        """
        return next(self.measure_all([probe], DEFAULT_FOOTPRINT))[0]

    def measure_all(self, probes: Iterable[bytes], footprint: Footprint) -> Iterator[list[Measurement]]:
        """Latencies of the layers in probes or of units, in order, a window at a time.

        Args:
            probes: models by ``make_probe``, or of units.
            footprint: memory of the network that the layers are part of.

        Raises:
            BuildError: ONNX Runtime refuses a probe.
            MeasurementError: its optimiser did not leave a layer recognisable.
        """
        for window in windows(map(self.layer, probes)):
            yield list(chain.from_iterable(self.bench.measure_all(window, footprint)))

    def layer(self, probe: bytes) -> ProbedLayer:
        """What is executed of a probe, optimised and without its edges, or of a unit, which is taken as it is."""
        if not is_unit(probe):
            probe = bytes(cut_to_layer(_optimised(probe, self._num_threads)).SerializeToString())
        return probed_layer(probe, self._open)

    def _open_profiled(self, model: bytes, prefix: str) -> ort.InferenceSession:
        options = _options(self._num_threads, _NONE)
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        return _session(model, options)


def _optimised(model: bytes, num_threads: int) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        options = _options(num_threads, _ALL)
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        _session(model, options)
        return onnx.load(options.optimized_model_filepath)


def _options(num_threads: int, level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(num_threads: int, model: bytes, level: ort.GraphOptimizationLevel = _NONE) -> ort.InferenceSession:
    return _session(model, _options(num_threads, level))


def _session(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no common root but this
        raise BuildError(f"ONNX Runtime refuses the model: {_first_line(error)}; check the node it names") from error


def _bind(bind: Callable[..., None], key: str, memory: Array, shape: tuple[int, ...]) -> None:
    bind(key, "cpu", 0, memory.dtype.type, shape, memory.ctypes.data)


def _runner(session: ort.InferenceSession, binding: ort.IOBinding, memory: object) -> Callable[[], None]:
    """One execution; it holds on to the memory that the binding only points to."""

    def run(_memory: object = memory) -> None:
        session.run_with_iobinding(binding)

    return run


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _reference_network() -> bytes:
    random = np.random.default_rng(1)
    weights, nodes, value = [], [], "input"
    for index, (outputs, inputs, size) in enumerate([(128, 64, 1), (128, 1, 3), (64, 128, 1), (64, 64, 3)]):
        scale = np.float32(1 / (inputs * size * size))
        weights.append(
            onnx.numpy_helper.from_array(
                random.standard_normal((outputs, inputs, size, size), np.float32) * scale, f"weight_{index}"
            )
        )
        written = "output" if index == 3 else f"value_{index}"
        attributes: dict[str, Any] = {
            "kernel_shape": [size, size],
            "pads": [size // 2] * 4,
            "group": 128 if inputs == 1 else 1,
        }
        nodes.append(onnx.helper.make_node("Conv", [value, f"weight_{index}"], [written], **attributes))
        value = written
    return _network(nodes, (1, 64, 28, 28), weights)


def _network(nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], weights: list[onnx.TensorProto]) -> bytes:
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in ("input", "output")]
    graph = onnx.helper.make_graph(nodes, "network", values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
