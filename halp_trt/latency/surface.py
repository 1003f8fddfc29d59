"""A layer's latency over both of its widths, from few probes.

A surface is laid over the widths that a layer may take, one axis for its inputs and one for its outputs. Cells between
measured corners are split where a probe in their middle differs from what their corners promise, until all cells agree
within a tolerance or the probes are used up. Between corners latency is bilinear in *climbed* coordinates: widths
rounded up to the staircase's steps, which within a period of tiles rise by what they cost. So a cliff falls where the
staircase has it and not half-way between two probes. The middle probe of a cell is not used by the cell it tests: its
miss is the cell's error bar.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.latency.staircase import Wave, climb, noise_us, plateau_wave, staircase_step
from halp_trt.specs import LayerSpec, Measurement

__all__ = [
    "Cell",
    "Effort",
    "Entry",
    "Grid",
    "Region",
    "Surface",
    "grid_surfaces",
    "least_probes",
    "measure_surface",
    "measure_surfaces",
    "usual_probes",
]

Lookup = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]
Floats = npt.NDArray[np.float64]
Point = tuple[int, int]
Asking = Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], None]
"""Yields the specs to measure next and is sent their rows."""

_COARSE = 4
"""Corners along each axis of the first grid, where there are as many widths."""
_MOST_SPLITS = 4
"""Cells that are split before the rest is looked at again."""
_LADDERS = ((8, 1), (17, 1), (17, 2))
"""Rungs measured along each axis to find its step, and how many widths they are apart; the longer ones where the axis
is long and the shorter show no step."""
_NARROW = 2
"""Rungs that are left out where with them no step shows: very narrow layers may have kernels of their own."""
_TILES = 8
"""Plateaus by which a staircase's rise is found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How far a surface is refined.

    Attributes:
        max_error_fraction: miss of a middle probe above which its cell is split.
        max_probes: measured points of one surface; its outermost corners are measured in any case.
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
        return self.error_us / np.maximum(self.latency_us, 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A rectangle between four measured corners, in positions along the axes, and how well they explain its middle.

    Attributes:
        low, high: its corners nearest to and farthest from the origin; equal along an axis of one width.
        error_fraction: the miss of the middle probe relative to it, or where no probe was left for that, how far its
            corners are apart relative to the fastest; 0 where there is nothing between the corners.
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
            ``out_widths`` are ``()``, and what it writes is to ``in_widths`` as in ``spec``.
        steps: the staircase's step along each axis, 1 where none shows.
        points: measured latencies by position.
        cells: a partition of the grid.
        waves: how the steps rise along each axis.
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
            if any(corner not in self.points for corner in _corner_points(cell)):
                raise UsageError(f"the corners of a surface's cell must be measured, got {cell}")
            known[cell.low[0] : cell.high[0] + 1, cell.low[1] : cell.high[1] + 1] = True
        for row, column in self.points:
            if not (0 <= row < known.shape[0] and 0 <= column < known.shape[1]):
                raise UsageError(f"a point of a surface must lie on its grid, got {(row, column)} on {known.shape}")
            known[row, column] = True
        if not known.all() or min(self.steps) < 1:
            raise UsageError(f"a surface must cover its grid, in steps of at least 1, got steps {self.steps}")

    @property
    def num_entries(self) -> int:
        """Pairs of widths it covers."""
        return len(self.in_widths) * max(1, len(self.out_widths))

    @property
    def key(self) -> tuple[LayerSpec, tuple[int, ...], tuple[int, ...]]:
        """What it is laid over: its layer at the widest, and the widths along each axis."""
        widest = self.out_widths[-1] if self.out_widths else _written(self.spec, self.in_widths[-1])
        return self.spec.with_widths(self.in_widths[-1], widest), self.in_widths, self.out_widths

    def covers(self, spec: LayerSpec) -> bool:
        """Whether ``spec`` is its layer at some of its widths."""
        if (spec.operator, spec.in_size, spec.kernel_size) != (
            self.spec.operator, self.spec.in_size, self.spec.kernel_size
        ):  # fmt: skip
            return False
        outs = self.out_widths or (_written(self.spec, spec.in_channels),)
        if spec.in_channels not in self.in_widths or spec.out_channels not in outs:
            return False
        try:
            return self.spec.with_widths(spec.in_channels, spec.out_channels) == spec
        except UsageError:  # the widths do not divide into this layer's groups
            return False

    def covers_all(self, spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> bool:
        """Whether ``spec`` is its layer, and all these pairs of widths are among its own."""
        if not self.covers(spec.with_widths(*widths[0])):
            return False
        ins, outs = set(self.in_widths), set(self.out_widths)
        if outs:
            return all(read in ins and written in outs for read, written in widths)
        return all(read in ins and written == _written(self.spec, read) for read, written in widths)

    def with_rows(self, rows: Mapping[LayerSpec, Measurement]) -> Surface:
        """This surface with every row of its layer among its points."""
        points = {
            self._position(spec.in_channels, spec.out_channels): row for spec, row in rows.items() if self.covers(spec)
        }
        return replace(self, points={**self.points, **points})

    def entries(self) -> Iterator[tuple[int, int, Entry]]:
        """Every pair of widths with its latency."""
        grid = self.grid()
        columns = zip(grid.latency_us.tolist(), grid.error_us.tolist(), grid.is_measured.tolist(), strict=True)
        for in_channels, row in zip(self.in_widths, columns, strict=True):
            outs = self.out_widths or (_written(self.spec, in_channels),)
            for out_channels, us, error, known in zip(outs, *row, strict=True):
                yield in_channels, out_channels, Entry(latency_us=us, error_us=error, is_measured=known)

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
        latency_us = float(_bilinear(cell, *position, self._coordinates(), self.points))
        return Entry(latency_us=latency_us, error_us=self._miss_fraction(cell) * latency_us, is_measured=False)

    def latencies_us(self, widths: Sequence[tuple[int, int]]) -> Floats:
        """Microseconds at every ``(in_channels, out_channels)``, to the bit what :meth:`at` tells.

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
        """All latencies at once; each is, to the bit, what :meth:`at` gives.

        Where cells touch, the smallest counts, and of equals the first: it is written last.
        """
        shape = len(self.in_widths), max(1, len(self.out_widths))
        latency_us, error_us, is_measured = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
        coordinates = self._coordinates()
        for cell in sorted(self.cells, key=_area)[::-1]:
            rows, columns = (np.arange(low, high + 1) for low, high in zip(cell.low, cell.high, strict=True))
            inside = np.ix_(rows, columns)
            latency_us[inside] = _bilinear(cell, rows[:, None], columns[None, :], coordinates, self.points)
            error_us[inside] = self._miss_fraction(cell) * latency_us[inside]
        for position, point in self.points.items():
            latency_us[position], error_us[position], is_measured[position] = point.latency_us, noise_us(point), True
        return Grid(latency_us=latency_us, error_us=error_us, is_measured=is_measured)

    def _miss_fraction(self, cell: Cell) -> float:
        """How far an interpolation in a cell may be off: the miss of its middle, no less than its corners' noise."""
        return max(cell.error_fraction, *(_noise_fraction(self.points[corner]) for corner in _corner_points(cell)))

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
        return climb(*ins), climb(*outs)


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
        out_channels = self.out_widths[position[1]] if self.out_widths else _written(self.spec, in_channels)
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
    return [
        Surface(
            spec=region.spec,
            in_widths=region.in_widths,
            out_widths=region.out_widths,
            steps=_steps_on({position: rows[spec] for position, spec in grid.items()}, region),
            points={position: rows[spec] for position, spec in grid.items()},
            cells=(),
        )
        for region, grid in zip(regions, grids, strict=True)
    ]


def _steps_on(points: Mapping[Point, Measurement], region: Region) -> tuple[int, int]:
    """The steps along both axes where every entry is measured."""
    effort = replace(region.effort, max_probes=2 * region.num_entries)
    survey = _Survey(replace(region, effort=effort))
    survey.points.update(points)
    inputs, outputs = (_answered(survey.step(axis)) for axis in (0, 1))
    return inputs, outputs


def _answered(asking: Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], int]) -> int:
    """What a survey finds that has nothing left to ask."""
    try:
        next(asking)
    except StopIteration as done:
        return int(done.value)
    raise AssertionError("all of its points are measured")


