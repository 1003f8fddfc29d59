"""A network as ONNX Runtime runs it on the CPU: one thread, all of its optimisations."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime as ort

from halp_trt.errors import BuildError, UsageError, brief
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import Array

__all__ = ["ALL", "NONE", "CpuSession", "open_model", "open_with", "optimised", "options_of"]

ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
"""The level of all optimisations."""
NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
"""The level without optimisations."""

_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "tensor(bool)": "bool",
        "tensor(double)": "float64",
        "tensor(float16)": "float16",
        **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    }
)
"""Numpy's names of element types by ONNX Runtime's."""


class CpuSession:
    """A network ready to run, as :class:`halp_trt.runtimes.Session` has it."""

    def __init__(self, model: bytes, *, num_threads: int, optimise: bool = True) -> None:
        self._model, self._num_threads, self._level = model, num_threads, ALL if optimise else NONE
        self._session = open_model(num_threads, model, self._level)
        self.input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType(
            {i.name: tuple(n if isinstance(n, int) else 1 for n in i.shape) for i in self._session.get_inputs()}
        )
        self.input_types: Mapping[str, str] = MappingProxyType(
            {i.name: _TYPES.get(i.type, "float32") for i in self._session.get_inputs()}
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
            raise_if_stopped(error)
            raise UsageError(
                f"the engine refuses its inputs: {_first_line(error)}; feed {dict(self.input_shapes)}"
            ) from error
        return dict(zip(self.output_names, values, strict=True))

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], None]:
        """A call that is one execution; inputs and outputs lie in memory of their own, touched before."""
        kept = {key: np.array(value, order="C") for key, value in inputs.items()}
        kept |= {f"output {key}": value for key, value in self.run(inputs).items()}
        binding = self._session.io_binding()
        try:
            for key in inputs:
                _bind(binding.bind_input, key, kept[key], kept[key].shape)
            for key in self.output_names:
                _bind(binding.bind_output, key, kept[f"output {key}"], kept[f"output {key}"].shape)
        except Exception as error:  # ONNX Runtime's own classes have no common root but this
            raise_if_stopped(error)
            raise UsageError(
                f"the engine's inputs and outputs are no plain tensors: {_first_line(error)}; export the network again"
            ) from error
        return _runner(self._session, binding, kept)

    def profile(self, inputs: Mapping[str, Array], num_runs: int) -> dict[str, float]:
        """Median kernel microseconds of every executed node over ``num_runs`` runs, after two untimed ones.

        Nodes without a name are called ``<operator>_<position>``. Profiling itself slows the network by 7 to 20 %.
        """
        with tempfile.TemporaryDirectory() as folder:
            options = options_of(self._num_threads, self._level)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = open_with(self._model, options)
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


def optimised(model: bytes, num_threads: int) -> onnx.ModelProto:
    """A model as ONNX Runtime executes it on this processor.

    Raises:
        BuildError: ONNX Runtime refuses the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = options_of(num_threads, ALL)
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        open_with(model, options)
        return onnx.load(options.optimized_model_filepath)


def options_of(num_threads: int, level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    """The options of every session: so many threads that wait without spinning, one node at a time."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def open_model(num_threads: int, model: bytes, level: ort.GraphOptimizationLevel = NONE) -> ort.InferenceSession:
    """A session of a model, unoptimised where no level is named.

    Raises:
        BuildError: ONNX Runtime refuses the model.
    """
    return open_with(model, options_of(num_threads, level))


def open_with(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session of a model with the given options.

    Raises:
        BuildError: ONNX Runtime refuses the model.
    """
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes have no common root but this
        raise_if_stopped(error)
        raise BuildError(f"ONNX Runtime refuses the model: {_first_line(error)}; check the node it names") from error


def _bind(bind: Callable[..., None], key: str, memory: Array, shape: tuple[int, ...]) -> None:
    bind(key, "cpu", 0, memory.dtype.type, shape, memory.ctypes.data)


def _runner(session: ort.InferenceSession, binding: ort.IOBinding, memory: object) -> Callable[[], None]:
    """A call for one execution; it holds on to the memory that the binding only points to."""

    def run(_memory: object = memory) -> None:
        session.run_with_iobinding(binding)

    return run


def _first_line(error: Exception) -> str:
    return brief((str(error).strip().splitlines() or [type(error).__name__])[0], 300)
