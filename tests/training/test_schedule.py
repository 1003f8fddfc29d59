from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halp_trt.training.schedule import learning_rate
from tests.training.small import SETTINGS


@given(total=st.integers(1, 500), warmup=st.floats(0, 1), peak=st.floats(1e-4, 10))
def test_learning_rate_climbs_then_falls_and_never_passes_its_peak(total, warmup, peak):
    settings = replace(SETTINGS, warmup_fraction=warmup, learning_rate=peak)
    rates = [learning_rate(step, total, settings) for step in range(total)]
    top = rates.index(max(rates))
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))


def test_learning_rate_values():
    settings = replace(SETTINGS, warmup_fraction=0.1, learning_rate=1.0)
    assert learning_rate(0, 100, settings) == pytest.approx(0.1)
    assert learning_rate(9, 100, settings) == pytest.approx(1.0)
    assert learning_rate(55, 100, settings) == pytest.approx(0.5)
    assert learning_rate(100, 100, settings) == pytest.approx(0.0)
    assert learning_rate(99, 100, replace(settings, schedule="constant")) == 1.0
