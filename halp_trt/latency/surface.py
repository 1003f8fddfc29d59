"""A layer's latency over both of its widths, from few probes.

A surface is laid over the widths that a layer may take, one axis for its inputs and one for its outputs. Cells between
measured corners are split where a probe in their middle differs from what their corners promise, until all cells agree
within a tolerance or the probes are used up. Between corners latency is bilinear in *plateau* coordinates: widths
rounded up to the staircase's steps, so that a cliff falls where the staircase has it and not half-way between two
probes. The middle probe of a cell is not used by the cell it tests: its miss is the cell's error bar.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.latency.staircase import noise_us, staircase_step
from halp_trt.specs import LayerSpec, Measurement

__all__ = ["Effort", "Entry", "Surface", "measure_surface"]

Lookup = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]
Floats = npt.NDArray[np.float64]
Point = tuple[int, int]

_COARSE = 4
"""Corners along each axis of the first grid, where there are as many widths."""
_LADDER = 8
"""Adjacent widths measured along each axis to find its step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How far a surface is refined.

    Attributes:
        max_error_fraction: miss of a middle probe above which its cell is split.
        max_probes: measured points of one surface.
    """

    max_error_fraction: float = 0.03
    max_probes: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.max_error_fraction < 1 or self.max_probes < 1:
            raise UsageError(f"an error of 0..100 % and at least 1 probe are needed, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Latency at one pair of widths.

    Attributes:
        latency_us: measured or interpolated.
        error_us: one standard deviation of the measurement; of an interpolation what it missed its test probe by, and
            no less than the noise of the points it rests on.
        is_measured: which of the two.
    """

    latency_us: float
    error_us: float
    is_measured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A rectangle between four measured corners, in positions along the axes, and how well they explain its middle.

    Attributes:
        low, high: its corners nearest to and farthest from the origin; equal along an axis of one width.
        error_fraction: the miss of the middle probe relative to it; 0 where there is nothing between the corners.
    """

    low: Point
    high: Point
    error_fraction: float = 0.0

    @property
    def middle(self) -> Point:
        """The position between its corners; a corner itself along an axis with nothing between."""
        return (self.low[0] + self.high[0]) // 2, (self.low[1] + self.high[1]) // 2

    @property
    def is_full(self) -> bool:
        """Whether it holds no position but its corners."""
        return all(high - low <= 1 for low, high in zip(self.low, self.high, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Measured points over a grid of widths and the cells between them.

    Attributes:
        spec: the layer, at any of its widths.
        in_widths, out_widths: the widths along each axis, ascending. A layer whose sides are one has one axis: its
            ``out_widths`` are ``()`` and both sides follow ``in_widths``.
        steps: the staircase's step along each axis, 1 where none shows.
        points: measured latencies by position.
        cells: a partition of the grid.
    """

    spec: LayerSpec
    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]
    steps: tuple[int, int]
    points: Mapping[Point, Measurement]
    cells: tuple[Cell, ...] = field(repr=False)

    def at(self, in_channels: int, out_channels: int) -> Entry:
        """The latency at one pair of widths.

        Raises:
            UsageError: the surface was not laid over these widths.
        """
        position = self._position(in_channels, out_channels)
        if position in self.points:
            found = self.points[position]
            return Entry(latency_us=found.latency_us, error_us=noise_us(found), is_measured=True)
        cell = min(
            (cell for cell in self.cells if _contains(cell, position)), key=lambda cell: _area(cell), default=None
        )
        assert cell is not None, "cells cover the grid"
        latency_us = _bilinear(cell, position, self._coordinates(), self.points)
        noise = max(_noise_fraction(self.points[corner]) for corner in _corner_points(cell))
        return Entry(latency_us=latency_us, error_us=max(cell.error_fraction, noise) * latency_us, is_measured=False)

    def latencies_us(self, widths: Sequence[tuple[int, int]]) -> Floats:
        """Microseconds at every ``(in_channels, out_channels)``."""
        return np.asarray([self.at(*pair).latency_us for pair in widths])

    def _position(self, in_channels: int, out_channels: int) -> Point:
        try:
            column = self.out_widths.index(out_channels) if self.out_widths else 0
            return self.in_widths.index(in_channels), column
        except ValueError:
            raise UsageError(
                f"the latency surface of {self.spec} does not cover {in_channels}->{out_channels}; lay it over that"
            ) from None

    def _coordinates(self) -> tuple[Floats, Floats]:
        return _plateaus(self.in_widths, self.steps[0]), _plateaus(self.out_widths or (1,), self.steps[1])


