"""Measurements of what the device's loop times, and the loop itself for the rooms above.

Time is taken in ``halp_trt.device``, which knows plain tuples; here they become values of ``halp_trt.specs``.
"""

from __future__ import annotations

from collections.abc import Sequence

from halp_trt.device.loop import (
    MAX_ATTEMPTS,
    Device,
    Launch,
    Processor,
    as_launches,
    involuntary_switches,
    pin_to_one_core,
    take_turns,
    time_interleaved,
    warm_up,
)
from halp_trt.device.samples import SHORTEST_US, Reading, Sample, summary_of
from halp_trt.specs import Conditions, Measurement

__all__ = [
    "MAX_ATTEMPTS",
    "MOST_ROUNDS",
    "SHORTEST_US",
    "Device",
    "Launch",
    "Processor",
    "Reading",
    "Sample",
    "as_launches",
    "conditions_of",
    "involuntary_switches",
    "pin_to_one_core",
    "summarise",
    "take_turns",
    "time_interleaved",
    "warm_up",
]

MOST_ROUNDS = 5_000
"""In which engines are compared: a shared machine changes its speed by the second, and small networks by another factor
than large ones, so that short engines want seconds, too, and not so many runs alone."""


def summarise(samples_us: Sequence[float], overhead_us: float = 0.0, reference_us: float = 0.0) -> Measurement:
    """Median and spread of samples, as :func:`halp_trt.device.samples.summary_of` has them.

    Raises:
        MeasurementError: there are no samples, or one is negative or not finite.
    """
    return Measurement(**summary_of(samples_us, overhead_us, reference_us)._asdict())


def conditions_of(reading: Reading | None) -> Conditions | None:
    """What a device told of its state, as a value; None where nothing tells it."""
    return None if reading is None else Conditions(**reading._asdict())
