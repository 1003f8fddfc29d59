"""A model of latencies from scattered rows: a prediction with an interval between measured sizes, and none beyond them.

A trend over sizes comes first, then what the nearest measured layers say of the distance from it, then a regression by
boosted trees over both, over how layers fill the processor's cores, and over what the single neighbours say. Every row
is predicted by a part that never saw it: the errors that are told, and the intervals, come from these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import MissingLatencyError, RuntimeUnavailableError, UsageError
from halp_trt.latency.axes import AlongAxes, fit_axes
from halp_trt.latency.cells import Floats
from halp_trt.latency.layer_features import Family, Layers, layers_of
from halp_trt.latency.neighbours import Neighbours, Said, fit_neighbours
from halp_trt.latency.trend import Trend, fit_trend, rows_by
from halp_trt.specs import LayerSpec

__all__ = ["HeldOut", "LatencyModel", "ModelSettings", "Predictions", "fit_model"]

_FEWEST_ROWS = 100
_LEAST_SPREAD = 0.005
"""Least error that an interval counts on, as a share of the latency."""
_INSIDE = -1
_NAMES = ("input channels", "output channels", "height", "width", "batch size", "multiplications", "bytes")
"""The quantities in whose measured range a layer must lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Settings of a fit.

    Attributes:
        num_cores: cores of the processor that work at once: a GPU's streaming multiprocessors, 80 on a V100.
        coverage: share of layers whose latency shall lie in their interval.
        parts: parts of the rows; each is predicted by a fit to the others.
        trees: trees of each fit.
        seed: seed of everything random.
    """

    num_cores: int = 80
    coverage: float = 0.9
    parts: int = 3
    trees: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1 or self.num_cores < 1 or self.parts < 2 or self.trees < 1:
            raise UsageError(f"a model needs a core, two parts, a tree and a coverage between 0 and 1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Latencies in microseconds, one of each layer, with the bounds of their intervals."""

    latency_us: Floats
    low_us: Floats
    high_us: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The errors of rows that a fit did not see.

    Attributes:
        num_rows: their number.
        median_fraction, p95_fraction: quantiles of ``|predicted / measured - 1|``.
        coverage: share of rows in their interval.
    """

    num_rows: int
    median_fraction: float
    p95_fraction: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyModel:
    """A fitted model.

    Attributes:
        held_out: the errors of its own rows, each predicted by a part that did not see it.
        settings: the settings of the fit.
        ranges: least and most of the quantities in ``_NAMES`` for each kind of layer.
        trend, neighbours, axes: the trend, and the measured distances from it.
        regressions: one for each part of the rows.
        scale: the regression of the logarithm of the error.
        reach: the factor on that error which holds the coverage.
    """

    held_out: HeldOut
    settings: ModelSettings
    ranges: Mapping[Family, tuple[Floats, Floats]]
    trend: Trend
    neighbours: Neighbours
    axes: AlongAxes
    regressions: tuple[Any, ...]
    scale: Any
    reach: float

    def covers(self, specs: Sequence[LayerSpec], batches: Sequence[int]) -> npt.NDArray[np.bool_]:
        """True for each layer that lies in the measured range of its kind."""
        return np.asarray(self._outside(layers_of(specs, batches, self.settings.num_cores)) == _INSIDE)

    def predict(self, specs: Sequence[LayerSpec], batches: Sequence[int]) -> Predictions:
        """The latency of every layer.

        Raises:
            MissingLatencyError: a layer is of a kind that was not measured, or lies outside the measured range.
        """
        if not specs:
            return Predictions(latency_us=np.zeros(0), low_us=np.zeros(0), high_us=np.zeros(0))
        layers = layers_of(specs, batches, self.settings.num_cores)
        self._check(specs, layers)
        trend = self.trend.at(layers.families, layers.smooth)
        said = self.neighbours.at(layers.places)
        columns = _columns(layers, trend, said, self.axes.at(layers.places))
        rest = np.mean([regression.predict(columns) for regression in self.regressions], axis=0)
        log_us = trend + said.value + rest
        width = self.reach * np.exp(self.scale.predict(columns))
        return Predictions(latency_us=np.exp(log_us), low_us=np.exp(log_us - width), high_us=np.exp(log_us + width))

    def _check(self, specs: Sequence[LayerSpec], layers: Layers) -> None:
        outside = self._outside(layers)
        for row in np.flatnonzero(outside != _INSIDE)[:1].tolist():
            if layers.families[row] not in self.ranges:
                raise MissingLatencyError(f"no layer of the kind of {specs[row]} was measured; measure with build-lut")
            at, (low, high) = int(outside[row]), self.ranges[layers.families[row]]
            found = np.concatenate([layers.sizes, layers.work], axis=1)[row, at]
            raise MissingLatencyError(
                f"{specs[row]} has {found:g} {_NAMES[at]}, outside the measured {low[at]:g} to {high[at]:g} of its "
                "kind; measure it with build-lut"
            )

    def _outside(self, layers: Layers) -> npt.NDArray[np.int64]:
        """The place in ``_NAMES`` of each layer's first quantity out of range; their number for an unknown kind."""
        quantities = np.concatenate([layers.sizes, layers.work], axis=1)
        outside = np.full(len(quantities), len(_NAMES))
        for family, rows in rows_by(layers.families).items():
            if family in self.ranges:
                low, high = self.ranges[family]
                is_out = (quantities[rows] < low) | (quantities[rows] > high)
                outside[rows] = np.where(is_out.any(axis=1), is_out.argmax(axis=1), _INSIDE)
        return outside


