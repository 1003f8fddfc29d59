"""The measuring loop on a clock of our own: bit-exact."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.errors import MeasurementError
from halp_trt.timing import (
    MAX_ATTEMPTS,
    SHORTEST_US,
    involuntary_switches,
    pin_to_one_core,
    summarise,
    time_interleaved,
)


class Clock:
    """Advances only when a run says so."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns

    def run(self, name: str, us: float, log: list[str]) -> Callable[[], None]:
        def call() -> None:
            log.append(name)
            self.now_ns += round(us * 1000)

        return call


def test_every_round_runs_all_one_place_later() -> None:
    clock, log = Clock(), []
    runs = {name: clock.run(name, us, log) for name, us in (("a", 1.5), ("b", 20.0), ("c", 0.001))}
    samples = time_interleaved(runs, num_rounds=3, num_warmup=1, clock_ns=clock)
    assert samples == {"a": [1.5] * 3, "b": [20.0] * 3, "c": [0.001] * 3}
    assert "".join(log) == "cab" + "abc" + "bca" + "cab"


def test_a_fixed_order_stays() -> None:
    clock, log = Clock(), []
    runs = {name: clock.run(name, 1, log) for name in "abc"}
    time_interleaved(runs, num_rounds=2, num_warmup=2, rotate=False, clock_ns=clock)
    assert "".join(log) == "abc" * 4


def test_an_interrupted_sample_is_taken_again_but_not_for_ever() -> None:
    clock, log = Clock(), []
    counts = iter(
        [0, 1, 1, 1, 5, 6, 7, 8, 9, 10, 11, 12]
    )  # the first round's second attempt is quiet, the other's never
    runs = {"a": clock.run("a", 2, log)}
    samples = time_interleaved(runs, num_rounds=2, clock_ns=clock, interruptions=lambda: next(counts))
    assert samples == {"a": [2.0, 2.0]}
    assert len(log) == 2 + MAX_ATTEMPTS
    assert involuntary_switches() >= 0


def test_the_summary_is_the_percentiles_less_the_overhead() -> None:
    measurement = summarise([float(n) for n in range(1, 12)], overhead_us=2.0, reference_us=7.0)
    assert (measurement.p10_us, measurement.latency_us, measurement.p90_us) == (SHORTEST_US, 4.0, 8.0)
    assert (measurement.num_samples, measurement.reference_us) == (11, 7.0)


@given(st.lists(st.floats(0, 1e7), min_size=1), st.floats(0, 1e7))
def test_corrected_latencies_are_ordered_and_above_zero(samples: list[float], overhead: float) -> None:
    measurement = summarise(samples, overhead)
    assert 0 < SHORTEST_US <= measurement.p10_us <= measurement.latency_us <= measurement.p90_us


@pytest.mark.parametrize("samples", [[], [1.0, math.nan], [-1.0], [math.inf]])
def test_senseless_samples_are_refused(samples: list[float]) -> None:
    with pytest.raises(MeasurementError, match="check the clock"):
        summarise(samples)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")
def test_pinning_ends_even_after_an_error() -> None:
    before = os.sched_getaffinity(0)

    def fail_inside() -> None:
        with pin_to_one_core():
            assert os.sched_getaffinity(0) == {max(before)}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert os.sched_getaffinity(0) == before


def test_without_the_system_s_help_nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pin_to_one_core():
        inside = True
    assert inside
