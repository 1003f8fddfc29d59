"""The timing loop of ``halp_trt.device`` for the rooms above, with measurements and conditions as values.

The loop gives plain tuples; here they become values of ``halp_trt.specs``.
"""

from __future__ import annotations

from collections.abc import Sequence

from halp_trt.device.cores import Core, pin_to_one_core, wait_for_quiet, waited_ns
from halp_trt.device.loop import (
    MAX_ATTEMPTS,
    Device,
    Launch,
    Processor,
    as_launches,
    involuntary_switches,
    take_turns,
    time_interleaved,
    warm_up,
)
from halp_trt.device.samples import SHORTEST_US, Reading, Sample, summary_of
from halp_trt.specs import Conditions, Measurement

__all__ = [
    "MAX_ATTEMPTS",
    "SHORTEST_US",
    "Core",
    "Device",
    "Launch",
    "Processor",
    "Reading",
    "Sample",
    "as_launches",
    "conditions_of",
    "contention",
    "involuntary_switches",
    "pin_to_one_core",
    "summarise",
    "take_turns",
    "time_interleaved",
    "wait_for_quiet",
    "waited_ns",
    "warm_up",
]

_DISTURBED_FRACTION = 0.05
"""Largest share of samples that may stay disturbed without a doubt about their median."""


def summarise(samples_us: Sequence[float], overhead_us: float = 0.0, reference_us: float = 0.0) -> Measurement:
    """The measurement of samples: median and spread by :func:`halp_trt.device.samples.summary_of`.

    Raises:
        MeasurementError: there are no samples, or one is negative or not finite.
    """
    return Measurement(**summary_of(samples_us, overhead_us, reference_us)._asdict())


def contention(core: Core | None, samples: Sequence[Sample]) -> str:
    """The harm that other work did to samples taken on a core of this machine, in words; empty if it does not matter.

    Args:
        core: the core that they were taken on; None where the system cannot keep a thread on one.
        samples: the samples that counted, those that stayed disturbed among them.
    """
    if core is not None and not core.is_ours:
        return "another run timed its engines on the same core meanwhile"
    disturbed_fraction = sum(sample.is_disturbed for sample in samples) / max(1, len(samples))
    if disturbed_fraction > _DISTURBED_FRACTION:
        return f"other work took the core away in more than {100 * _DISTURBED_FRACTION:.0f} % of its samples"
    return ""


def conditions_of(reading: Reading | None) -> Conditions | None:
    """The conditions in a device's reading, as a value; None without a reading."""
    return None if reading is None else Conditions(**reading._asdict())
