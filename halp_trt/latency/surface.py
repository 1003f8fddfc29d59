"""A layer's latency over both of its widths: measured points, and cells between them.

Between a cell's corners latency is bilinear in *stair coordinates*: widths are rounded up to the staircase's steps and
spaced within a period of tiles by the plateaus' heights. So a cliff falls where the staircase has it, not half-way
between two probes. The middle probe of a cell does not enter its interpolation: its distance from it is the cell's
error bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.latency.cells import Cell, Floats, Point, area, bilinear, contains, corner_points
from halp_trt.latency.staircase import Wave, noise_us, stair_coordinate
from halp_trt.specs import LayerSpec, Measurement

__all__ = ["Entry", "Grid", "Surface", "written_width"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Latency at one pair of widths.

    Attributes:
        latency_us: measured or interpolated.
        error_us: one standard error of a measurement; for an interpolation its distance from the test probe of its
            cell, and no less than the noise of the points it rests on.
        is_measured: True for a measurement, False for an interpolation.
    """

    latency_us: float
    error_us: float
    is_measured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every entry of a surface as arrays, see :class:`Entry`.

    A row is an input width, a column an output width; a one-sided layer has a single column.
    """

    latency_us: Floats
    error_us: Floats
    is_measured: npt.NDArray[np.bool_]

    @property
    def error_fraction(self) -> Floats:
        """Errors relative to the latencies."""
        return self.error_us / np.maximum(self.latency_us, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Measured points over a grid of widths and the cells between them.

    Attributes:
        spec: the layer, at any of its widths.
        in_widths, out_widths: the widths along each axis, ascending. A one-sided layer (the channels it reads are those
            it writes) has one axis: its ``out_widths`` are ``()``, and its output width follows from ``spec``.
        steps: the staircase's step along each axis; 1: none seen.
        points: measured latencies by position.
        cells: a partition of the grid.
        waves: the heights of the steps within a period, along each axis.
    """

    spec: LayerSpec
    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]
    steps: tuple[int, int]
    points: Mapping[Point, Measurement]
    cells: tuple[Cell, ...] = field(repr=False)
    waves: tuple[Wave, Wave] = ((), ())

    def __post_init__(self) -> None:
        known = np.zeros((len(self.in_widths), max(1, len(self.out_widths))), bool)
        for cell in self.cells:
            if not all(0 <= low <= high for low, high in zip(cell.low, cell.high, strict=True)):
                raise UsageError(f"a cell of a surface must ascend, got {cell}")
            if any(corner not in self.points for corner in corner_points(cell)):
                raise UsageError(f"the corners of a surface's cell must be measured, got {cell}")
            known[cell.low[0] : cell.high[0] + 1, cell.low[1] : cell.high[1] + 1] = True
        for row, column in self.points:
            if not (0 <= row < known.shape[0] and 0 <= column < known.shape[1]):
                raise UsageError(f"a point of a surface must lie on its grid, got {(row, column)} on {known.shape}")
            known[row, column] = True
        if not known.all() or min(self.steps) < 1:
            raise UsageError(f"a surface must cover its grid, in steps of at least 1, got steps {self.steps}")
        for wave in self.waves:
            if any(not low <= high for low, high in pairwise((0.0, *wave, 1.0))):
                raise UsageError(f"the plateaus of a surface must rise from 0 to 1, got {wave}")

    @property
    def num_entries(self) -> int:
        """The number of pairs of widths it covers."""
        return len(self.in_widths) * max(1, len(self.out_widths))

    @property
    def num_bytes(self) -> int:
        """The footprint of the network its points were measured in; 0 if unknown."""
        return next((row.footprint_bytes for row in self.points.values()), 0)

    @property
    def rows(self) -> dict[LayerSpec, Measurement]:
        """Its points as a table's rows: measurements by layer spec."""
        outs = self.out_widths or tuple(written_width(self.spec, width) for width in self.in_widths)
        return {
            self.spec.with_widths(self.in_widths[row], outs[column if self.out_widths else row]): measurement
            for (row, column), measurement in self.points.items()
        }

    @property
    def key(self) -> tuple[LayerSpec, tuple[int, ...], tuple[int, ...]]:
        """Its place in a table: its layer at the widest, and the widths along each axis."""
        widest = self.out_widths[-1] if self.out_widths else written_width(self.spec, self.in_widths[-1])
        return self.spec.with_widths(self.in_widths[-1], widest), self.in_widths, self.out_widths

    def covers(self, spec: LayerSpec) -> bool:
        """True if ``spec`` is its layer at some of its widths."""
        if (spec.operator, spec.in_size, spec.kernel_size) != (
            self.spec.operator, self.spec.in_size, self.spec.kernel_size
        ):  # fmt: skip
            return False
        outs = self.out_widths or (written_width(self.spec, spec.in_channels),)
        if spec.in_channels not in self.in_widths or spec.out_channels not in outs:
            return False
        try:
            return self.spec.with_widths(spec.in_channels, spec.out_channels) == spec
        except UsageError:  # the widths do not divide into this layer's groups
            return False

    def covers_all(self, spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> bool:
        """True if ``spec`` is its layer, and all these pairs of widths are among its own."""
        if not self.covers(spec.with_widths(*widths[0])):
            return False
        ins, outs = set(self.in_widths), set(self.out_widths)
        if outs:
            return all(read in ins and written in outs for read, written in widths)
        return all(read in ins and written == written_width(self.spec, read) for read, written in widths)

    def with_rows(self, rows: Mapping[LayerSpec, Measurement]) -> Surface:
        """This surface with every row of its layer among its points."""
        points = {
            self._position(spec.in_channels, spec.out_channels): row for spec, row in rows.items() if self.covers(spec)
        }
        return replace(self, points={**self.points, **points})

    def at_speed(self, speed_us: float) -> Surface:
        """This surface with its points as :meth:`Measurement.at_speed` gives them."""
        return replace(self, points={point: row.at_speed(speed_us) for point, row in self.points.items()})

    def entries(self) -> Iterator[tuple[int, int, Entry]]:
        """Yields ``(in_channels, out_channels, entry)`` for every pair of widths."""
        grid = self.grid()
        columns = zip(grid.latency_us.tolist(), grid.error_us.tolist(), grid.is_measured.tolist(), strict=True)
        for in_channels, row in zip(self.in_widths, columns, strict=True):
            outs = self.out_widths or (written_width(self.spec, in_channels),)
            for out_channels, us, error, known in zip(outs, *row, strict=True):
                yield in_channels, out_channels, Entry(latency_us=us, error_us=error, is_measured=known)

    def at(self, in_channels: int, out_channels: int) -> Entry:
        """The latency at one pair of widths.

        Raises:
            UsageError: the surface was not laid over these widths.
        """
        position = self._position(in_channels, out_channels)
        if position in self.points:
            point = self.points[position]
            return Entry(latency_us=point.latency_us, error_us=noise_us(point), is_measured=True)
        cell = min((cell for cell in self.cells if contains(cell, position)), key=lambda cell: area(cell), default=None)
        assert cell is not None, "cells cover the grid"
        latency_us = float(bilinear(cell, *position, self._coordinates(), self.points))
        return Entry(latency_us=latency_us, error_us=self._miss_fraction(cell) * latency_us, is_measured=False)

    def latencies_us(self, widths: Sequence[tuple[int, int]]) -> Floats:
        """Microseconds at every ``(in_channels, out_channels)``; bit-equal to :meth:`at`.

        Raises:
            UsageError: the surface was not laid over some of these widths.
        """
        rows, columns = (
            {width: place for place, width in enumerate(axis)} for axis in (self.in_widths, self.out_widths)
        )
        grid = self.grid().latency_us
        try:
            return np.asarray([grid[rows[read], columns[written] if columns else 0] for read, written in widths])
        except KeyError:
            raise self._uncovered(*next(pair for pair in widths if not self._has(*pair))) from None

    def grid(self) -> Grid:
        """All entries at once, each bit-equal to :meth:`at`.

        On an edge shared by cells the smallest cell counts, among equals the first: it is written last.
        """
        shape = len(self.in_widths), max(1, len(self.out_widths))
        latency_us, error_us, is_measured = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
        coordinates = self._coordinates()
        for cell in sorted(self.cells, key=area)[::-1]:
            rows, columns = (np.arange(low, high + 1) for low, high in zip(cell.low, cell.high, strict=True))
            inside = np.ix_(rows, columns)
            latency_us[inside] = bilinear(cell, rows[:, None], columns[None, :], coordinates, self.points)
            error_us[inside] = self._miss_fraction(cell) * latency_us[inside]
        for position, point in self.points.items():
            latency_us[position], error_us[position], is_measured[position] = point.latency_us, noise_us(point), True
        return Grid(latency_us=latency_us, error_us=error_us, is_measured=is_measured)

    def _miss_fraction(self, cell: Cell) -> float:
        """The error of interpolations in a cell: the miss at its middle, no less than its corners' noise."""
        return max(cell.error_fraction, *(_noise_fraction(self.points[corner]) for corner in corner_points(cell)))

    def _position(self, in_channels: int, out_channels: int) -> Point:
        if not self._has(in_channels, out_channels):
            raise self._uncovered(in_channels, out_channels)
        column = self.out_widths.index(out_channels) if self.out_widths else 0
        return self.in_widths.index(in_channels), column

    def _has(self, in_channels: int, out_channels: int) -> bool:
        return in_channels in self.in_widths and (not self.out_widths or out_channels in self.out_widths)

    def _uncovered(self, in_channels: int, out_channels: int) -> UsageError:
        return UsageError(
            f"the latency surface of {self.spec} does not cover {in_channels}->{out_channels}; lay it over that"
        )

    def _coordinates(self) -> tuple[Floats, Floats]:
        ins, outs = zip((self.in_widths, self.out_widths or (1,)), self.steps, self.waves, strict=True)
        return stair_coordinate(*ins), stair_coordinate(*outs)


def _noise_fraction(measurement: Measurement) -> float:
    return noise_us(measurement) / max(measurement.latency_us, 1e-9)


def written_width(spec: LayerSpec, in_channels: int) -> int:
    """Output width of a layer whose input and output channels are the same group, at an input width."""
    return in_channels * spec.out_channels // spec.in_channels
