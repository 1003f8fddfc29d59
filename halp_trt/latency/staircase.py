"""Staircases: the widths at which a layer's latency jumps, and the noise of measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.specs import Measurement

__all__ = ["Wave", "noise_us", "plateau_wave", "stair_coordinate", "staircase_step"]

_NOISE_FLOOR_FRACTION = 0.01
"""Least standard error of a measurement, as a fraction of its latency."""
_MEDIAN_TO_MEAN = 1.2533
"""Standard error of a median of several normal samples over that of their mean, ``sqrt(pi / 2)``."""
_EVIDENCE = 6.0
"""A difference in BIC from here on counts as strong evidence (Kass and Raftery 1995)."""

Floats = npt.NDArray[np.float64]
Wave = tuple[float, ...]
"""Heights of a period's plateaus, all but the last, as shares of the period's rise; empty if all rise alike."""

_PERIODS = (2, 3, 4)
"""Numbers of plateaus in a period: tiles a kernel may work on at once."""


def noise_us(measurement: Measurement) -> float:
    """One standard error of a measurement, at least 1 % of the latency.

    The samples are taken as normal, with the deviation ``(p90 - p10) / 2.563``; the error is the one of their median.
    """
    deviation = (measurement.p90_us - measurement.p10_us) / 2.563
    factor = _MEDIAN_TO_MEAN if measurement.num_samples > 2 else 1.0
    error = factor * deviation / math.sqrt(measurement.num_samples)
    return max(error, _NOISE_FLOOR_FRACTION * measurement.latency_us, 1e-9)


def staircase_step(widths: Sequence[int], latencies_us: Sequence[float], noise_us: Sequence[float]) -> int | None:
    """The distance between adjacent cliffs of a layer's latency over its width, or None where there are none to see.

    HALP groups channels by this distance (arXiv:2210.06659, sec. 3.2) but publishes no detector. Ours compares models
    by the Bayesian information criterion. A staircase of step s is a function of ``ceil(width / s)``: a level of its
    own for each plateau, never below the one before (the right edge of a plateau may be faster than its left, which is
    no cliff), or a parabola through the plateaus' right edges. Against it stand smooth functions of the width: a
    constant, a line, a parabola, and for each s a line bent where the staircase jumps. A staircase must win by a clear
    margin, so noise, ramps, bends and flat stretches give None. So does a step as small as the grid of the widths,
    which cannot be told from a ramp. A step must beat its own multiples by that margin, too.

    Args:
        widths: ascending, most of them one grid step apart.
        latencies_us: the latency at every width.
        noise_us: one standard deviation at every width. Models may scale it up, all points alike, never down.

    Raises:
        UsageError: the three differ in length, or widths do not ascend.
    """
    if not len(widths) == len(latencies_us) == len(noise_us):
        raise UsageError("a staircase needs one latency and one noise for every width")
    if any(right <= left for left, right in pairwise(widths)) or min(widths, default=1) < 1:
        raise UsageError(f"the widths of a staircase must be positive and ascend, got {list(widths)[:8]}")
    if len(widths) < 4:
        return None
    x, y, sigma = (np.asarray(numbers, float) for numbers in (widths, latencies_us, noise_us))
    grid = int(np.median(np.diff(x)))
    candidates = range(2 * grid, int(x[-1]) // 2 + 1, grid)
    if not candidates:
        return None
    smooth = min(
        *(_curve_score(np.vander(x, degree + 1), y, sigma) for degree in (0, 1, 2)),
        *(_curve_score(_bent_line(x, step), y, sigma) for step in candidates),
    )
    stairs = {step: _stair_score(np.ceil(x / step) * step, y, sigma) for step in candidates}
    best = min(stairs, key=lambda step: stairs[step])
    if stairs[best] + _EVIDENCE + 2 * math.log(len(candidates)) > smooth:
        return None
    return max(step for step in candidates if step % best == 0 and stairs[step] <= stairs[best] + _EVIDENCE)


def plateau_wave(latencies_us: Sequence[float], noise_us: Sequence[float]) -> Wave:
    """The heights of a staircase's plateaus within its period, or empty if they rise alike.

    Kernels work on several tiles at once, and a rest takes more than its share. If four tiles of 16 channels run at
    once, then ``t(80) - t(64) = t(16)``, but ``t(128) <= 2 t(64)``. A period must beat a line, a parabola and every
    shorter period by a clear margin in the Bayesian information criterion.

    Args:
        latencies_us: latencies at the right edges of the first plateaus, adjacent, at least two periods of them.
        noise_us: one standard deviation of each.
    """
    y, sigma = np.asarray(latencies_us, float), np.asarray(noise_us, float)
    tiles = np.arange(1, len(y) + 1)
    smooth = min(_curve_score(np.vander(tiles, degree + 1).astype(float), y, sigma) for degree in (1, 2))
    best, wave = smooth - _EVIDENCE, Wave()
    for period in (period for period in _PERIODS if 2 * period <= len(y)):
        full, rest = np.divmod(tiles, period)
        design = np.column_stack((np.ones_like(y), full, *(rest == tile for tile in range(1, period)))).astype(float)
        score = _curve_score(design, y, sigma)
        _, rise_us, *parts_us = np.linalg.lstsq(design / sigma[:, None], y / sigma, rcond=None)[0].tolist()
        if score < best and rise_us > 0:
            shares = np.maximum.accumulate(np.clip(np.asarray(parts_us) / rise_us, 0.0, 1.0))
            best, wave = score - _EVIDENCE, tuple(round(share, 4) for share in shares.tolist())
    return wave


def stair_coordinate(widths: Sequence[int], step: int, wave: Wave = ()) -> Floats:
    """Widths in stair coordinates: rounded up to their plateau's right edge, spaced in a period as the wave rises."""
    tiles = np.ceil(np.asarray(widths, float) / step).astype(int)
    full, rest = np.divmod(tiles, len(wave) + 1)
    return np.asarray(step * (len(wave) + 1) * (full + np.asarray((0.0, *wave))[rest]))


