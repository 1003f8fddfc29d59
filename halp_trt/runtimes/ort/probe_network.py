"""A network of nothing but probes, executed by ONNX Runtime with its profiler.

Alone in a session, a kernel is charged for the call and finds its code cold; among others it runs as in any engine, and
the profiler tells its time from theirs. The state of the memory is made as in an engine, too:

- A layer's inputs were written last: all layers read from one buffer, and a node before each of them fills it.
- A layer's outputs lie in memory used one pass through the arena ago: layers write to an arena of the network's size,
  place after place, and from its beginning again when it is full.
- A residual that the sum overwrites lies in the arena, too, as old as its place.

ONNX Runtime does not know that this memory is shared: to it these are inputs and outputs of the graph, each at its own
address.
"""

from __future__ import annotations

import json
import math
import mmap
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from halp_trt.errors import MeasurementError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import Array
from halp_trt.runtimes.cpu.round_bench import Profile
from halp_trt.runtimes.ort.kernels import overwritten_input

__all__ = ["Arena", "ProbedLayer", "ProfiledNetwork", "probed_layer", "profiler_charge"]

_NUM_EMPTY_KERNELS = 32
"""Kernels without work in the network that shows the profiler's overhead."""
_NUM_EMPTY_RUNS = 150
"""Runs of that network."""
_ALIGNMENT = 256
"""Bytes to whose multiples tensors are aligned in the arena."""
_FLOATS = (np.float32, np.float16, np.float64)
_OPSET = 18

