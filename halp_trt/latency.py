"""Latency tables: what was measured on a target, what a network costs by it, and where its cliffs are.

A lookup returns a measurement or raises; it never guesses and never returns a neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import MissingLatencyError, TargetMismatchError, UsageError
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement, Target

__all__ = [
    "LatencyTable",
    "check_target",
    "graph_latency_us",
    "graph_specs",
    "layer_latencies_us",
    "noise_us",
    "staircase_step",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Measured latencies of single layers on one target.

    Attributes:
        target: where and how they were measured.
        rows: the measurement of every layer.
    """

    target: Target
    rows: Mapping[LayerSpec, Measurement]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", MappingProxyType(dict(self.rows)))

    def missing(self, specs: Iterable[LayerSpec]) -> list[LayerSpec]:
        """Those of ``specs`` that were not measured, each once, in the order given."""
        return [spec for spec in dict.fromkeys(specs) if spec not in self.rows]

    def lookup(self, specs: Iterable[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """All rows, after making sure that ``specs`` are among them.

        Raises:
            MissingLatencyError: some are not.
        """
        missing = self.missing(specs)
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise MissingLatencyError(
                f"the table of {self.target.device} ({self.target.runtime}, {self.target.precision}) has no latency of "
                f"{missing[0]}{others}; measure with build-lut, with --resume to extend this table"
            )
        return self.rows

    def latency_us(self, spec: LayerSpec) -> float:
        """The measured latency of one layer in microseconds.

        Raises:
            MissingLatencyError: it was not measured.
        """
        return self.lookup((spec,))[spec].latency_us

    def with_rows(
        self, rows: Mapping[LayerSpec, Measurement] | Iterable[tuple[LayerSpec, Measurement]]
    ) -> LatencyTable:
        """This table with ``rows`` added; of a spec measured twice the new measurement counts."""
        return LatencyTable(target=self.target, rows={**self.rows, **dict(rows)})


def check_target(table: LatencyTable, target: Target) -> None:
    """Makes sure that a table was measured for ``target``.

    Raises:
        TargetMismatchError: it was not; the message names every field that differs.
    """
    differing = list(_differences("", table.target, target))
    if differing:
        raise TargetMismatchError(
            f"the latency table was measured for another target ({'; '.join(differing)}); "
            "choose the table of this target or measure one with build-lut"
        )


def _differences(prefix: str, found: Any, wanted: Any) -> Iterator[str]:
    for name in (field.name for field in fields(found)):
        here, there = getattr(found, name), getattr(wanted, name)
        if is_dataclass(here):
            yield from _differences(f"{prefix}{name}.", here, there)
        elif here != there:
            yield f"{prefix}{name}: table {here!r}, needed {there!r}"


# ---- what a network costs --------------------------------------------------------------------------------------------


def graph_specs(graph: ChannelGraph, counts: Mapping[str, int]) -> tuple[LayerSpec, ...]:
    """The spec of every layer, in execution order, when ``counts[group]`` channels of every group are kept."""
    return tuple(layer.spec_at(counts) for layer in graph.layers)


def layer_latencies_us(graph: ChannelGraph, table: LatencyTable, counts: Mapping[str, int]) -> dict[str, float]:
    """Microseconds of every layer by name, in execution order.

    Raises:
        MissingLatencyError: a layer was not measured at these widths.
    """
    specs = graph_specs(graph, counts)
    rows = table.lookup(specs)
    return {layer.name: rows[spec].latency_us for layer, spec in zip(graph.layers, specs, strict=True)}


def graph_latency_us(graph: ChannelGraph, table: LatencyTable, counts: Mapping[str, int]) -> float:
    """Microseconds of the network: the sum over its layers (arXiv:2210.06659, eq. 2), correctly rounded.

    Raises:
        MissingLatencyError: a layer was not measured at these widths.
    """
    return math.fsum(layer_latencies_us(graph, table, counts).values())


# ---- staircases -----------------------------------------------------------------------------------------------------

_NOISE_FLOOR_FRACTION = 0.01
_EVIDENCE = 6.0  # difference in BIC that counts as strong (Kass and Raftery 1995)

Floats = npt.NDArray[np.float64]


def noise_us(measurement: Measurement) -> float:
    """One standard deviation of a measurement: a normal's from its p10 and p90, at least 1 % of the latency."""
    spread = (measurement.p90_us - measurement.p10_us) / 2.563
    return max(spread, _NOISE_FLOOR_FRACTION * measurement.latency_us, 1e-9)


def staircase_step(widths: Sequence[int], latencies_us: Sequence[float], noise_us: Sequence[float]) -> int | None:
    """The distance between adjacent cliffs of a layer's latency over its width, or None where there are none to see.

    HALP groups channels by this distance (arXiv:2210.06659, sec. 3.2) but publishes no detector. Ours compares models
    by the Bayesian information criterion. A staircase of step s is a function of ``ceil(width / s)``: a level of its
    own for each plateau, never below the one before (the right edge of a plateau may be faster than its left, which is
    no cliff), or a parabola through the plateaus' right edges. Against it stand smooth functions of the width:
    a constant, a line, a parabola, and for each s a line bent where the staircase jumps. A staircase must win by a
    clear margin, so noise, ramps, bends and flat stretches give None. So does a step as small as the grid of the
    widths, which cannot be told from a ramp. Of a step and its multiples the smaller must win by that margin too.

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


def _stair_score(edges: Floats, y: Floats, sigma: Floats) -> float:
    """The score of the better staircase over plateaus with these right edges."""
    return min(_level_score(edges, y, sigma), _curve_score(np.vander(edges, 3), y, sigma))


def _level_score(edges: Floats, y: Floats, sigma: Floats) -> float:
    """One level for every plateau, ascending: weighted means, merged while a later one is lower (isotonic)."""
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
