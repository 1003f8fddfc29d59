from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.report import units
from halp_trt.specs import TimingProtocol
from tests.report.values import TARGET, measurement


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0.0, "0.00 µs"),
        (0.4123, "0.41 µs"),
        (41.23, "41.2 µs"),
        (412.3, "412 µs"),
        (4123.0, "4.12 ms"),
        (1.3e6, "1.30 s"),
    ],
)
def test_latency_has_three_digits_and_the_fitting_unit(us: float, text: str) -> None:
    assert units.latency(us) == text


@given(st.floats(0.01, 1e9))
def test_latency_can_be_read_back_to_a_percent(us: float) -> None:
    number, unit = units.latency(us).split(" ")
    assert float(number) * {"µs": 1, "ms": 1e3, "s": 1e6}[unit] == pytest.approx(us, rel=0.01, abs=0.006)


def test_a_range_has_one_unit() -> None:
    assert units.latency_range(measurement(1000)) == "0.90 – 1.20 ms"


def test_throughput_counts_the_pictures_of_a_batch() -> None:
    assert units.images_per_second(measurement(1000), TARGET) == 2000
    assert units.throughput(measurement(1000), TARGET) == "2,000 images/s"
    assert units.throughput(measurement(50_000), TARGET) == "40.0 images/s"


def test_percentages() -> None:
    assert units.percent(0.97222) == "97.22 %"
    assert units.percent(None) == "–"
    assert units.signed_percent(-0.0076) == "\N{MINUS SIGN}0.8 %"
    assert units.signed_percent(0.012) == "+1.2 %"


def test_sizes_and_counts() -> None:
    assert units.size(12) == "12 bytes"
    assert units.size(1_500_000) == "1.43 MiB"
    assert units.count(1_234_567) == "1,234,567"


def test_columns_line_up() -> None:
    text = units.columns([("name", "a"), ("x", "10"), ("longer", "2")])
    lines = text.splitlines()
    assert len(lines) == 4
    assert set(lines[1]) == {"─"}
    assert re.fullmatch(r"x +10", lines[2])
    assert len(lines[2]) == len(lines[3])
    assert units.columns([]) == ""


def test_a_protocol_warms_up_by_time_or_by_runs() -> None:
    timed = TimingProtocol(method="gpu-events", num_samples=50, warmup_ms=200.0)
    assert units.protocol_line(timed) == "gpu-events, 50 samples after a warm-up of 200 ms"
    assert units.protocol_line(TimingProtocol(method="m")) == "m, 20 samples after a warm-up of 3 runs"