class _Survey:
    """The points measured so far of one surface in the making."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.steps = region.steps or (1, 1)
        self.waves: tuple[Wave, Wave] = ((), ())
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
            waves=self.waves,
        )

    def ask(self) -> Asking:
        """Finds the steps along both axes, then splits cells, the worst first, until all agree or probes run out."""
        if self.region.steps is None:
            steps = []
            for axis in (0, 1):
                steps.append((yield from self.step(axis)))
            self.steps = (steps[0], steps[1])
            inputs = yield from self._wave(0)
            outputs = yield from self._wave(1)
            self.waves = inputs, outputs
        yield from self._refine()

    def _measure(self, positions: Sequence[Point]) -> Asking:
        """Asks for what is not measured yet."""
        missing = [position for position in dict.fromkeys(positions) if position not in self.points]
        if missing:
            specs = [self.region.spec_at(position) for position in missing]
            rows = yield specs
            self.points.update({position: rows[spec] for position, spec in zip(missing, specs, strict=True)})

    def step(self, axis: int) -> Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], int]:
        """The staircase's step along an axis, from a ladder of adjacent widths at the middle of the other axis."""
        widths, others = (self.region.in_widths, self.region.out_widths)[:: 1 if axis == 0 else -1]
        middle = (len(others) - 1) // 2 if others else 0
        for length, stride in _LADDERS:
            if len(widths) < (length if length == _LADDERS[0][0] else 2 * length * stride):
                break
            places = range(stride - 1, length * stride, stride)
            rungs = [(place, middle) if axis == 0 else (middle, place) for place in places]
            if self._num_new(rungs) > self._num_left - least_probes(self.region):
                break
            yield from self._measure(rungs)
            rows = [self.points[rung] for rung in rungs]
            for first in (0, _NARROW):
                found = staircase_step(
                    widths[stride - 1 : length * stride : stride][first:],
                    [row.latency_us for row in rows[first:]],
                    [noise_us(row) for row in rows[first:]],
                )
                if found:
                    return found
        return 1

    def _wave(self, axis: int) -> Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], Wave]:
        """How the staircase rises along an axis, from the right edges of its first plateaus."""
        widths, others = (self.region.in_widths, self.region.out_widths)[:: 1 if axis == 0 else -1]
        step, middle = self.steps[axis], (len(others) - 1) // 2 if others else 0
        edges = [width * step for width in range(1, _TILES + 1)]
        if step == 1 or not set(edges) <= set(widths):
            return ()
        places = [widths.index(edge) for edge in edges]
        rungs = [(place, middle) if axis == 0 else (middle, place) for place in places]
        if self._num_new(rungs) > self._num_left - least_probes(self.region):
            return ()
        yield from self._measure(rungs)
        rows = [self.points[rung] for rung in rungs]
        return plateau_wave([row.latency_us for row in rows], [noise_us(row) for row in rows])

    def _refine(self) -> Asking:
        axes = (self.region.in_widths, self.region.out_widths or (1,))
        coordinates = (climb(axes[0], self.steps[0], self.waves[0]), climb(axes[1], self.steps[1], self.waves[1]))
        num_corners = next(
            (num for num in (_COARSE, _COARSE - 1) if _num_coarse(self.region.shape, num) <= self._num_left), 2
        )
        lines = [_corners(widths, step, num_corners) for widths, step in zip(axes, self.steps, strict=True)]
        yield from self._measure([(row, column) for row in lines[0] for column in lines[1]])
        waiting: list[tuple[float, Point, Point, Cell]] = []
        fresh = [
            Cell(low=(low, left), high=(high, right))
            for low, high in _spans(lines[0])
            for left, right in _spans(lines[1])
        ]
        while fresh:
            middles = [cell.middle for cell in fresh if not cell.is_full]
            yield from self._measure(middles[: max(0, self._num_left)])
            for cell in (self._tested(cell, coordinates) for cell in fresh):
                if cell.is_full or cell.error_fraction <= self.region.effort.max_error_fraction:
                    self.cells.append(cell)
                else:
                    harm = cell.error_fraction * math.sqrt(_area(cell))
                    heapq.heappush(waiting, (-harm, cell.low, cell.high, cell))
            fresh = self._next_splits(waiting)
            yield from self._measure([corner for part in fresh for corner in _corner_points(part)])
        self.cells.extend(cell for *_, cell in waiting)

    def _next_splits(self, waiting: list[tuple[float, Point, Point, Cell]]) -> list[Cell]:
        """The parts of the worst cells that there are probes left for; none where there are not."""
        found: list[Cell] = []
        for _ in range(min(len(waiting), _MOST_SPLITS)):
            cell = heapq.heappop(waiting)[-1]
            parts = [*found, *_split(cell)]
            if self._num_new([corner for part in parts for corner in _corner_points(part)]) <= self._num_left:
                found = parts
            else:
                self.cells.append(cell)
        return found if found or not waiting else self._next_splits(waiting)

    @property
    def _num_left(self) -> int:
        """Probes that may still be taken."""
        return self.region.effort.max_probes - len(self.points)

    def _num_new(self, positions: Sequence[Point]) -> int:
        return len(set(positions) - self.points.keys())

    def _tested(self, cell: Cell, coordinates: tuple[Floats, Floats]) -> Cell:
        if cell.is_full:
            return cell
        if cell.middle not in self.points:  # no probe was left: how far its corners are apart bounds what is missed
            corners = [self.points[corner].latency_us for corner in _corner_points(cell)]
            return replace(cell, error_fraction=(max(corners) - min(corners)) / max(min(corners), 1e-9))
        found = self.points[cell.middle].latency_us
        expected = float(_bilinear(cell, *cell.middle, coordinates, self.points))
        return replace(cell, error_fraction=abs(expected - found) / max(found, 1e-9))