Open = Callable[[bytes], Any]
"""A function that opens a model, to be executed as it stands, as an ``onnxruntime.InferenceSession``."""
OpenProfiled = Callable[[bytes, str], Any]
"""A function like :data:`Open`; the session's profiler writes to a file with the given prefix."""
Tensors = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Type and shape of tensors by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedLayer:
    """Nodes to be timed as one layer, as the runtime executes them.

    Attributes:
        model: the nodes with their weights.
        inputs, outputs: type and shape of every tensor that the nodes read and write.
        overwritten: the input whose memory is that of the first output; None where there is none.
    """

    model: onnx.ModelProto
    inputs: Tensors
    outputs: Tensors
    overwritten: str | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the weights."""
        weights = self.model.graph.initializer
        return sum(math.prod(tensor.dims) * _dtype(tensor.data_type).itemsize for tensor in weights)

    @property
    def read(self) -> Tensors:
        """The inputs that have memory of their own."""
        return {name: tensor for name, tensor in self.inputs.items() if name != self.overwritten}


def probed_layer(model: bytes, open_session: Open) -> ProbedLayer:
    """A model's nodes as a layer, with its outputs as one run shows them.

    Raises:
        MeasurementError: the nodes cannot be run.
    """
    session = open_session(model)
    layer = onnx.load_from_string(model)
    inputs = {value.name: (_dtype(value.type.tensor_type.elem_type), _shape(value)) for value in layer.graph.input}
    try:
        values = session.run(None, {name: _filled(kind, shape) for name, (kind, shape) in inputs.items()})
    except Exception as error:  # ONNX Runtime's own classes have no common root but this
        raise_if_stopped(error)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise MeasurementError(f"ONNX Runtime cannot run the probe: {reason}; please report it") from error
    names = [output.name for output in session.get_outputs()]
    outputs = {name: (value.dtype, value.shape) for name, value in zip(names, values, strict=True)}
    return ProbedLayer(model=layer, inputs=inputs, outputs=outputs, overwritten=overwritten_input(layer))


class Arena:
    """The memory that all layers share: a buffer to read from, and a stretch to write to, place after place."""

    def __init__(self) -> None:
        self._read, self._written = _memory(0), _memory(0)
        self._next, self._end = 0, 0

    def reserve(self, layers: Sequence[ProbedLayer], num_bytes: int) -> None:
        """Makes room for the largest of some layers, and starts again at the first place.

        Args:
            layers: the layers to place; those placed before keep their memory.
            num_bytes: size of the arena, after which places are used again.
        """
        self._next, self._end = 0, max(num_bytes, *(_extent(layer.outputs) for layer in layers))
        self._read = _at_least(max(_extent(layer.read) for layer in layers), self._read)
        self._written = _at_least(self._end, self._written)

    def to_read(self, tensors: Tensors) -> dict[str, Array]:
        """A stretch of the one buffer for each tensor."""
        return _places(self._read, tensors)

    def to_write(self, tensors: Tensors) -> dict[str, Array]:
        """The next stretch for each tensor."""
        extent = _extent(tensors)
        start = self._next if self._next + extent <= self._end else 0
        self._next = start + extent
        return _places(self._written[start:], tensors)


class ProfiledNetwork:
    """Layers in one session, each between the nodes that prepare its memory, as ``round_bench.ProbeNetwork`` has it.

    The profiler writes its file when the network is finished.
    """

    def __init__(
        self, layers: Sequence[ProbedLayer], arena: Arena, open_profiled: OpenProfiled, *, arena_bytes: int
    ) -> None:
        """Opens the session.

        Args:
            layers: the layers to execute, in this order.
            arena: the memory of inputs and outputs.
            arena_bytes: bytes of it that a network writes to before it uses a place again.
            open_profiled: opens a model with a profiler.
        """
        self._layers = layers
        self._folder = tempfile.TemporaryDirectory()
        arena.reserve(layers, arena_bytes)
        drawing = _Drawing(arena)
        for index, layer in enumerate(layers):
            drawing.add(index, layer)
        self._steps = drawing.steps
        self._session = open_profiled(drawing.model(layers), str(Path(self._folder.name) / "profile"))
        self._binding = self._session.io_binding()
        for bind, places in (
            (self._binding.bind_input, drawing.inputs),
            (self._binding.bind_output, drawing.outputs),
        ):
            for name, place in places.items():
                bind(name, "cpu", 0, place.dtype.type, place.shape, place.ctypes.data)
        self._kept = drawing  # the binding only points to its memory
        self.num_bytes = sum(layer.num_bytes for layer in layers)

    def run(self) -> None:
        """Executes every layer once."""
        self._session.run_with_iobinding(self._binding)

    def finish(self) -> Profile:
        """The profiler's times of all runs.

        Raises:
            MeasurementError: nodes were not executed in the order in which they prepare memory for each other.
        """
        with self._folder:
            taken = _kernel_times(self._session)
        if [step for step, _ in groupby(taken, _step)] != [step for step, _ in groupby(self._steps)]:
            raise MeasurementError(
                "this ONNX Runtime executes probes in an order of its own, please report it with its version"
            )
        kernels: list[list[list[float]]] = [[] for _ in self._layers]
        for name, samples in taken.items():
            kind, index = _step(name)
            if kind == _LAYER:
                kernels[index].append(samples)
        return Profile(
            samples_us=np.asarray([np.sum(samples, axis=0) for samples in kernels]),
            num_kernels=np.asarray([len(samples) for samples in kernels]),
        )


def profiler_charge(open_profiled: OpenProfiled) -> float:
    """The profiler's overhead: microseconds it reports for a kernel that does nothing, among others of its kind.

    Its clock ticks in whole microseconds, so a mean tells more than a median; the slowest twentieth is left out.
    """
    names = [f"{_EMPTY}:{index}:" for index in range(_NUM_EMPTY_KERNELS)]
    ones = onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "ones")
    operands = [ones.name] * 3  # as many as a convolution has
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Sum", operands, [name], name) for name in names],
        "empty",
        [],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 1, 1, 1)) for name in names],
        [ones],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=8)
    with tempfile.TemporaryDirectory() as folder:
        session = open_profiled(model.SerializeToString(), str(Path(folder) / "profile"))
        for _ in range(_NUM_EMPTY_RUNS):
            session.run(None, {})
        taken_us = np.sort(list(_kernel_times(session).values()), axis=None)
    return float(taken_us[: 19 * taken_us.size // 20].mean())


def _kernel_times(session: Any) -> dict[str, list[float]]:
    """Microseconds of every node in every run, by a session's profiler, in the order in which the nodes ran."""
    taken: dict[str, list[float]] = defaultdict(list)
    for event in json.loads(Path(session.end_profiling()).read_bytes()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            taken[event["name"].removesuffix("_kernel_time")].append(float(event["dur"]))
    return taken


_LAYER = "layer"
"""First part of the names of a layer's own nodes and tensors."""
_WRITE = "write"
"""First part of the names of nodes that fill a layer's inputs."""
_EMPTY = "empty"
"""First part of the names of nodes that do nothing."""


class _Drawing:
    """The graph of a probe network while layers are added to it."""

    def __init__(self, arena: Arena) -> None:
        self.inputs: dict[str, Array] = {}
        self.outputs: dict[str, Array] = {}
        self.steps: list[tuple[str, int]] = []
        self._arena = arena
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}

    def add(self, index: int, layer: ProbedLayer) -> None:
        """Adds a layer after the nodes that prepare its memory."""
        read, written = self._arena.to_read(layer.read), self._arena.to_write(layer.outputs)
        fresh = set(read) or set(layer.inputs)
        if layer.overwritten is not None:
            first = next(iter(written.values()))
            kind, shape = layer.inputs[layer.overwritten]
            read[layer.overwritten] = first.reshape(-1).view(kind).reshape(shape)
        for name, source in reversed(read.items()):
            if name in fresh:
                self._fill(f"{_WRITE}:{index}:{name}", source)
            self.inputs[f"{_LAYER}:{index}:{name}"] = source
        self.outputs |= {f"{_LAYER}:{index}:{name}": place for name, place in written.items()}
        for tensor in layer.model.graph.initializer:
            weight = onnx.TensorProto()
            weight.CopyFrom(tensor)
            weight.name = f"{_LAYER}:{index}:{tensor.name}"
            self._weights[weight.name] = weight
        for position, node in enumerate(layer.model.graph.node):
            self._copy(node, index, position)

    def model(self, layers: Sequence[ProbedLayer]) -> bytes:
        """The model, its nodes in reverse order: ONNX Runtime starts with the last of those that nothing depends on."""
        opsets = {"": _OPSET}
        for layer in layers:
            for opset in layer.model.opset_import:
                opsets[opset.domain] = max(opsets.get(opset.domain, 0), opset.version)
        graph = onnx.helper.make_graph(
            self._nodes[::-1],
            "probes",
            [_described(name, place) for name, place in self.inputs.items()],
            [_described(name, place) for name, place in self.outputs.items()],
            list(self._weights.values()),
        )
        made = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid(*entry) for entry in opsets.items()],
            ir_version=max(layer.model.ir_version for layer in layers),
        )
        return bytes(made.SerializeToString())

    def _fill(self, name: str, place: Array) -> None:
        """Adds a node that writes all of a place, and reads next to nothing."""
        if not place.size:
            return
        value = self._constant(f"value:{place.dtype}", _filled(place.dtype, (1,)))
        extent = self._constant(f"extent:{place.size}", np.array([place.size], np.int64))
        self._append(onnx.helper.make_node("Expand", [value, extent], [name], name))
        self.outputs[name] = place.reshape(-1)

    def _constant(self, name: str, values: Array) -> str:
        self._weights.setdefault(name, onnx.numpy_helper.from_array(values, name))
        return name

    def _copy(self, node: onnx.NodeProto, index: int, position: int) -> None:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{_LAYER}:{index}:{position}"
        for names in (copied.input, copied.output):
            for at, name in enumerate(names):
                names[at] = name and f"{_LAYER}:{index}:{name}"
        self._append(copied)

    def _append(self, node: onnx.NodeProto) -> None:
        self._nodes.append(node)
        self.steps.append(_step(node.name))


