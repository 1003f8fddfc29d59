"""Measurements of samples, and conditions of readings."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.errors import MeasurementError
from halp_trt.specs import Conditions
from halp_trt.timing import SHORTEST_US, Core, Reading, Sample, conditions_of, contention, summarise


def test_the_summary_is_the_percentiles_less_the_overhead() -> None:
    measurement = summarise([float(n) for n in range(1, 12)], overhead_us=2.0, reference_us=7.0)
    assert (measurement.p10_us, measurement.latency_us, measurement.p90_us) == (SHORTEST_US, 4.0, 8.0)
    assert (measurement.num_samples, measurement.reference_us) == (11, 7.0)
    assert measurement.variation == math.sqrt(10) / 6
    assert measurement.is_trusted


@given(st.lists(st.floats(0, 1e7), min_size=1), st.floats(0, 1e7))
def test_corrected_latencies_are_ordered_and_above_zero(samples: list[float], overhead: float) -> None:
    measurement = summarise(samples, overhead)
    assert 0 < SHORTEST_US <= measurement.p10_us <= measurement.latency_us <= measurement.p90_us


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [-1.0], [math.inf]])
def test_senseless_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(MeasurementError, match="check the clock"):
        summarise(samples)


def test_a_reading_becomes_conditions() -> None:
    reading = Reading(clock_mhz=1400.0, slowed_by=("heat",))
    assert conditions_of(reading) == Conditions(clock_mhz=1400.0, slowed_by=("heat",))
    assert conditions_of(None) is None


@pytest.mark.parametrize(
    ("core", "num_disturbed", "words"),
    [
        (None, 0, ""),
        (Core(number=1, taken_fraction=0.5), 1, ""),
        (None, 2, "other work took the core away in more than 5 % of its samples"),
        (Core(number=1, is_ours=False), 0, "another run timed its engines on the same core meanwhile"),
    ],
)
def test_what_other_work_did_to_samples_is_said(core: Core | None, num_disturbed: int, words: str) -> None:
    samples = [Sample(elapsed_us=1.0, is_disturbed=number < num_disturbed) for number in range(20)]
    assert contention(core, samples) == words