def _stair_score(edges: Floats, y: Floats, sigma: Floats) -> float:
    """The score (BIC) of the better staircase over plateaus with these right edges."""
    return min(_level_score(edges, y, sigma), _curve_score(np.vander(edges, 3), y, sigma))


def _level_score(edges: Floats, y: Floats, sigma: Floats) -> float:
    """The score of one level per plateau, ascending: weighted means, merged while a later one is lower (isotonic)."""
    plateaus = np.unique(edges, return_inverse=True)[1]
    weights = np.bincount(plateaus, 1 / sigma**2)
    means = np.bincount(plateaus, y / sigma**2) / weights
    blocks: list[tuple[float, float, int]] = []  # mean, weight, plateaus
    for mean, weight in zip(means.tolist(), weights.tolist(), strict=True):
        length = 1
        while blocks and blocks[-1][0] >= mean:
            before, more, others = blocks.pop()
            mean, weight, length = (mean * weight + before * more) / (weight + more), weight + more, length + others
        blocks.append((mean, weight, length))
    levels = np.repeat([mean for mean, _, _ in blocks], [length for _, _, length in blocks])
    return _bic((y - levels[plateaus]) / sigma, len(means))


def _bent_line(x: Floats, step: int) -> Floats:
    """Design matrix of a continuous line that may bend at every multiple of ``step``."""
    knots = np.arange(step, x[-1], step)
    return np.column_stack((np.ones_like(x), x, np.maximum(x[:, None] - knots, 0.0)))


def _curve_score(design: Floats, y: Floats, sigma: Floats) -> float:
    """The score of the least-squares fit of a linear model."""
    scaled = design / np.abs(design).max(axis=0) / sigma[:, None]
    coefficients, _, rank, _ = np.linalg.lstsq(scaled, y / sigma, rcond=None)
    return _bic(y / sigma - scaled @ coefficients, int(rank))


def _bic(residuals: Floats, num_parameters: int) -> float:
    """Bayesian information criterion of residuals in units of their noise, times an unknown common factor >= 1."""
    num_points, misfit = len(residuals), float(residuals @ residuals)
    if misfit > num_points:
        misfit = num_points * (1 + math.log(misfit / num_points))
    return misfit + num_parameters * math.log(num_points)
