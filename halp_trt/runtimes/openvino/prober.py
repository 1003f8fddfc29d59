"""Timing layers in OpenVINO: inside networks of their probes, by the runtime's own counters.

OpenVINO picks a memory layout for every kernel and puts reorders where it changes; a network that has been compiled
cannot be cut. So whole probes run side by side in one network, and the kernels between markers and consumer count: the
layer's own, and reorders that it causes. Markers, consumers and reorders at a probe's own edges do not. In one network,
kernels share the arena that OpenVINO plans for their outputs, and find its code as warm as in any engine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import openvino as ov

from halp_trt.errors import MeasurementError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.runtimes import CONSUMER, DEFAULT_FOOTPRINT, MARKER, Array
from halp_trt.runtimes.cpu.round_bench import batches
from halp_trt.runtimes.openvino.counters import Counters
from halp_trt.runtimes.openvino.session import compile_model, info
from halp_trt.specs import Footprint, Measurement, Target
from halp_trt.timing import SHORTEST_US, summarise

__all__ = ["PROFILED", "OpenVinoProber", "layer_kernels", "prepared"]

PROFILED = "profiled-probes"
"""Protocol: OpenVINO counts the layer's kernels in a network of probes, with weights as cold as in an engine."""

_UNFUSED_OPERATORS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""Operators that OpenVINO never fuses into the convolution before them."""
_NOT_RUN = "_fake"
"""End of the name of a reorder for which OpenVINO moves nothing."""
_REFERENCE_FLOATS = 1 << 16
"""Numbers that one run of the yardstick works on."""
_MAX_SLOWDOWN = 1.3
"""A batch is measured again when the machine runs this many times slower than at its best."""
_MAX_ATTEMPTS = 5
"""Times that a batch is measured at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Network:
    """Probes that run as one.

    Attributes:
        counters: run the network and count its kernels' times.
        kernels: names of the kernels of each of its layers.
        num_bytes: bytes touched by one run.
        memory: memory of inputs and outputs, held here because the request only points to it.
    """

    counters: Counters
    kernels: Sequence[frozenset[str]]
    num_bytes: int
    memory: Sequence[Array]


@dataclass(slots=True)
class _Yardstick:
    """A fixed workload used as a yardstick for machine speed, with its timings.

    Attributes:
        memory: the numbers that it works on.
        taken_us: duration of every run.
    """

    memory: Array = field(default_factory=lambda: np.ones(_REFERENCE_FLOATS, np.float32))
    taken_us: list[float] = field(default_factory=list)

    def run(self) -> None:
        np.add(self.memory, np.float32(1), out=self.memory)
        start = time.perf_counter_ns()
        for _ in range(4):
            np.add(self.memory, np.float32(1), out=self.memory)
        self.taken_us.append((time.perf_counter_ns() - start) / 1e3)


