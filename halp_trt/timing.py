"""The timing loop of ``halp_trt.device`` for the rooms above, with measurements and conditions as values.

The loop gives plain tuples; here they become values of ``halp_trt.specs``.
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


def summarise(samples_us: Sequence[float], overhead_us: float = 0.0, reference_us: float = 0.0) -> Measurement:
    """The measurement of samples: median and spread by :func:`halp_trt.device.samples.summary_of`.

    Raises:
        MeasurementError: there are no samples, or one is negative or not finite.
    """
    return Measurement(**summary_of(samples_us, overhead_us, reference_us)._asdict())


def conditions_of(reading: Reading | None) -> Conditions | None:
    """The conditions in a device's reading, as a value; None without a reading."""
    return None if reading is None else Conditions(**reading._asdict())
