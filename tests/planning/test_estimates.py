"""Layers that cannot be measured are estimated from the measured ones, and say so."""

from __future__ import annotations

import pytest

from halp_trt.errors import MissingLatencyError
from halp_trt.planning.estimates import estimate
from halp_trt.specs import LayerSpec, Measurement, Operand

MAP = Operand(shape=(1, 8, 10, 10), is_data=True)
UNKNOWN = LayerSpec(operator="If", in_channels=8, out_channels=8, operands=(MAP,), outputs=(MAP,))


def row(latency_us: float, doubt: str = "") -> Measurement:
    return Measurement(
        latency_us=latency_us, p10_us=latency_us, p90_us=latency_us, num_samples=1, doubt=doubt
    )  # fmt: skip


def relu(width: int) -> LayerSpec:
    return LayerSpec(operator="Relu", in_channels=width, out_channels=width, in_size=(10, 10))


def test_an_estimate_is_a_call_and_the_bytes_moved_at_the_measured_rate() -> None:
    conv = LayerSpec(operator="Conv", in_channels=8, out_channels=8, in_size=(10, 10), kernel_size=(3, 3))
    rows = {relu(1): row(2.0), relu(15): row(16.0), conv: row(500.0), relu(64): row(9e9, "noisy")}
    found = estimate(UNKNOWN, "it runs a sub-graph", rows)
    assert found.latency_us == pytest.approx(2 + 8 * 14 / 16), "800 + 800 numbers; the rows moved 3,200 in 14 us"
    assert found.doubt == "not measured (it runs a sub-graph); estimated from the bytes it moves"
    assert not found.is_trusted


def test_nothing_is_estimated_from_nothing() -> None:
    with pytest.raises(MissingLatencyError, match=r"cannot be measured .*sub-graph"):
        estimate(UNKNOWN, "it runs a sub-graph", {})
