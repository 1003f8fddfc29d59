from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.errors import UsageError
from halp_trt.planning import exponential_budgets

latencies = st.floats(1e-3, 1e9)


@given(dense=latencies, target=latencies, steps=st.integers(1, 50))
def test_budgets_fall_by_the_same_factor_and_end_at_the_target(dense: float, target: float, steps: int) -> None:
    budgets = exponential_budgets(dense, target, steps)
    assert len(budgets) == steps
    assert budgets[-1] == target
    for step, budget in enumerate(budgets, start=1):
        assert budget == pytest.approx(dense * (target / dense) ** (step / steps), rel=1e-9)


def test_formula_of_the_paper() -> None:
    assert exponential_budgets(100.0, 25.0, 2) == pytest.approx((50.0, 25.0))


@pytest.mark.parametrize(("dense", "target", "steps"), [(100, 50, 0), (100, 0, 3), (-1, 50, 3), (100, math.inf, 3)])
def test_nonsense_is_refused(dense: float, target: float, steps: int) -> None:
    with pytest.raises(UsageError):
        exponential_budgets(dense, target, steps)


@given(st.floats(1e-3, 1e6), st.integers(1, 12))
def test_rounding_never_leaves_the_range(latency_us: float, num_steps: int) -> None:
    assert exponential_budgets(latency_us, latency_us, num_steps) == (latency_us,) * num_steps
