"""Timing single layers in OpenVINO: inside a probe that stands for their network, by the runtime's own counters.

OpenVINO picks a memory layout for every kernel and puts reorders where it changes; a network that has been compiled
cannot be cut. So the whole probe runs, markers and consumer included, and what is counted is the kernels between them:
those that the layer became, and reorders that are there because of it. What lies outside (markers, consumer, reorders
at the probe's own edges) is not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx
import openvino as ov

from halp_trt.errors import MeasurementError
from halp_trt.runtimes import CONSUMER, DEFAULT_FOOTPRINT, MARKER, Array
from halp_trt.runtimes.openvino_counters import Counters
from halp_trt.runtimes.openvino_session import compile_model, info, make_request
from halp_trt.specs import Measurement, Target
from halp_trt.timing import SHORTEST_US, summarise

__all__ = ["PROFILED", "OpenVinoProber", "layer_kernels", "prepared"]

PROFILED = "profiled-in-probe"
"""Protocol: kernels of the layer, as OpenVINO counts them in a probe that runs whole, with cold weights."""

_RESIDUAL = ("Add", "Mul", "Sub")
_BATCH = 16
_LEAST_BYTES = 4 << 20
_DISTURBED = 1.3
"""How much slower than at its best the machine may be before a layer is measured again."""
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """A probe ready to run.

    Attributes:
        counters: run and count it.
        kernels: those that belong to its layer.
        reference_us: how long the same piece of work took before each of its runs.
    """

    counters: Counters
    kernels: frozenset[str]
    reference_us: list[float]


class OpenVinoProber:
    """Measures layers inside their probes.

    Before every run memory is written, as the rest of a network does: weights are cold, what a marker has just written
    is warm. How long that takes shows how fast the machine is at the moment.
    """

    def __init__(self, target: Target) -> None:
        self._protocol = target.protocol
        self._random = np.random.default_rng(0)
        self._far = np.zeros(_LEAST_BYTES // 4, np.float32)
        self._calm_us = math.inf

    def measure(self, probe: bytes) -> Measurement:
        """Latency of the layer in a probe.

        Raises:
            BuildError: OpenVINO refuses the probe.
            MeasurementError: it did not leave the layer recognisable.
        """
        return next(self.measure_all([probe], DEFAULT_FOOTPRINT))

    def measure_all(self, probes: Iterable[bytes], footprint_bytes: int) -> Iterator[Measurement]:
        """Latencies of the layers in probes, in order; those of a batch run in turns.

        Args:
            probes: models by ``make_probe``.
            footprint_bytes: memory that a network touches between two runs of a layer; a batch writes as much.

        Raises:
            BuildError: OpenVINO refuses a probe.
            MeasurementError: it did not leave a layer recognisable.
        """
        self._far = np.zeros(max(footprint_bytes // _BATCH, _LEAST_BYTES) // 4, np.float32)
        waiting = iter(probes)
        while batch := list(islice(waiting, _BATCH)):
            yield from self._measure(batch)

    def _measure(self, probes: Sequence[bytes]) -> Iterator[Measurement]:
        for probe, measurement in zip(probes, self._take_turns(probes), strict=True):
            best = measurement
            for attempt in range(1, _MAX_ATTEMPTS):
                self._calm_us = min(self._calm_us, best.reference_us)
                if best.reference_us <= _DISTURBED * self._calm_us:
                    break
                time.sleep(0.1 * attempt)
                best = min(best, *self._take_turns([probe]), key=lambda measurement: measurement.reference_us)
            yield best

    def _take_turns(self, probes: Sequence[bytes]) -> list[Measurement]:
        opened = [self._open(probe) for probe in probes]
        for _ in range(self._protocol.num_warmup + self._protocol.num_samples):
            for probe in opened:
                start = time.perf_counter_ns()
                np.add(self._far, np.float32(1), out=self._far)
                probe.reference_us.append((time.perf_counter_ns() - start) / 1e3)
                probe.counters.run()
        return [self._read(probe) for probe in opened]

    def _open(self, probe: bytes) -> _Probe:
        compiled = compile_model(prepared(probe), self._protocol.num_threads, counts=True)
        inputs: dict[str, Array] = {}
        for port in compiled.inputs:
            kind = port.get_element_type().to_dtype()
            is_float = np.issubdtype(kind, np.floating)
            shape = tuple(port.shape)
            inputs[port.any_name] = (
                self._random.standard_normal(shape, np.float32) if is_float else np.zeros(shape, kind)
            )
        request = make_request(compiled, inputs)
        return _Probe(counters=Counters(request), kernels=layer_kernels(compiled.get_runtime_model()), reference_us=[])

    def _read(self, probe: _Probe) -> Measurement:
        """The kernels' times in sum; their spread is taken to be that of whole runs, which alone is known."""
        skip = self._protocol.num_warmup
        kernels = probe.counters.kernels_us(skip=skip)
        walls_us = np.array([probe.counters.walls_us[index] for index in probe.counters.kept(skip)])
        layer_us = max(SHORTEST_US, sum(kernel_us for name, kernel_us in kernels.items() if name in probe.kernels))
        reference_us = float(np.median(probe.reference_us[skip:]))
        samples_us = walls_us * (layer_us / float(np.median(walls_us)))
        return summarise(samples_us.tolist(), reference_us=reference_us)


def prepared(probe: bytes) -> bytes:
    """A probe whose residual is read by the layer alone, so that it is added in place, as in a network.

    The other markers stay outputs of the probe, or OpenVINO would have them swallow a layer that is an activation.

    Raises:
        MeasurementError: the bytes are no ONNX model.
    """
    try:
        model = onnx.load_from_string(probe)
    except Exception as error:  # protobuf's own errors have no common root
        raise MeasurementError(f"the probe is no ONNX model ({error}); make it with make_probe") from error
    writers = {name: node for node in model.graph.node for name in node.output}
    readers = {name: node for node in model.graph.node for name in node.input}
    for output in list(model.graph.output):
        reader = readers.get(output.name)
        if not output.name.startswith(MARKER) or reader is None or reader.op_type not in _RESIDUAL:
            continue
        others = [writers[name] for name in reader.input if name != output.name and name in writers]
        if others and not others[0].name.startswith(MARKER):
            model.graph.output.remove(output)
    return bytes(model.SerializeToString())


def layer_kernels(network: ov.Model) -> frozenset[str]:
    """Names of the kernels between a probe's markers and its consumer, in the network as OpenVINO runs it.

    Raises:
        MeasurementError: a marker or the consumer is no kernel any more, or nothing is left between them.
    """
    nodes = {node.get_friendly_name(): node for node in network.get_ordered_ops()}
    markers = {name for name, node in nodes.items() if _is_edge(node, MARKER)}
    consumers = [node for node in nodes.values() if _is_edge(node, CONSUMER)]
    ends = consumers or [node for node in nodes.values() if info(node, "layerType") == "Output"]
    pending = [end.input_value(0).get_node() for end in ends]
    if not consumers:  # a reorder at the probe's own end is not one that a network has
        pending = [node.input_value(0).get_node() if _is_reorder(node) else node for node in pending]
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


def _is_reorder(node: ov.Node) -> bool:
    return info(node, "layerType") == "Reorder"
