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
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.latency.staircase import noise_us, staircase_step
from halp_trt.specs import LayerSpec, Measurement

__all__ = [
    "Cell",
    "Effort",
    "Entry",
    "Grid",
    "Region",
    "Surface",
    "grid_surfaces",
    "measure_surface",
    "measure_surfaces",
]

Lookup = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]
Floats = npt.NDArray[np.float64]
Point = tuple[int, int]
_LEAST_US = 1e-9
"""What relative errors are taken of where a latency is 0."""
Asking = Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], None]
"""Yields the specs to measure next and is sent their rows."""

_COARSE = 4
"""Corners along each axis of the first grid, where there are as many widths."""
_PROBES_A_SPLIT, _MOST_SPLITS = 9, 4
"""Corners and middles that a split cell's parts need, and cells that are split before the rest is looked at again."""
_LADDERS = (8, 17)
"""Adjacent widths measured along each axis to find its step; the longer where the shorter shows none."""


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
class Grid:
    """Every entry of a surface: the same as :class:`Entry`, in arrays of one row an input width, one column an output
    width (one column in all where both sides are one).
    """

    latency_us: Floats
    error_us: Floats
    is_measured: npt.NDArray[np.bool_]

    @property
    def error_fraction(self) -> Floats:
        """Errors relative to the latencies."""
        return self.error_us / np.maximum(self.latency_us, _LEAST_US)


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

    @property
    def num_entries(self) -> int:
        """Pairs of widths it covers."""
        return len(self.in_widths) * max(1, len(self.out_widths))

    @property
    def key(self) -> tuple[LayerSpec, tuple[int, ...], tuple[int, ...]]:
        """What it is laid over: its layer at the widest, and the widths along each axis."""
        widest = self.out_widths[-1] if self.out_widths else self.in_widths[-1]
        is_twin = not self.out_widths and self.spec.in_channels != self.spec.out_channels
        spec = self.spec.with_widths(self.in_widths[-1], self.spec.out_channels if is_twin else widest)
        return spec, self.in_widths, self.out_widths

    def covers(self, spec: LayerSpec) -> bool:
        """Whether ``spec`` is its layer at some of its widths."""
        try:
            widest, in_widths, out_widths = self.key
            if spec.with_widths(widest.in_channels, widest.out_channels) != widest:
                return False
        except UsageError:  # the widths do not divide into the other layer's groups
            return False
        return spec.in_channels in in_widths and (not out_widths or spec.out_channels in out_widths)

    def entries(self) -> Iterator[tuple[int, int, Entry]]:
        """Every pair of widths with its latency."""
        grid = self.grid()
        columns = zip(grid.latency_us.tolist(), grid.error_us.tolist(), grid.is_measured.tolist(), strict=True)
        for in_channels, row in zip(self.in_widths, columns, strict=True):
            for out_channels, us, error, known in zip(self.out_widths or (in_channels,), *row, strict=True):
                yield in_channels, out_channels, Entry(latency_us=us, error_us=error, is_measured=known)

    def grid(self) -> Grid:
        """All latencies at once; each is what :meth:`at` gives."""
        shape = len(self.in_widths), max(1, len(self.out_widths))
        latency_us, error_us, is_measured = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
        coordinates = self._coordinates()
        # Where cells touch the smallest counts, and of equals the first: it is written last.
        for cell in sorted(self.cells, key=_area)[::-1]:
            inside = slice(cell.low[0], cell.high[0] + 1), slice(cell.low[1], cell.high[1] + 1)
            latency_us[inside] = _bilinear(cell, inside, coordinates, self.points)
            error_us[inside] = self._miss_fraction(cell) * latency_us[inside]
        for position, found in self.points.items():
            latency_us[position], error_us[position] = found.latency_us, noise_us(found)
            is_measured[position] = True
        return Grid(latency_us=latency_us, error_us=error_us, is_measured=is_measured)

    def at(self, in_channels: int, out_channels: int) -> Entry:
        """The latency at one pair of widths.

        Raises:
            UsageError: the surface was not laid over these widths.
        """
        position = self._position(in_channels, out_channels)
        if position in self.points:
            found = self.points[position]
            return Entry(latency_us=found.latency_us, error_us=noise_us(found), is_measured=True)
        cell = min((cell for cell in self.cells if _contains(cell, position)), key=_area, default=None)
        assert cell is not None, "cells cover the grid"
        latency_us = _bilinear_at(cell, position, self._coordinates(), self.points)
        return Entry(latency_us=latency_us, error_us=self._miss_fraction(cell) * latency_us, is_measured=False)

    def latencies_us(self, widths: Sequence[tuple[int, int]]) -> Floats:
        """Microseconds at every ``(in_channels, out_channels)``."""
        latency_us = self.grid().latency_us
        rows = {width: row for row, width in enumerate(self.in_widths)}
        columns = {width: column for column, width in enumerate(self.out_widths)}
        try:
            return np.asarray([latency_us[rows[a], columns[b] if columns else 0] for a, b in widths])
        except KeyError:
            for pair in widths:
                self._position(*pair)  # says which
            raise

    def _miss_fraction(self, cell: Cell) -> float:
        """How far an interpolation in a cell may be off: the miss of its middle, no less than its corners' noise."""
        return max(cell.error_fraction, *(_noise_fraction(self.points[corner]) for corner in _corner_points(cell)))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """What a surface is to be laid over.

    Attributes:
        spec: the layer.
        in_widths, out_widths: ascending; ``out_widths`` empty for a layer whose two sides are the same channels.
        effort: how far to refine.
        steps: the staircase's steps along both axes, where they are known; found by ladders of adjacent widths if not.
    """

    spec: LayerSpec
    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]
    effort: Effort = field(default_factory=Effort)
    steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for widths in (self.in_widths, self.out_widths):
            if list(widths) != sorted(set(widths)):
                raise UsageError(f"the widths of a surface must ascend, got {list(widths)[:8]}")

    @property
    def shape(self) -> tuple[int, int]:
        """Widths along each axis; an axis that there is not counts one."""
        return len(self.in_widths), max(1, len(self.out_widths))

    @property
    def num_entries(self) -> int:
        """Pairs of widths it covers."""
        return math.prod(self.shape)

    def spec_at(self, position: Point) -> LayerSpec:
        """The layer at a position along the axes."""
        in_channels = self.in_widths[position[0]]
        out_channels = self.out_widths[position[1]] if self.out_widths else in_channels
        if not self.out_widths and self.spec.in_channels != self.spec.out_channels:
            out_channels = self.spec.out_channels
        return self.spec.with_widths(in_channels, out_channels)


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
        spec, in_widths, out_widths, steps: as in :class:`Region`.
        lookup: measures the specs it is asked for, or looks them up.
        effort: how far to refine.

    Raises:
        UsageError: widths do not ascend, or the layer cannot have them.
    """
    region = Region(
        spec=spec, in_widths=tuple(in_widths), out_widths=tuple(out_widths), effort=effort or Effort(), steps=steps
    )
    return measure_surfaces([region], lookup)[0]


def measure_surfaces(regions: Sequence[Region], lookup: Lookup) -> list[Surface]:
    """Lays several surfaces at once: what they want to know next is asked for together.

    Raises:
        UsageError: a layer cannot have its region's widths.
    """
    surveys = [_Survey(region) for region in regions]
    asking = {index: survey.ask() for index, survey in enumerate(surveys)}
    answers: Mapping[LayerSpec, Measurement] | None = None
    while asking:
        wanted: dict[LayerSpec, None] = {}
        for index, questions in list(asking.items()):
            try:
                asked = next(questions) if answers is None else questions.send(answers)
                wanted.update(dict.fromkeys(asked))
            except StopIteration:
                del asking[index]
        answers = lookup(list(wanted)) if wanted else {}
    return [survey.surface() for survey in surveys]


def grid_surfaces(regions: Sequence[Region], lookup: Lookup) -> list[Surface]:
    """Surfaces of which every entry is measured.

    Raises:
        UsageError: a layer cannot have its region's widths.
    """
    grids = [
        {(row, column): region.spec_at((row, column)) for row, column in product(*map(range, region.shape))}
        for region in regions
    ]
    rows = lookup(list({spec: None for grid in grids for spec in grid.values()}))
    points = [{position: rows[spec] for position, spec in grid.items()} for grid in grids]
    return [
        Surface(
            spec=region.spec,
            in_widths=region.in_widths,
            out_widths=region.out_widths,
            steps=region.steps or _steps_on_grid(region, found),
            points=found,
            cells=(),
        )
        for region, found in zip(regions, points, strict=True)
    ]


class _Survey:
    """The points measured so far of one surface in the making."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.steps = region.steps or (1, 1)
        self.points: dict[Point, Measurement] = {}
        self.cells: list[Cell] = []

    def surface(self) -> Surface:
        """What was found."""
        return Surface(
            spec=self.region.spec,
            in_widths=self.region.in_widths,
            out_widths=self.region.out_widths,
            steps=self.steps,
            points=dict(self.points),
            cells=tuple(self.cells),
        )

    def ask(self) -> Asking:
        """Finds the steps along both axes, then splits cells, the worst first, until all agree or probes run out."""
        if self.region.steps is None:
            steps = []
            for axis in (0, 1):
                steps.append((yield from self._step(axis)))
            self.steps = (steps[0], steps[1])
        yield from self._refine()

    def _measure(self, positions: Sequence[Point]) -> Asking:
        """Asks for what is not measured yet."""
        missing = [position for position in dict.fromkeys(positions) if position not in self.points]
        if missing:
            specs = [self.region.spec_at(position) for position in missing]
            rows = yield specs
            self.points.update({position: rows[spec] for position, spec in zip(missing, specs, strict=True)})

    def _step(self, axis: int) -> Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], int]:
        """The staircase's step along an axis, 1 where none shows."""
        for rungs in _ladders(self.region, axis):
            yield from self._measure(rungs)
            found = _step_on(self.region, axis, rungs, self.points)
            if found:
                return found
        return 1

    def _refine(self) -> Asking:
        axes = (self.region.in_widths, self.region.out_widths or (1,))
        coordinates = (_plateaus(axes[0], self.steps[0]), _plateaus(axes[1], self.steps[1]))
        lines = [_corners(widths, step) for widths, step in zip(axes, self.steps, strict=True)]
        yield from self._measure([(row, column) for row in lines[0] for column in lines[1]])
        waiting: list[tuple[float, Point, Point, Cell]] = []
        fresh = [
            Cell(low=(low, left), high=(high, right))
            for low, high in _spans(lines[0])
            for left, right in _spans(lines[1])
        ]
        effort = self.region.effort
        while True:
            yield from self._measure([cell.middle for cell in fresh if not cell.is_full])
            for cell in (self._tested(cell, coordinates) for cell in fresh):
                if cell.is_full or cell.error_fraction <= effort.max_error_fraction:
                    self.cells.append(cell)
                else:
                    harm = cell.error_fraction * math.sqrt(_area(cell))
                    heapq.heappush(waiting, (-harm, cell.low, cell.high, cell))
            if not waiting or len(self.points) >= effort.max_probes:
                break
            room = effort.max_probes - len(self.points)
            worst = min(len(waiting), max(1, room // _PROBES_A_SPLIT), _MOST_SPLITS)
            fresh = [part for _ in range(worst) for part in _split(heapq.heappop(waiting)[-1])]
            yield from self._measure([corner for part in fresh for corner in _corner_points(part)])
        self.cells.extend(cell for *_, cell in waiting)

    def _tested(self, cell: Cell, coordinates: tuple[Floats, Floats]) -> Cell:
        if cell.is_full:
            return cell
        found = self.points[cell.middle].latency_us
        expected = _bilinear_at(cell, cell.middle, coordinates, self.points)
        return Cell(low=cell.low, high=cell.high, error_fraction=abs(expected - found) / max(found, _LEAST_US))


# ---- steps ----------------------------------------------------------------------------------------------------------


def _ladders(region: Region, axis: int) -> Iterator[list[Point]]:
    """Adjacent widths along an axis, at the middle of the other: few, then more."""
    widths, others = (region.in_widths, region.out_widths)[:: 1 if axis == 0 else -1]
    middle = (len(others) - 1) // 2 if others else 0
    for length in _LADDERS:
        if len(widths) < (length if length == _LADDERS[0] else 2 * length):
            break
        yield [(rung, middle) if axis == 0 else (middle, rung) for rung in range(length)]


def _step_on(region: Region, axis: int, rungs: Sequence[Point], points: Mapping[Point, Measurement]) -> int | None:
    """The step that a ladder shows."""
    widths, rows = (region.in_widths, region.out_widths)[axis], [points[rung] for rung in rungs]
    return staircase_step(widths[: len(rungs)], [row.latency_us for row in rows], [noise_us(row) for row in rows])


def _steps_on_grid(region: Region, points: Mapping[Point, Measurement]) -> tuple[int, int]:
    """The steps along both axes where everything is measured."""
    inputs, outputs = (
        next((found for rungs in _ladders(region, axis) if (found := _step_on(region, axis, rungs, points))), 1)
        for axis in (0, 1)
    )
    return inputs, outputs


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
    return noise_us(measurement) / max(measurement.latency_us, _LEAST_US)


def _contains(cell: Cell, position: Point) -> bool:
    return all(low <= at <= high for low, at, high in zip(cell.low, position, cell.high, strict=True))


def _area(cell: Cell) -> int:
    return max(1, cell.high[0] - cell.low[0]) * max(1, cell.high[1] - cell.low[1])


def _bilinear_at(
    cell: Cell, position: Point, coordinates: tuple[Floats, Floats], points: Mapping[Point, Measurement]
) -> float:
    """Between a cell's four corners at one position."""
    row, column = position
    return float(_bilinear(cell, (slice(row, row + 1), slice(column, column + 1)), coordinates, points)[0, 0])


def _bilinear(
    cell: Cell, inside: tuple[slice, slice], coordinates: tuple[Floats, Floats], points: Mapping[Point, Measurement]
) -> Floats:
    """Between a cell's four corners at some rows and columns of it, linear along each axis in plateau coordinates."""
    shares = []
    for axis in (0, 1):
        low, high = (coordinates[axis][corner[axis]] for corner in (cell.low, cell.high))
        share = (coordinates[axis][inside[axis]] - low) / (high - low if high > low else 1.0)
        shares.append((1 - share, share))
    sums = np.zeros((len(shares[0][0]), len(shares[1][0])))
    for row, vertical in zip((cell.low[0], cell.high[0]), shares[0], strict=True):
        for column, horizontal in zip((cell.low[1], cell.high[1]), shares[1], strict=True):
            sums += points[row, column].latency_us * vertical[:, None] * horizontal
    return sums
