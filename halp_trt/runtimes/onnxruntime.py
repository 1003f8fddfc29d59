"""ONNX Runtime on the CPU: one thread, all of its optimisations."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime as ort

from halp_trt.errors import BuildError, MeasurementError, UsageError
from halp_trt.runtimes import Array
from halp_trt.runtimes.blocked_edges import cut_to_layer
from halp_trt.runtimes.processor_bench import COLD, ProcessorBench, processor_name
from halp_trt.specs import Measurement, Protocol, Target
from halp_trt.timing import pin_to_one_core

__all__ = ["build", "load", "name", "prober", "suffix", "target"]

name = "onnxruntime"
suffix = ".onnx"

_ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
_NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}

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
        protocol=Protocol(method=COLD),
    )


def build(model: bytes, target: Target) -> bytes:
    """The model itself, once ONNX Runtime has accepted it: it optimises when it loads, for the processor it is on.

    Raises:
        BuildError: it does not accept the model.
    """
    _open(model, target.protocol.num_threads, _ALL)
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
        self._session = _open(model, num_threads, self._level)
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
    """Measures single layers, with the calling thread kept on one core.

    Raises:
        UsageError: a precision other than ``fp32``; whole networks run in others.
    """
    if target.precision != "fp32":
        raise UsageError(
            f"onnxruntime measures layers in fp32, not {target.precision!r}: prune with fp32 and deploy in the other"
        )
    with pin_to_one_core():
        yield CpuProber(target)


class CpuProber:
    """Measures layers with a ``ProcessorBench``. Reference: a 1x1 convolution, 512 to 512 at 7x7: 1 MiB.

    All layers read and write the same buffers, as in a network's arena: activations are warm, weights are cold.
    """

    def __init__(self, target: Target) -> None:
        self._protocol = target.protocol
        self._random = np.random.default_rng(0)
        self._arena = [np.empty(0, np.float32) for _ in range(3)]
        self._bench = ProcessorBench(
            protocol=target.protocol,
            reference=self._bind_whole(_reference_network()),
            empty=self._bind_whole(_empty_network()),
        )

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe.

        Raises:
            BuildError: ONNX Runtime refuses the probe.
            MeasurementError: its optimiser did not leave the layer recognisable.
        """
        cut = cut_to_layer(self._optimise(probe))
        session = _open(cut.SerializeToString(), self._protocol.num_threads, _NONE)
        return self._bench.measure(self._bind_to_arena(session, in_place=_adds_in_place(cut)))

    def _optimise(self, probe: bytes) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as folder:
            options = _options(self._protocol.num_threads, _ALL)
            options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
            _session(probe, options)
            return onnx.load(options.optimized_model_filepath)

    def _bind_whole(self, model: bytes) -> Callable[[], None]:
        session = CpuSession(model, num_threads=self._protocol.num_threads)
        return session.bind({key: self._fill(shape, np.float32) for key, shape in session.input_shapes.items()})

    def _bind_to_arena(self, session: ort.InferenceSession, *, in_place: bool) -> Callable[[], None]:
        """The layer's first input, its other inputs and its outputs, each in a buffer all layers share.

        With ``in_place`` the outputs lie where the other inputs do: a residual is added where it stands.
        """
        shapes = {value.name: tuple(value.shape) for value in session.get_inputs()}
        types = {value.name: _TYPES.get(value.type, np.float32) for value in session.get_inputs()}
        own = {key: self._fill(shape, types[key]) for key, shape in shapes.items()}
        try:
            outputs = session.run(None, own)
        except Exception as error:
            raise MeasurementError(
                f"ONNX Runtime cannot run the probe: {_first_line(error)}; please report it"
            ) from error
        binding, kept = session.io_binding(), []
        for role, (bind, values) in enumerate(
            [
                (binding.bind_input, dict(list(own.items())[:1])),
                (binding.bind_input, dict(list(own.items())[1:])),
                (binding.bind_output, dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))),
            ]
        ):
            for key, memory in self._lay_out(1 if in_place and role == 2 else role, values).items():
                _bind(bind, key, memory, values[key].shape)
                kept.append(memory)
        return _runner(session, binding, kept)

    def _lay_out(self, role: int, values: Mapping[str, Array]) -> dict[str, Array]:
        """A stretch of the shared buffer for each value, 64 bytes apart; what is not float32 keeps its own memory."""
        needed = sum(-(-value.size // 16) * 16 for value in values.values())
        if needed > self._arena[role].size:
            self._arena[role] = self._fill((needed,), np.float32)
        places, start = {}, 0
        for key, value in values.items():
            if value.dtype != np.float32:
                places[key] = value
                continue
            places[key] = self._arena[role][start : start + value.size]
            start += -(-value.size // 16) * 16
        return places

    def _fill(self, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
        if kind is not np.float32:
            return np.zeros(shape, kind)
        return self._random.standard_normal(shape, np.float32)


def _adds_in_place(cut: onnx.ModelProto) -> bool:
    """Whether the layer is a convolution alone that adds a residual of its output's shape."""
    nodes = cut.graph.node
    return len(nodes) == 1 and nodes[0].op_type in ("Conv", "FusedConv") and len(cut.graph.input) == 2


def _options(num_threads: int, level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(model: bytes, num_threads: int, level: ort.GraphOptimizationLevel) -> ort.InferenceSession:
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
    weights = np.random.default_rng(1).standard_normal((512, 512, 1, 1), np.float32)
    return _network("Conv", (1, 512, 7, 7), [onnx.numpy_helper.from_array(weights, "weight")])


def _empty_network() -> bytes:
    return _network("Identity", (1,), [])


def _network(operator: str, shape: tuple[int, ...], weights: list[onnx.TensorProto]) -> bytes:
    node = onnx.helper.make_node(operator, ["input", *(weight.name for weight in weights)], ["output"])
    values = [onnx.helper.make_tensor_value_info(key, onnx.TensorProto.FLOAT, shape) for key in ("input", "output")]
    graph = onnx.helper.make_graph([node], operator, values[:1], values[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    return bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
