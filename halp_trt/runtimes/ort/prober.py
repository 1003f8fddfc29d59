"""Measuring single layers with ONNX Runtime, in networks of probes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain

import numpy as np
import onnxruntime as ort

from halp_trt.runtimes import DEFAULT_FOOTPRINT
from halp_trt.runtimes.cpu.round_bench import RoundBench, windows
from halp_trt.runtimes.ort.kernels import is_unit
from halp_trt.runtimes.ort.probe_network import Arena, ProbedLayer, ProfiledNetwork, probed_layer, profiler_charge
from halp_trt.runtimes.ort.session import NONE, CpuSession, open_model, open_with, optimised, options_of
from halp_trt.runtimes.probe_cut import cut_to_layer
from halp_trt.runtimes.reference import processor_reference
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

    The network is :func:`halp_trt.runtimes.reference.processor_reference`.
    """
    session = CpuSession(processor_reference(), num_threads=target.protocol.num_threads)
    return session.bind({name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()})
