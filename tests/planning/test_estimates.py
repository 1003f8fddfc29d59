"""Layers that cannot be measured are estimated from the measured ones, and say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from halp_trt.errors import MissingLatencyError
from halp_trt.planning.estimates import INSIDE, ROUNDS, estimate
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


def test_where_every_row_is_doubted_the_measured_ones_have_to_do() -> None:
    timed = {spec: replace(row(us, "a busy core"), num_samples=60) for spec, us in ((relu(1), 2.0), (relu(15), 16.0))}
    guessed = {relu(64): row(9e9, "estimated")}
    assert estimate(UNKNOWN, "it runs a sub-graph", timed | guessed).latency_us == pytest.approx(2 + 8 * 14 / 16)


def test_nothing_is_estimated_from_nothing() -> None:
    with pytest.raises(MissingLatencyError, match=r"cannot be measured .*sub-graph"):
        estimate(UNKNOWN, "it runs a sub-graph", {})


@pytest.mark.parametrize(
    ("rounds", "num_rounds", "words"),
    [
        (((ROUNDS, 5),), 5, " in 5 rounds"),
        (((ROUNDS, 1),), 1, ""),
        ((), 1, " in one round, as the number of rounds is known at run time alone"),
    ],
)
def test_the_body_of_a_loop_counts_in_every_round(
    rounds: tuple[tuple[str, int], ...], num_rounds: int, words: str
) -> None:
    rows = {relu(1): row(2.0), relu(15): row(16.0)}
    loop = LayerSpec(
        operator="Loop", in_channels=8, out_channels=8, operands=(MAP,), outputs=(MAP,),
        attributes=((INSIDE, (3, 3200)), *rounds),
    )  # fmt: skip
    found = estimate(loop, "it runs a sub-graph", rows)
    rate = 14 / 12800  # the rows moved 800 and 12,000 bytes
    assert found.latency_us == pytest.approx(2 * (1 + 3 * num_rounds) + rate * (6400 + 3200 * num_rounds))
    assert found.doubt.endswith(f"estimated from the bytes it moves{words}")