def measure_surface(
    spec: LayerSpec,
    in_widths: Sequence[int],
    out_widths: Sequence[int],
    lookup: Lookup,
    *,
    effort: Effort | None = None,
    steps: tuple[int, int] | None = None,
) -> Surface:
    """Lays a surface over widths, measuring where it bends.

    Args:
        spec: the layer.
        in_widths, out_widths: ascending; ``out_widths`` empty for a layer whose two sides are the same channels.
        lookup: measures the specs it is asked for, or looks them up.
        effort: how far to refine.
        steps: the staircase's steps along both axes, where they are known; found by ladders of adjacent widths if not.

    Raises:
        UsageError: widths do not ascend, or the layer cannot have them.
    """
    for widths in (in_widths, out_widths):
        if list(widths) != sorted(set(widths)):
            raise UsageError(f"the widths of a surface must ascend, got {list(widths)[:8]}")
    survey = _Survey(spec, tuple(in_widths), tuple(out_widths), lookup, effort or Effort())
    found = steps or (survey.step(0), survey.step(1))
    return survey.refine(found)


class _Survey:
    """The points measured so far of one surface in the making."""

    def __init__(
        self, spec: LayerSpec, in_widths: tuple[int, ...], out_widths: tuple[int, ...], lookup: Lookup, effort: Effort
    ) -> None:
        self.spec, self.in_widths, self.out_widths = spec, in_widths, out_widths
        self.lookup, self.effort = lookup, effort
        self.points: dict[Point, Measurement] = {}

    def measure(self, positions: Sequence[Point]) -> None:
        """Measures what is not measured yet."""
        missing = [position for position in dict.fromkeys(positions) if position not in self.points]
        specs = [self._spec(position) for position in missing]
        rows = self.lookup(specs) if specs else {}
        self.points.update({position: rows[spec] for position, spec in zip(missing, specs, strict=True)})

    def _spec(self, position: Point) -> LayerSpec:
        in_channels = self.in_widths[position[0]]
        out_channels = self.out_widths[position[1]] if self.out_widths else in_channels
        if not self.out_widths and self.spec.in_channels != self.spec.out_channels:
            out_channels = self.spec.out_channels
        return self.spec.with_widths(in_channels, out_channels)

    def step(self, axis: int) -> int:
        """The staircase's step along an axis, from a ladder of adjacent widths at the middle of the other axis."""
        widths, others = (self.in_widths, self.out_widths)[:: 1 if axis == 0 else -1]
        if len(widths) < _LADDER:
            return 1
        middle = (len(others) - 1) // 2 if others else 0
        rungs = [(rung, middle) if axis == 0 else (middle, rung) for rung in range(_LADDER)]
        self.measure(rungs)
        rows = [self.points[rung] for rung in rungs]
        found = staircase_step(widths[:_LADDER], [row.latency_us for row in rows], [noise_us(row) for row in rows])
        return found or 1

    def refine(self, steps: tuple[int, int]) -> Surface:
        """Splits cells, the worst first, until all agree or the probes are used up."""
        axes = (self.in_widths, self.out_widths or (1,))
        coordinates = (_plateaus(axes[0], steps[0]), _plateaus(axes[1], steps[1]))
        lines = [_corners(widths, step) for widths, step in zip(axes, steps, strict=True)]
        self.measure([(row, column) for row in lines[0] for column in lines[1]])
        first = [
            Cell(low=(low, left), high=(high, right))
            for low, high in _spans(lines[0])
            for left, right in _spans(lines[1])
        ]
        waiting: list[tuple[float, Point, Point, Cell]] = []
        done: list[Cell] = []

        def test(cells: Sequence[Cell]) -> None:
            self.measure([cell.middle for cell in cells if not cell.is_full])
            for cell in cells:
                tested = self._tested(cell, coordinates)
                if tested.is_full or tested.error_fraction <= self.effort.max_error_fraction:
                    done.append(tested)
                else:
                    harm = tested.error_fraction * math.sqrt(_area(tested))
                    heapq.heappush(waiting, (-harm, tested.low, tested.high, tested))

        test(first)
        while waiting and len(self.points) < self.effort.max_probes:
            *_, cell = heapq.heappop(waiting)
            parts = _split(cell)
            self.measure([corner for part in parts for corner in _corner_points(part)])
            test(parts)
        return Surface(
            spec=self.spec,
            in_widths=self.in_widths,
            out_widths=self.out_widths,
            steps=steps,
            points=dict(self.points),
            cells=tuple(done + [cell for *_, cell in waiting]),
        )

    def _tested(self, cell: Cell, coordinates: tuple[Floats, Floats]) -> Cell:
        if cell.is_full:
            return cell
        found = self.points[cell.middle].latency_us
        expected = _bilinear(cell, cell.middle, coordinates, self.points)
        return Cell(low=cell.low, high=cell.high, error_fraction=abs(expected - found) / max(found, 1e-9))


