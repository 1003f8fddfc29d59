"""Measuring single layers with ONNX Runtime, in networks of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from halp_trt.runtimes import DEFAULT_FOOTPRINT
from halp_trt.runtimes.cpu.round_bench import RoundBench, windows
from halp_trt.runtimes.ort.kernels import is_unit
from halp_trt.runtimes.ort.probe_network import Arena, ProbedLayer, ProfiledNetwork, probed_layer, profiler_charge
from halp_trt.runtimes.ort.session import NONE, CpuSession, open_model, open_with, optimised, options_of
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.specs import Footprint, Measurement, Target

__all__ = ["CpuProber", "reference"]


class CpuProber:
    """Measures layers with a ``RoundBench``, in probe networks of ONNX Runtime.

    Attributes:
        bench: the bench that measures.
    """

    def __init__(self, target: Target) -> None:
        self._num_threads = target.protocol.num_threads
        self._open = partial(open_model, self._num_threads)
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
        """The executed layer of a probe, optimised and without its edges; a unit is taken as it is."""
        if not is_unit(probe):
            probe = bytes(cut_to_layer(optimised(probe, self._num_threads)).SerializeToString())
        return probed_layer(probe, self._open)

    def _open_profiled(self, model: bytes, prefix: str) -> ort.InferenceSession:
        options = options_of(self._num_threads, NONE)
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        return open_with(model, options)


def reference(target: Target) -> Callable[[], None]:
    """A call that runs a small fixed network once, to show a drift of the machine's speed.

    An inverted bottleneck and a 3x3 convolution, 64 channels at 28x28: pointwise, depthwise and full convolutions.
    """
    session = CpuSession(_reference_network(), num_threads=target.protocol.num_threads)
    return session.bind({name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()})


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