class OpenVinoProber:
    """Measures layers inside networks of their probes, by the protocol ``profiled-probes``.

    A batch is cut into networks of about a given footprint, and memory is read before every run to make up the
    difference: weights are then as far away as in the network that layers are measured for. All runs of a network
    follow each other: in turns, each would find the caches as another left them. A yardstick between them shows the
    machine's speed; a batch met by a slow moment is measured again.
    """

    def __init__(self, target: Target) -> None:
        self._protocol = target.protocol
        self._random = np.random.default_rng(0)
        self._filler = np.ones(1, np.float32)
        self._calm_us = math.inf

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe.

        Raises:
            BuildError: OpenVINO refuses the probe.
            MeasurementError: it did not leave the layer recognisable.
        """
        return next(self.measure_all([probe], DEFAULT_FOOTPRINT))[0]

    def measure_all(self, probes: Iterable[bytes], footprint: Footprint) -> Iterator[list[Measurement]]:
        """Latencies of the layers in probes, in order, a batch at a time.

        Args:
            probes: models by ``make_probe``.
            footprint: memory of the network that the layers are part of.

        Raises:
            BuildError: OpenVINO refuses a probe.
            MeasurementError: it did not leave a layer recognisable.
        """
        for batch in batches(map(prepared, probes)):
            yield self._measure(batch, footprint)

    def _measure(self, probes: Sequence[onnx.ModelProto], footprint: Footprint) -> list[Measurement]:
        best = self._run_all(probes, footprint)
        for attempt in range(1, _MAX_ATTEMPTS):
            self._calm_us = min(self._calm_us, best[0].reference_us)
            if best[0].reference_us <= _MAX_SLOWDOWN * self._calm_us:
                break
            time.sleep(0.1 * attempt)
            best = min(best, self._run_all(probes, footprint), key=lambda rows: rows[0].reference_us)
        return best

    def _run_all(self, probes: Sequence[onnx.ModelProto], footprint: Footprint) -> list[Measurement]:
        groups = list(_groups(probes, footprint.num_bytes))
        networks = [self._open([probes[index] for index in group]) for group in groups]
        yardstick = _Yardstick()
        for network in networks:
            for _ in range(self._protocol.num_warmup + self._protocol.num_samples):
                yardstick.run()
                self._fill(footprint.num_bytes - network.num_bytes).max(initial=0.0)
                network.counters.run()
        reference_us = float(np.median(yardstick.taken_us))
        rows: dict[int, Measurement] = {}
        for group, network in zip(groups, networks, strict=True):
            rows |= zip(group, self._read(network, reference_us, footprint), strict=True)
        return [rows[index] for index in range(len(probes))]

    def _fill(self, num_bytes: int) -> Array:
        """Memory to read, of about ``num_bytes``; none for a negative number."""
        needed = max(num_bytes, 0) // 4
        if needed > self._filler.size:
            self._filler = np.ones(needed, np.float32)  # zeros would all be one page, and touch nothing
        return self._filler[:needed]

    def _open(self, probes: Sequence[onnx.ModelProto]) -> _Network:
        compiled = compile_model(_side_by_side(probes), self._protocol.num_threads, counts=True)
        request = compiled.create_infer_request()
        kept = []
        for ports in (compiled.inputs, compiled.outputs):
            memory = self._random.standard_normal(max(map(_num_floats, ports)), np.float32)
            for port in ports:
                kept.append(_view(memory, port))
                request.set_tensor(port, ov.Tensor(kept[-1], shared_memory=True))
        executed = compiled.get_runtime_model()
        return _Network(
            counters=Counters(request),
            kernels=[layer_kernels(executed, _prefix(index)) for index in range(len(probes))],
            num_bytes=_touched(probes),
            memory=kept,
        )

    def _read(self, network: _Network, reference_us: float, footprint: Footprint) -> list[Measurement]:
        """Latencies as sums of kernel times, with the relative spread of whole runs, the only one known."""
        skip = self._protocol.num_warmup
        taken_us = network.counters.kernels_us(skip=skip)
        walls_us = np.array([network.counters.walls_us[index] for index in network.counters.kept(skip)])
        spread = walls_us / float(np.median(walls_us))
        rows = []
        for kernels in network.kernels:
            layer_us = max(SHORTEST_US, sum(taken_us[name] for name in kernels if name in taken_us))
            row = summarise((layer_us * spread).tolist(), reference_us=reference_us)
            rows.append(replace(row, footprint_bytes=footprint.num_bytes))
        return rows


def _groups(probes: Sequence[onnx.ModelProto], num_bytes: int) -> Iterator[list[int]]:
    """Cuts a batch into networks of one opset each, each closed once it touches ``num_bytes``."""
    opened: dict[int, list[int]] = {}
    for index, probe in enumerate(probes):
        version = max(opset.version for opset in probe.opset_import)
        group = opened.setdefault(version, [])
        group.append(index)
        if _touched([probes[member] for member in group]) >= num_bytes:
            yield opened.pop(version)
    yield from opened.values()


def _touched(probes: Sequence[onnx.ModelProto]) -> int:
    """Estimate of the bytes that one run of probes touches.

    Each probe has its own weights, inputs and outputs; the tensors between them share the memory of the largest probe.
    """
    own: int = sum(
        sum(len(tensor.raw_data) for tensor in probe.graph.initializer)
        + sum(map(_num_bytes, (*probe.graph.input, *probe.graph.output)))
        for probe in probes
    )
    inside: int = max(sum(map(_num_bytes, probe.graph.value_info)) for probe in probes)
    return own + inside


def _num_bytes(value: onnx.ValueInfoProto) -> int:
    """Bytes of a tensor of floats."""
    shape = [int(n.dim_value) for n in value.type.tensor_type.shape.dim]
    return 4 * math.prod(shape)


def _num_floats(port: ov.ConstOutput) -> int:
    """Number of floats that fill a port's tensor."""
    num_bytes: int = math.prod(port.shape) * port.get_element_type().size
    return -(-num_bytes // 4)


def _view(memory: Array, port: ov.ConstOutput) -> Array:
    """The beginning of some memory as a port's tensor: all inputs lie at one place and all outputs at another.

    Positions, which are numbers of another type, are zero.
    """
    kind, shape = port.get_element_type().to_dtype(), tuple(port.shape)
    if kind != np.float32:
        return np.zeros(shape, kind)
    return memory[: math.prod(shape)].reshape(shape)


def _prefix(index: int) -> str:
    """Prefix of all names of one of several probes."""
    return f"{index}:"


def _side_by_side(probes: Sequence[onnx.ModelProto]) -> bytes:
    """One model that holds several probes side by side, without a tensor in common."""
    whole = onnx.ModelProto()
    whole.CopyFrom(onnx.compose.add_prefix(probes[0], _prefix(0)))
    for index, probe in enumerate(probes[1:], start=1):
        graph = onnx.compose.add_prefix(probe, _prefix(index)).graph
        for kind in ("node", "input", "output", "initializer", "value_info"):
            getattr(whole.graph, kind).extend(getattr(graph, kind))
    whole.ir_version = max(probe.ir_version for probe in probes)
    return bytes(whole.SerializeToString())


def prepared(probe: bytes) -> onnx.ModelProto:
    """A probe whose markers are read by the layer alone, as in a network: a residual is then added in place.

    Before an activation the markers stay outputs: OpenVINO would fuse the activation into them otherwise.

    Raises:
        MeasurementError: the bytes are no ONNX model.
    """
    try:
        model = onnx.load_from_string(probe)
    except Exception as error:  # protobuf's own errors have no common root
        raise_if_stopped(error)
        raise MeasurementError(f"the probe is no ONNX model ({error}); make it with make_probe") from error
    writers = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    for output in list(model.graph.output):
        reader = readers.get(output.name)
        if not output.name.startswith(MARKER) or reader is None:
            continue
        others = [writers[name] for name in reader.input if name != output.name and name in writers]
        if reader.op_type in _UNFUSED_OPERATORS or (others and not others[0].name.startswith(MARKER)):
            model.graph.output.remove(output)
    return model


def layer_kernels(network: ov.Model, prefix: str = "") -> frozenset[str]:
    """Names of the kernels between a probe's markers and its consumer, in the network as OpenVINO runs it.

    Args:
        network: the network as OpenVINO executes it.
        prefix: prefix of all names of the probe, where several run in one network.

    Raises:
        MeasurementError: a marker or the consumer is no kernel any more, or nothing is left between them.
    """
    nodes = {node.get_friendly_name(): node for node in network.get_ordered_ops()}
    markers = {name for name, node in nodes.items() if _is_edge(node, prefix + MARKER)}
    consumers = [node for node in nodes.values() if _is_edge(node, prefix + CONSUMER)]
    ends = consumers or [
        node for name, node in nodes.items() if info(node, "layerType") == "Output" and name.startswith(prefix)
    ]
    pending = [end.input_value(0).get_node() for end in ends]
    if not consumers:  # a reorder at the probe's own end is not one that a network has
        pending = [node.input_value(0).get_node() if _moves_data(node) else node for node in pending]
    found: set[str] = set()
    while pending:
        node = pending.pop()
        name = node.get_friendly_name()
        if name in markers or name in found or info(node, "layerType") in ("Const", "Input"):
            continue
        found.add(name)
        pending.extend(value.get_node() for value in node.input_values())
    if not found:
        raise MeasurementError("OpenVINO left nothing between a probe's markers and its end; please report its version")
    return frozenset(found)


def _is_edge(node: ov.Node, name: str) -> bool:
    is_named = any(part.startswith(name) for part in info(node, "originalLayersNames").split(","))
    return is_named and info(node, "layerType") == "Convolution"


def _moves_data(node: ov.Node) -> bool:
    """True for a reorder that runs; a transposition of what lies channels last in memory becomes one that does not."""
    return info(node, "layerType") == "Reorder" and not node.get_friendly_name().endswith(_NOT_RUN)
