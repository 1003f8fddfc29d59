"""The line from sums over a latency table to latencies of engines, fitted to engines timed during pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError

__all__ = ["Calibration", "fit"]

_LEAST_SPREAD = 0.05
"""Smallest spread of the sums, as a fraction of the largest, that tells a slope from an overhead."""

_LEAST_EXPLAINED = 0.9
"""Smallest share of the engines' variance that a line with an overhead explains; one that explains less was fitted to
engines that other work disturbed, and its overhead says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The latency of an engine predicted from a sum over a table: ``overhead_us + slope * sum`` microseconds.

    Attributes:
        slope: slope of the line.
        overhead_us: intercept of the line.
        r_squared: share of the engines' variance explained by the line; 1 if it goes through all of them, below 0 if
            a line through the origin explains less than their mean does.
        largest_error_fraction: largest distance of an engine from the line, relative to the engine.
        num_engines: number of engines that the line was fitted to.
    """

    slope: float
    overhead_us: float = 0.0
    r_squared: float = 1.0
    largest_error_fraction: float = 0.0
    num_engines: int = 0


def fit(sums_us: Sequence[float], engines_us: Sequence[float]) -> Calibration:
    """The line from table sums to engines, by least squares of relative errors.

    It goes through the origin if the engines differ too little, if its slope would be negative, or if it would explain
    too little of what sets the engines apart.

    Args:
        sums_us: latencies predicted by the table.
        engines_us: measured latencies, in the same order.

    Raises:
        UsageError: the two are of different length, empty, or not positive.
    """
    x, y = np.asarray(sums_us, float), np.asarray(engines_us, float)
    if len(x) != len(y) or not len(x) or min(x.min(), y.min()) <= 0:
        raise UsageError(f"a calibration needs as many positive sums as engines, got {sums_us} and {engines_us}")
    slope, overhead = float(np.sum(x / y) / np.sum((x / y) ** 2)), 0.0
    if x.max() - x.min() >= _LEAST_SPREAD * x.max():
        (through, steep), *_ = np.linalg.lstsq(np.column_stack((1 / y, x / y)), np.ones(len(y)), rcond=None)
        if steep > 0 and _explained(through + steep * x, y) >= _LEAST_EXPLAINED:
            slope, overhead = float(steep), float(through)
    line = overhead + slope * x
    return Calibration(
        slope=slope,
        overhead_us=overhead,
        r_squared=_explained(line, y),
        largest_error_fraction=float(np.abs(line / y - 1).max()),
        num_engines=len(x),
    )


def _explained(line: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """The share of the variance of ``y`` that a line explains (R²); 1 where ``y`` does not vary."""
    scatter, off = float(np.sum((y - y.mean()) ** 2)), line - y
    return 1 - float(off @ off) / scatter if scatter > 0 else 1.0
