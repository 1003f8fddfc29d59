"""Rows of latency tables from the measurements that the device's bench takes on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from halp_trt.device import gpu_bench
from halp_trt.device.gpu import NUM_IN_FLIGHT, GpuDevice
from halp_trt.device.gpu_bench import METHOD, ROUNDS, GpuBench, Rounds, Taken
from halp_trt.device.loop import Launch
from halp_trt.device.samples import Reading, Summary
from halp_trt.specs import Conditions, Measurement, TimingProtocol
from halp_trt.timing import conditions_of

__all__ = ["PROTOCOL", "Bench", "doubts", "measurement_of", "rounds_of"]

PROTOCOL = TimingProtocol(method=METHOD, num_in_flight=NUM_IN_FLIGHT, uses_graph=True, **ROUNDS._asdict())
"""The protocol of latencies on a GPU; the number of executions in a sample follows from the duration of one."""


class Bench:
    """Measures one engine after the other on a GPU, as :class:`halp_trt.device.gpu_bench.GpuBench` does.

    Attributes:
        protocol: the timing protocol.
    """

    def __init__(self, *, device: GpuDevice, protocol: TimingProtocol, reference: Launch) -> None:
        """Measures on ``device``, in turns with ``reference``, made with :func:`halp_trt.device.gpu.make_launch`."""
        self.protocol = protocol
        self._bench = GpuBench(device, rounds_of(protocol), reference)

    def measure(self, enqueue: Callable[[], object]) -> Measurement:
        """Latency of the work that ``enqueue`` puts on the stream, with a doubt where there is cause."""
        return measurement_of(self._bench.measure(enqueue), self.protocol)


def rounds_of(protocol: TimingProtocol) -> Rounds:
    """The part of a protocol that the device's bench goes by."""
    return Rounds(**{name: getattr(protocol, name) for name in Rounds._fields})


def measurement_of(taken: Taken, protocol: TimingProtocol) -> Measurement:
    """The row of a latency table for the samples that a device took by a protocol."""
    return Measurement(
        **taken.summary._asdict(),
        enqueue_us=taken.enqueue_us,
        before=conditions_of(taken.before),
        after=conditions_of(taken.after),
        protocol=replace(protocol, num_executions=taken.num_executions, uses_graph=taken.uses_graph),
        doubt=taken.doubt,
    )


def doubts(row: Measurement, *, calm_us: float, is_confidential: bool = False) -> list[str]:
    """The reasons not to trust a row, in words, as :func:`halp_trt.device.gpu_bench.doubts`; empty if it is sound."""
    taken = Taken(
        summary=Summary(**{name: getattr(row, name) for name in Summary._fields}),
        enqueue_us=row.enqueue_us,
        before=_reading_of(row.before),
        after=_reading_of(row.after),
        uses_graph=row.protocol is None or row.protocol.uses_graph,
    )
    return gpu_bench.doubts(taken, calm_us=calm_us, is_confidential=is_confidential)


def _reading_of(conditions: Conditions | None) -> Reading | None:
    if conditions is None:
        return None
    return Reading(**{name: getattr(conditions, name) for name in Reading._fields})