# ---- geometry -------------------------------------------------------------------------------------------------------


def least_probes(region: Region) -> int:
    """The outermost corners, without which there is no surface."""
    return _num_coarse(region.shape, 2)


def usual_probes(region: Region) -> int:
    """Ladders along both axes, the first grid and a test of each of its cells, where nothing bends."""
    ladders = sum(_LADDERS[0][0] for length in region.shape if length >= _LADDERS[0][0])
    return min(region.num_entries, ladders + _num_coarse(region.shape, _COARSE))


def _num_coarse(shape: tuple[int, int], num_corners: int) -> int:
    """Corners of a first grid of ``num_corners`` along each axis, and, unless they are the outermost alone, tests."""
    across, down = (min(length, num_corners) for length in shape)
    tests = max(across - 1, 1) * max(down - 1, 1) if num_corners > 2 else 0
    return min(math.prod(shape), across * down + tests)


def _corners(widths: Sequence[int], step: int, num: int) -> list[int]:
    """Positions of the first grid along an axis: both ends and, in geometric steps between, right edges of plateaus."""
    last = len(widths) - 1
    if last < num - 1:
        return list(range(last + 1))
    marks = np.geomspace(max(widths[0], 1), widths[-1], num)
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


def _written(spec: LayerSpec, in_channels: int) -> int:
    """What a layer whose sides are one writes when it reads ``in_channels``."""
    return in_channels * spec.out_channels // spec.in_channels


def _bilinear(
    cell: Cell, rows: Any, columns: Any, coordinates: tuple[Floats, Floats], points: Mapping[Point, Measurement]
) -> Any:
    """Between a cell's four corners, linear along each axis in climbed coordinates; rows and columns may be arrays."""
    weights = []
    for axis, positions in ((0, rows), (1, columns)):
        low, high = (coordinates[axis][corner[axis]] for corner in (cell.low, cell.high))
        at = coordinates[axis][positions]
        share = (at - low) / (high - low) if high > low else 0.0 * at
        weights.append(((cell.low[axis], 1 - share), (cell.high[axis], share)))
    return sum(
        points[row, column].latency_us * vertical * horizontal
        for row, vertical in weights[0]
        for column, horizontal in weights[1]
    )
