"""Samples and readings of a device, and summaries of samples, as plain tuples."""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

from halp_trt.device.faults import MeasurementError

__all__ = ["SHORTEST_US", "Reading", "Sample", "Summary", "summary_of"]

SHORTEST_US = 0.01
"""The lowest latency of a measurement; a layer without measurable time has this one."""


class Sample(NamedTuple):
    """One timed run.

    Attributes:
        elapsed_us: time that the device worked on it.
        enqueue_us: time that the host took to start it; 0 if the host waited for the end.
        is_disturbed: True if other work had the device meanwhile, so that the run is to be timed again.
    """

    elapsed_us: float
    enqueue_us: float = 0.0
    is_disturbed: bool = False


class Reading(NamedTuple):
    """The state of a device at one moment; None stands for a value that its system does not tell.

    Attributes:
        clock_mhz: clock of its cores.
        memory_mhz: clock of its memory.
        temperature_c: temperature of the chip.
        power_w: power drawn by it, or by its board.
        slowed_by: reasons, in words, why it runs below the requested clock; empty if it does not.
    """

    clock_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    slowed_by: tuple[str, ...] = ()


class Summary(NamedTuple):
    """The median and the spread of some samples.

    Attributes:
        latency_us: their median, less the overhead of a call.
        p10_us, p90_us: their percentiles, less the overhead of a call.
        num_samples: their number.
        reference_us: median of a reference that took turns with them; 0 without a reference.
        variation: their coefficient of variation, overhead included.
    """

    latency_us: float
    p10_us: float
    p90_us: float
    num_samples: int
    reference_us: float = 0.0
    variation: float = 0.0


def summary_of(samples_us: Sequence[float], overhead_us: float = 0.0, reference_us: float = 0.0) -> Summary:
    """The median, 10th and 90th percentile of samples, each less ``overhead_us`` and at least ``SHORTEST_US``.

    The coefficient of variation is that of the raw samples, overhead included.

    Raises:
        MeasurementError: there are no samples, or one is negative or not finite.
    """
    samples = np.asarray(samples_us, dtype=np.float64)
    if samples.size == 0 or not np.isfinite(samples).all() or samples.min() < 0:
        raise MeasurementError(f"expected finite, non-negative samples, got {list(samples_us)[:5]}; check the clock")
    p10, median, p90 = np.maximum(np.percentile(samples, [10, 50, 90]) - overhead_us, SHORTEST_US).tolist()
    mean = float(samples.mean())
    return Summary(
        latency_us=median,
        p10_us=p10,
        p90_us=p90,
        num_samples=samples.size,
        reference_us=float(reference_us),
        variation=float(samples.std()) / mean if mean else 0.0,
    )
