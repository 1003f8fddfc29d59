"""Change points: known steps are found, noise has none, and neither scale nor the direction of time matters."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from halp_trt.errors import UsageError
from halp_trt.gate.changes import LEAST_VALUES, change_points


def steps(seed: int, *levels: tuple[int, float]) -> npt.NDArray[np.float64]:
    """Noise of deviation 1 around levels, each of which lasts for some values."""
    generator = np.random.default_rng(seed)
    return np.concatenate([generator.normal(level, 1, size=size) for size, level in levels])


@pytest.mark.parametrize(
    "levels",
    [
        [(40, 0.0), (40, 2.0)],
        [(30, 0.0), (30, 3.0), (30, 0.0)],
        [(20, 0.0), (20, 3.0), (20, 6.0), (20, 1.0)],
        [(10, 0.0), (10, 4.0)],
        [(40, 0.0), (10, 4.0), (40, 0.0)],
    ],
)
def test_known_steps_are_found(levels: list[tuple[int, float]]) -> None:
    edges = np.cumsum([size for size, _ in levels])[:-1]
    for seed in range(8):
        found = change_points(steps(seed, *levels).tolist())
        assert [min(abs(edge - one) for one in found) <= LEAST_VALUES for edge in edges] == [True] * len(edges)
        assert len(found) <= len(edges) + 1


def test_noise_has_no_change_points() -> None:
    found = [change_points(steps(seed, (60, 0.0)).tolist()) for seed in range(100)]
    assert sum(bool(one) for one in found) <= 5


def test_heavy_tails_have_none_either() -> None:
    found = [change_points(np.random.default_rng(seed).standard_t(3, size=60).tolist()) for seed in range(100)]
    assert sum(bool(one) for one in found) <= 5


def test_scale_and_direction_do_not_matter() -> None:
    for seed in range(5):
        series = 100 + steps(seed, (25, 0.0), (35, 2.0), (20, -1.0))
        found = change_points(series.tolist())
        assert found
        assert change_points((series * 3e-7).tolist()) == found
        assert change_points(series[::-1].tolist()) == tuple(len(series) - one for one in reversed(found))


def test_a_wider_spread_is_a_change_too() -> None:
    series = np.concatenate([steps(1, (60, 0.0)), 6 * steps(2, (60, 0.0))])
    (found,) = change_points(series.tolist())
    assert abs(found - 60) <= 6


def test_thousands_of_values_are_split() -> None:
    found = change_points(steps(3, (1000, 0.0), (1000, 1.0), (500, -1.0)).tolist())
    assert [min(abs(edge - one) for one in found) <= 20 for edge in (1000, 2000)] == [True, True]
    assert len(found) <= 3


def test_what_cannot_change_has_no_change_points() -> None:
    assert change_points([]) == ()
    assert change_points([1.0] * 50) == ()
    assert change_points([1.0] * (LEAST_VALUES - 1) + [9.0] * LEAST_VALUES) == ()
    with pytest.raises(UsageError, match="finite values alone; leave out"):
        change_points([1.0, float("nan")])
