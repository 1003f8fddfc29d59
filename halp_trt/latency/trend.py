"""The trend of latencies over sizes: a quadratic in logarithms for each kind of layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from halp_trt.latency.cells import Floats
from halp_trt.latency.layer_features import Family

__all__ = ["Trend", "fit_trend", "rows_by"]

_RIDGE = 1e-6
"""Weight of a coefficient's square, relative to the rows."""
_FEWEST = 60
"""Kinds with fewer rows share one trend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A quadratic.

    Attributes:
        scale: the size of each term. weights: its coefficients.
        low, high: bounds of the terms it was fitted over; beyond them it stays at its ends.
    """

    scale: Floats
    weights: Floats
    low: Floats
    high: Floats

    def at(self, smooth: Floats) -> Floats:
        """Its values."""
        return np.asarray(_terms(np.clip(smooth, self.low, self.high)) / self.scale @ self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Trends by kind of layer, and one for all others."""

    lines: Mapping[Family, _Line]
    shared: _Line

    def at(self, families: Sequence[Family], smooth: Floats) -> Floats:
        """The logarithm of the latency of each layer."""
        found = self.shared.at(smooth)
        for family, rows in rows_by(families).items():
            if family in self.lines:
                found[rows] = self.lines[family].at(smooth[rows])
        return found


def rows_by(families: Sequence[Family]) -> dict[Family, list[int]]:
    """The rows of each kind."""
    found: dict[Family, list[int]] = {}
    for row, family in enumerate(families):
        found.setdefault(family, []).append(row)
    return found


def fit_trend(families: Sequence[Family], smooth: Floats, log_us: Floats) -> Trend:
    """The trends of measured latencies, in logarithms."""
    lines = {
        family: _fit(smooth[rows], log_us[rows]) for family, rows in rows_by(families).items() if len(rows) >= _FEWEST
    }
    return Trend(lines=lines, shared=_fit(smooth, log_us))


def _fit(smooth: Floats, log_us: Floats) -> _Line:
    terms = _terms(smooth)
    scale = np.maximum(np.abs(terms).max(axis=0), 1e-9)
    scaled = terms / scale
    ridge = _RIDGE * len(scaled) * np.eye(scaled.shape[1])
    weights = np.linalg.solve(scaled.T @ scaled + ridge, scaled.T @ log_us)
    return _Line(scale=scale, weights=weights, low=smooth.min(axis=0), high=smooth.max(axis=0))


def _terms(smooth: Floats) -> Floats:
    """One, every term, and every product of two."""
    first, second = np.triu_indices(smooth.shape[1])
    return np.concatenate([np.ones((len(smooth), 1)), smooth, smooth[:, first] * smooth[:, second]], axis=1)