def fit_model(
    specs: Sequence[LayerSpec],
    batches: Sequence[int],
    latencies_us: Sequence[float] | Floats,
    settings: ModelSettings | None = None,
) -> LatencyModel:
    """The model of measured layers of one device in one precision.

    Args:
        specs: the layers. batches: the batch size of each. latencies_us: the latency of each, above 0.
        settings: settings of the fit.

    Raises:
        UsageError: there are too few rows, or a latency is none.
        RuntimeUnavailableError: scikit-learn is not installed.
    """
    settings = settings or ModelSettings()
    measured_us = np.asarray(latencies_us, float)
    if not len(specs) == len(batches) == len(measured_us) or len(specs) < _FEWEST_ROWS:
        raise UsageError(f"a latency model needs {_FEWEST_ROWS} measured layers or more, got {len(specs)}")
    if not (np.isfinite(measured_us).all() and (measured_us > 0).all()):
        raise UsageError("a latency model is fitted to latencies above 0; leave failures out")
    layers = layers_of(specs, batches, settings.num_cores)
    log_us = np.log(measured_us)
    trend = fit_trend(layers.families, layers.smooth, log_us)
    drift = trend.at(layers.families, layers.smooth)
    neighbours = _neighbours(layers.places, log_us - drift, settings.seed)
    own, axes = np.arange(len(log_us)), fit_axes(layers.places, log_us - drift)
    said = neighbours.at(layers.places, own)
    columns = _columns(layers, drift, said, axes.at(layers.places, own))
    rest = log_us - drift - said.value
    part_of = np.random.default_rng(settings.seed).permutation(len(rest)) % settings.parts
    regressions, unseen = [], np.zeros(len(rest))
    for part in range(settings.parts):
        inside = part_of == part
        regressions.append(_fitted(_boosted(settings), columns[~inside], rest[~inside]))
        unseen[inside] = regressions[-1].predict(columns[inside])
    errors = np.maximum(np.abs(rest - unseen), _LEAST_SPREAD)
    scale = _fitted(_scale(settings), columns, np.log(errors))
    reach = float(np.quantile(errors / np.exp(scale.predict(columns)), settings.coverage))
    return LatencyModel(
        held_out=_held_out(rest - unseen, reach * np.exp(scale.predict(columns))),
        settings=settings,
        ranges=_ranges(layers),
        trend=trend,
        neighbours=neighbours,
        axes=axes,
        regressions=tuple(regressions),
        scale=scale,
        reach=reach,
    )


def _columns(layers: Layers, trend: Floats, said: Said, beside: Floats) -> Floats:
    """All that the regressions see; values of neighbours are told relative to the kriged one."""
    beside = beside.copy()
    beside[:, ::2] -= said.value[:, None]
    return np.concatenate([layers.features, trend[:, None], said.columns, beside], axis=1)


def _neighbours(places: Floats, values: Floats, seed: int) -> Neighbours:
    try:
        return fit_neighbours(places, values, seed)
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"a latency model needs {error.name}, which is not installed; run: pip install 'halp-trt[latency]'"
        ) from error


def _boosted(settings: ModelSettings) -> Any:
    """The regression of what trend and neighbours leave."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.08, max_iter=settings.trees, max_leaf_nodes=32, min_samples_leaf=8,
        l2_regularization=0.1, max_features=0.5, early_stopping=False, random_state=settings.seed,
    )  # fmt: skip


def _fitted(regression: Any, columns: Floats, values: Floats) -> Any:
    """A regression after its fit; a column without any number, which it would refuse, tells it nothing."""
    is_empty = np.isnan(columns).all(axis=0)
    return regression.fit(np.where(is_empty, 0.0, columns), values)


def _scale(settings: ModelSettings) -> Any:
    """The regression of an error's logarithm, kept coarse so that it does not learn single rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=80, max_leaf_nodes=12, min_samples_leaf=100, early_stopping=False,
        random_state=settings.seed,
    )  # fmt: skip


def _held_out(errors: Floats, widths: Floats) -> HeldOut:
    fractions = np.abs(np.expm1(-errors))
    return HeldOut(
        num_rows=len(errors),
        median_fraction=float(np.median(fractions)),
        p95_fraction=float(np.percentile(fractions, 95)),
        coverage=float(np.mean(np.abs(errors) <= widths)),
    )


def _ranges(layers: Layers) -> dict[Family, tuple[Floats, Floats]]:
    quantities = np.concatenate([layers.sizes, layers.work], axis=1)
    return {
        family: (quantities[rows].min(axis=0), quantities[rows].max(axis=0))
        for family, rows in rows_by(layers.families).items()
    }
