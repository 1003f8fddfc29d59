"""ONNX Runtime on the CPU: one thread, all of its optimisations."""

from __future__ import annotations

import json
import math
import mmap
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from halp_trt.errors import BuildError, MeasurementError, UsageError
from halp_trt.runtimes import DEFAULT_FOOTPRINT, Array, Unit
from halp_trt.runtimes.blocked_edges import cut_to_layer
from halp_trt.runtimes.executed import executed_units, is_unit, overwritten_input
from halp_trt.runtimes.processor_bench import ROUNDS, RoundBench, Seat, batches, processor_name
from halp_trt.specs import Measurement, Protocol, Target
from halp_trt.timing import pin_to_one_core

__all__ = ["build", "load", "name", "prober", "reference", "suffix", "target", "units"]

name = "onnxruntime"
suffix = ".onnx"

_ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
_NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
_TYPES: Mapping[str, type[np.generic]] = {
    f"tensor({name})": kind
    for name, kind in {
        "float": np.float32, "float16": np.float16, "int64": np.int64, "int32": np.int32, "int8": np.int8,
        "uint8": np.uint8, "bool": np.bool_,
    }.items()
}  # fmt: skip
_SMALL = (1, 8, 14, 14)
"""Shape of the operator by which the cost of a call is weighed."""

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
    """Measures layers with a ``RoundBench``.

    All layers read and write the same buffers, as in a network's arena. Before a layer runs, its input is written, and
    as much of its output as the layer before it may have read: with that and the other layers' weights between two runs
    of it, its memory is as near or far as inside a network.
    """

    def __init__(self, target: Target) -> None:
        self._protocol = target.protocol
        self._random = np.random.default_rng(0)
        self._arena = [_memory(0), _memory(0)]
        self.bench = RoundBench(
            protocol=target.protocol,
            reference=reference(target),
            settle=self._bind_whole(_chain(1, (1,))),
            chains=(self._bind_whole(_chain(1, _SMALL)), self._bind_whole(_chain(2, _SMALL))),
        )

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in one probe, with a network of ``DEFAULT_FOOTPRINT`` bytes around it.

        Raises:
            BuildError: ONNX Runtime refuses the probe.
            MeasurementError: its optimiser did not leave the layer recognisable.
        """
        return next(self.measure_all([probe], DEFAULT_FOOTPRINT))

    def measure_all(self, probes: Iterable[bytes], footprint_bytes: int) -> Iterator[Measurement]:
        """Latencies of the layers in probes or of units, in order, a batch at a time.

        Args:
            probes: models by ``make_probe``, or of units.
            footprint_bytes: memory that a network touches between two runs of a layer.

        Raises:
            BuildError: ONNX Runtime refuses a probe.
            MeasurementError: its optimiser did not leave a layer recognisable.
        """
        for batch in batches(map(self.seat, probes)):
            yield from self.bench.measure(batch, footprint_bytes)

    def seat(self, probe: bytes) -> Seat:
        """The layer in a probe, or a unit, ready to take part in rounds."""
        return self._seat(self._layer(probe))

    def _layer(self, probe: bytes) -> bytes:
        """The nodes to be run, optimised: those of a unit as they are, those of a probe without its edges."""
        if is_unit(probe):
            return probe
        return bytes(cut_to_layer(_optimised(probe, self._protocol.num_threads)).SerializeToString())

    def _bind_whole(self, model: bytes) -> Callable[[], None]:
        session = CpuSession(model, num_threads=self._protocol.num_threads)
        return session.bind({key: self._fill(shape, np.float32) for key, shape in session.input_shapes.items()})

    def _seat(self, layer: bytes) -> Seat:
        """The layer's inputs in one buffer that all layers share, its outputs in the other.

        What an arena lets a kernel overwrite is overwritten: a residual is added where it stands.
        """
        session = _open(self._protocol.num_threads, layer)
        model = onnx.load_from_string(layer)
        own = {
            value.name: self._fill(tuple(value.shape), _TYPES.get(value.type, np.float32))
            for value in session.get_inputs()
        }
        try:
            values = session.run(None, own)
        except Exception as error:
            raise MeasurementError(
                f"ONNX Runtime cannot run the probe: {_first_line(error)}; please report it"
            ) from error
        outputs = dict(zip([output.name for output in session.get_outputs()], values, strict=True))
        overwritten = overwritten_input(model)
        places = self._lay_out(0, {key: value for key, value in own.items() if key != overwritten})
        places |= self._lay_out(1, outputs)
        if overwritten is not None:
            places[overwritten] = places[next(iter(outputs))]
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, own), (binding.bind_output, outputs)):
            for key, value in arrays.items():
                _bind(bind, key, places[key], value.shape)
        written = [places[key] for key in own if places[key].dtype == np.float32]
        before = sum(array.size for array in written)
        cleared = [places[key][:before] for key in outputs if places[key].dtype == np.float32]
        return Seat(
            run=_runner(session, binding, places),
            prepare=partial(_touch, [*cleared, *written]),
            num_bytes=sum(math.prod(tensor.dims) * 4 for tensor in model.graph.initializer),
            num_shared_bytes=4 * sum(memory.size for memory in self._arena),
        )

    def _lay_out(self, role: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """A stretch of the shared buffer for each value, 256 bytes apart; what is not float32 keeps its own memory."""
        needed = sum(-(-value.size // 64) * 64 for value in values.values())
        if needed > self._arena[role].size:
            self._arena[role] = _memory(needed)
            self._arena[role][:] = self._random.standard_normal(needed, np.float32)
        places, start = {}, 0
        for key, value in values.items():
            if value.dtype != np.float32:
                places[key] = np.array(value, order="C")
                continue
            places[key] = self._arena[role][start : start + value.size]
            start += -(-value.size // 64) * 64
        return places

    def _fill(self, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
        if kind is np.float32:
            return self._random.standard_normal(shape, np.float32)
        return self._random.integers(0, 2, shape).astype(kind)


def _touch(arrays: Sequence[Array]) -> None:
    """Reads and writes memory; the numbers keep their size."""
    for array in arrays:
        np.negative(array, out=array)


def _memory(num_floats: int) -> Array:
    """Memory as an allocator hands it out: numpy would ask for huge pages, which ONNX Runtime's arena does not."""
    return np.frombuffer(mmap.mmap(-1, max(4 * num_floats, mmap.PAGESIZE)), np.float32)[:num_floats]


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


def _chain(length: int, shape: tuple[int, ...]) -> bytes:
    """So many small operators in a row, of two kinds so that none cancels another."""
    names = ["input", *(f"value_{index}" for index in range(1, length)), "output"]
    nodes = [
        onnx.helper.make_node(("Neg", "Abs")[index % 2], [names[index]], [names[index + 1]]) for index in range(length)
    ]
    return _network(nodes, shape, [])


def _network(nodes: Sequence[onnx.NodeProto], shape: tuple[int, ...], weights: list[onnx.TensorProto]) -> bytes:
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in ("input", "output")]
    graph = onnx.helper.make_graph(nodes, "network", values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