# ---- geometry -------------------------------------------------------------------------------------------------------


def _plateaus(widths: Sequence[int], step: int) -> Floats:
    """Widths rounded up to their plateau's right edge."""
    return np.ceil(np.asarray(widths, float) / step) * step


def _corners(widths: Sequence[int], step: int) -> list[int]:
    """Positions of the first grid along an axis: both ends and, in geometric steps between, right edges of plateaus."""
    last = len(widths) - 1
    if last < _COARSE - 1:
        return list(range(last + 1))
    marks = np.geomspace(max(widths[0], 1), widths[-1], _COARSE)
    edges = [position for position, width in enumerate(widths) if width % step == 0] or list(range(last + 1))
    chosen = {0, last, *(min(edges, key=lambda position: abs(widths[position] - mark)) for mark in marks[1:-1])}
    return sorted(chosen)


def _spans(line: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(line)) or [(line[0], line[0])]


def _corner_points(cell: Cell) -> list[Point]:
    return [(row, column) for row in (cell.low[0], cell.high[0]) for column in (cell.low[1], cell.high[1])]


def _split(cell: Cell) -> list[Cell]:
    """Its two or four parts around its middle."""
    (top, left), (bottom, right), (row, column) = cell.low, cell.high, cell.middle
    rows = [(top, row), (row, bottom)] if bottom - top > 1 else [(top, bottom)]
    columns = [(left, column), (column, right)] if right - left > 1 else [(left, right)]
    return [Cell(low=(a, c), high=(b, d)) for a, b in rows for c, d in columns]


def _noise_fraction(measurement: Measurement) -> float:
    return noise_us(measurement) / max(measurement.latency_us, 1e-9)


def _contains(cell: Cell, position: Point) -> bool:
    return all(low <= at <= high for low, at, high in zip(cell.low, position, cell.high, strict=True))


def _area(cell: Cell) -> int:
    return max(1, cell.high[0] - cell.low[0]) * max(1, cell.high[1] - cell.low[1])


def _bilinear(
    cell: Cell, position: Point, coordinates: tuple[Floats, Floats], points: Mapping[Point, Measurement]
) -> float:
    """Between a cell's four corners, linear along each axis in plateau coordinates."""
    weights = []
    for axis in (0, 1):
        low, high, at = (coordinates[axis][p[axis]] for p in (cell.low, cell.high, position))
        share = (at - low) / (high - low) if high > low else 0.0
        weights.append(((cell.low[axis], 1 - share), (cell.high[axis], share)))
    return math.fsum(
        points[row, column].latency_us * vertical * horizontal
        for row, vertical in weights[0]
        for column, horizontal in weights[1]
        if vertical * horizontal
    )