def _step(name: str) -> tuple[str, int]:
    """The role of a node and the index of its layer, read from its name."""
    kind, index, _ = name.split(":", 2)
    return kind, int(index)


def _described(name: str, place: Array) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(place.dtype), place.shape)


def _filled(kind: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Numbers that every operator takes: a half, or zeros where they may be positions."""
    return np.full(shape, 0.5 if kind.type in _FLOATS else 0, kind)


def _dtype(elem_type: int) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    return tuple(n.dim_value or 1 for n in value.type.tensor_type.shape.dim)


def _extent(tensors: Tensors) -> int:
    return sum(_aligned(kind, shape) for kind, shape in tensors.values())


def _aligned(kind: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Bytes of a tensor and the gap after it."""
    return -(-math.prod(shape) * kind.itemsize // _ALIGNMENT) * _ALIGNMENT


def _places(memory: npt.NDArray[np.uint8], tensors: Tensors) -> dict[str, Array]:
    """A place in some memory for each tensor, one after the other."""
    places: dict[str, Array] = {}
    start = 0
    for name, (kind, shape) in tensors.items():
        end = start + math.prod(shape) * kind.itemsize
        places[name] = memory[start:end].view(kind).reshape(shape)
        start += _aligned(kind, shape)
    return places


def _at_least(num_bytes: int, memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The given memory, or new memory where it is too small."""
    return memory if num_bytes <= memory.size else _memory(num_bytes)


def _memory(num_bytes: int) -> npt.NDArray[np.uint8]:
    """Memory as an allocator hands it out: numpy would ask for huge pages, which ONNX Runtime's arena does not."""
    return np.frombuffer(mmap.mmap(-1, max(num_bytes, mmap.PAGESIZE)), np.uint8)
