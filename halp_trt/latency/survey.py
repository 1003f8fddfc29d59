"""Laying surfaces over layers' widths, from few probes.

A surface has one axis for a layer's inputs and one for its outputs. Ladders of adjacent widths show the steps of the
staircase along each, and how its plateaus rise. Then cells between measured corners are split where a probe in their
middle differs from what their corners promise, until all cells agree within a tolerance or the probes are used up.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np

from halp_trt.latency.cells import Cell, Floats, Point, area, bilinear, corner_points, split
from halp_trt.latency.region import COARSE, LADDERS, Effort, Region, least_probes, num_coarse
from halp_trt.latency.staircase import Wave, noise_us, plateau_wave, stair_coordinate, staircase_step
from halp_trt.latency.surface import Surface
from halp_trt.specs import LayerSpec, Measurement

__all__ = ["grid_surfaces", "measure_surface", "measure_surfaces"]

Lookup = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]
Asking = Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], None]
"""A generator that yields the specs to measure next and is sent their rows."""

_MOST_SPLITS = 4
"""Cells split in one go before the queue is looked at again."""
_PROBES_OF_A_SPLIT = 9
"""Probes a split takes at most: corners and middles of a cell's parts."""
_NARROW = 2
"""Narrowest rungs left out if no step shows with them: very narrow layers may have kernels of their own."""
_TILES = 8
"""Plateaus measured to find a staircase's rise."""
_WITHIN = 2.0
"""A miss of up to 2 standard errors counts as noise."""
_APART = 3.0
"""A difference above 3 standard errors between two widths of one plateau is no noise."""


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
    """Lays several surfaces at once; each round's probes of all surfaces are measured together.

    If all cells of a surface agree, its remaining probes go to surfaces without any left.

    Raises:
        UsageError: a layer cannot have its region's widths.
    """
    surveys = [_Survey(region) for region in regions]
    _answer([survey.ask() for survey in surveys], lookup)
    num_left = sum(survey.num_left for survey in surveys)
    while num_left > 0 and (short := sorted((s for s in surveys if s.waiting), key=lambda s: s.waiting[0][0])):
        short = short[: max(1, num_left // _PROBES_OF_A_SPLIT)]
        shares = [num_left // len(short) + (index < num_left % len(short)) for index in range(len(short))]
        before = sum(survey.num_points for survey in short)
        _answer([survey.go_on(share) for survey, share in zip(short, shares, strict=True)], lookup)
        num_taken = sum(survey.num_points for survey in short) - before
        if not num_taken:
            break
        num_left -= num_taken
    return [survey.surface() for survey in surveys]


def _answer(surveys: Sequence[Asking], lookup: Lookup) -> None:
    """Runs surveys side by side to their ends, looking up each round's questions of all of them in one call."""
    asking = dict(enumerate(surveys))
    answers: Mapping[LayerSpec, Measurement] | None = None
    while asking:
        specs: dict[LayerSpec, None] = {}
        for index, questions in list(asking.items()):
            try:
                question = next(questions) if answers is None else questions.send(answers)
                specs.update(dict.fromkeys(question))
            except StopIteration:
                del asking[index]
        answers = lookup(list(specs)) if specs else {}


def grid_surfaces(regions: Sequence[Region], lookup: Lookup) -> list[Surface]:
    """Surfaces with every entry measured.

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
    inputs, outputs = (_finished(survey.step(axis)) for axis in (0, 1))
    return inputs, outputs


def _finished(asking: Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], int]) -> int:
    """Runs a survey whose points are all measured and returns its result."""
    try:
        next(asking)
    except StopIteration as end:
        return int(end.value)
    raise AssertionError("all of its points are measured")


class _Survey:
    """The points measured so far of one surface in the making."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.steps = region.steps or (1, 1)
        self.waves: tuple[Wave, Wave] = ((), ())
        self.points: dict[Point, Measurement] = {}
        self.cells: list[Cell] = []
        self.waiting: list[tuple[float, Point, Point, Cell]] = []

    def surface(self) -> Surface:
        """The surface over all points so far."""
        return Surface(
            spec=self.region.spec,
            in_widths=self.region.in_widths,
            out_widths=self.region.out_widths,
            steps=self.steps,
            points=dict(self.points),
            cells=(*self.cells, *(cell for *_, cell in sorted(self.waiting, key=lambda entry: entry[:3]))),
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
        """Asks for the positions that are not measured yet."""
        missing = [position for position in dict.fromkeys(positions) if position not in self.points]
        if missing:
            specs = [self.region.spec_at(position) for position in missing]
            rows = yield specs
            self.points.update({position: rows[spec] for position, spec in zip(missing, specs, strict=True)})

    def step(self, axis: int) -> Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], int]:
        """The staircase's step along an axis, from a ladder of adjacent widths at the middle of the other axis."""
        widths, others = (self.region.in_widths, self.region.out_widths)[:: 1 if axis == 0 else -1]
        middle = (len(others) - 1) // 2 if others else 0
        for length, stride in LADDERS:
            if len(widths) < (length if length == LADDERS[0][0] else 2 * length * stride):
                break
            places = range(stride - 1, length * stride, stride)
            rungs = [(place, middle) if axis == 0 else (middle, place) for place in places]
            if self._num_new(rungs) > self.num_left - least_probes(self.region):
                break
            yield from self._measure(rungs)
            rows = [self.points[rung] for rung in rungs]
            for first in (0, _NARROW):
                stair = staircase_step(
                    widths[stride - 1 : length * stride : stride][first:],
                    [row.latency_us for row in rows[first:]],
                    [noise_us(row) for row in rows[first:]],
                )
                if stair:
                    return stair
        return 1

    def _wave(self, axis: int) -> Generator[Sequence[LayerSpec], Mapping[LayerSpec, Measurement], Wave]:
        """The heights of the staircase's plateaus along an axis, from the right edges of the first ones."""
        widths, others = (self.region.in_widths, self.region.out_widths)[:: 1 if axis == 0 else -1]
        step, middle = self.steps[axis], (len(others) - 1) // 2 if others else 0
        edges = [width * step for width in range(1, _TILES + 1)]
        if step == 1 or not set(edges) <= set(widths):
            return ()
        places = [widths.index(edge) for edge in edges]
        rungs = [(place, middle) if axis == 0 else (middle, place) for place in places]
        if self._num_new(rungs) > self.num_left - least_probes(self.region):
            return ()
        yield from self._measure(rungs)
        rows = [self.points[rung] for rung in rungs]
        return plateau_wave([row.latency_us for row in rows], [noise_us(row) for row in rows])

    def _refine(self) -> Asking:
        axes = (self.region.in_widths, self.region.out_widths or (1,))
        num_corners = next(
            (num for num in (COARSE, COARSE - 1) if num_coarse(self.region.shape, num) <= self.num_left), 2
        )
        lines = [_corners(widths, step, num_corners) for widths, step in zip(axes, self.steps, strict=True)]
        for axis in (0, 1):
            more = [sorted({*line, *(self._first_edge(axis) if axis == at else ())}) for at, line in enumerate(lines)]
            if self._num_new(_crossings(more)) <= self.num_left:
                lines = more
        yield from self._measure(_crossings(lines))
        cells = [
            Cell(low=(low, left), high=(high, right))
            for low, high in _spans(lines[0])
            for left, right in _spans(lines[1])
        ]
        yield from self._split(cells)

    def go_on(self, num_more: int) -> Asking:
        """Splits waiting cells with ``num_more`` more probes, first the cells without a middle probe."""
        self.region = replace(self.region, effort=replace(self.region.effort, max_probes=self.num_points + num_more))
        untested = [entry[-1] for entry in sorted(self.waiting) if entry[-1].middle not in self.points]
        self.waiting = [entry for entry in self.waiting if entry[-1].middle in self.points]
        heapq.heapify(self.waiting)
        yield from self._split(untested or self._next_splits())

    def _split(self, fresh: list[Cell]) -> Asking:
        """Measures cells' middles, then splits the worst cells, until all agree or probes run out."""
        axes = (self.region.in_widths, self.region.out_widths or (1,))
        coordinates = (
            stair_coordinate(axes[0], self.steps[0], self.waves[0]),
            stair_coordinate(axes[1], self.steps[1], self.waves[1]),
        )
        yield from self._measure([corner for part in fresh for corner in corner_points(part)])
        while fresh:
            middles = [cell.middle for cell in fresh if not cell.is_full]
            yield from self._measure(middles[: max(0, self.num_left)])
            for cell in (self._tested(cell, coordinates) for cell in fresh):
                if cell.is_full or cell.error_fraction <= self._tolerance(cell):
                    self.cells.append(cell)
                else:
                    harm = cell.error_fraction * math.sqrt(area(cell))
                    heapq.heappush(self.waiting, (-harm, cell.low, cell.high, cell))
            fresh = self._next_splits()
            yield from self._measure([corner for part in fresh for corner in corner_points(part)])

    def _first_edge(self, axis: int) -> tuple[int, ...]:
        """The right edge of the first plateau if the narrowest width runs a kernel of its own, else nothing.

        Without that edge as a corner, cells would carry the narrow kernel's latency far beyond it.
        """
        widths, others = (self.region.in_widths, self.region.out_widths)[:: 1 if axis == 0 else -1]
        if self.steps[axis] not in widths[1:] or widths[0] > self.steps[axis]:
            return ()
        edge, middle = widths.index(self.steps[axis]), (len(others) - 1) // 2 if others else 0
        ends = [(place, middle) if axis == 0 else (middle, place) for place in (0, edge)]
        if not self.points.keys() >= set(ends):
            return ()
        narrow, full = (self.points[end] for end in ends)
        error_us = math.hypot(noise_us(narrow), noise_us(full))
        difference_us = abs(narrow.latency_us - full.latency_us)
        is_apart = difference_us > max(_APART * error_us, self.region.effort.max_error_fraction * full.latency_us)
        return (edge,) if is_apart else ()

    def _next_splits(self) -> list[Cell]:
        """The parts of the worst cells, as far as probes suffice; the other cells go on waiting."""
        fresh: list[Cell] = []
        aside: list[tuple[float, Point, Point, Cell]] = []
        num_splits = 0
        while self.waiting and num_splits < _MOST_SPLITS:
            entry = heapq.heappop(self.waiting)
            parts = [*fresh, *split(entry[-1])]
            if self._num_new([corner for part in parts for corner in corner_points(part)]) <= self.num_left:
                fresh, num_splits = parts, num_splits + 1
            else:
                aside.append(entry)
        for entry in aside:
            heapq.heappush(self.waiting, entry)
        return fresh

    @property
    def num_points(self) -> int:
        """The number of probes taken so far."""
        return len(self.points)

    @property
    def num_left(self) -> int:
        """The number of probes that may still be taken."""
        return self.region.effort.max_probes - len(self.points)

    def _num_new(self, positions: Sequence[Point]) -> int:
        return len(set(positions) - self.points.keys())

    def _tolerance(self, cell: Cell) -> float:
        """The largest miss that does not split a cell: the error asked for, or the one noise explains."""
        tolerance = self.region.effort.max_error_fraction
        if cell.middle not in self.points:
            return tolerance
        middle = self.points[cell.middle]
        corners_us = [noise_us(self.points[corner]) for corner in corner_points(cell)]
        noise = math.hypot(noise_us(middle), math.hypot(*corners_us) / len(corners_us)) / max(middle.latency_us, 1e-9)
        return max(tolerance, _WITHIN * noise)

    def _tested(self, cell: Cell, coordinates: tuple[Floats, Floats]) -> Cell:
        if cell.is_full:
            return cell
        if cell.middle not in self.points:  # no probe was left: how far its corners are apart bounds what is missed
            corners = [self.points[corner].latency_us for corner in corner_points(cell)]
            return replace(cell, error_fraction=(max(corners) - min(corners)) / max(min(corners), 1e-9))
        measured_us = self.points[cell.middle].latency_us
        expected_us = float(bilinear(cell, *cell.middle, coordinates, self.points))
        return replace(cell, error_fraction=abs(expected_us - measured_us) / max(measured_us, 1e-9))


def _corners(widths: Sequence[int], step: int, num: int) -> list[int]:
    """Positions of the first grid along an axis: both ends and, in geometric steps between, right edges of plateaus."""
    last = len(widths) - 1
    if last < num - 1:
        return list(range(last + 1))
    marks = np.geomspace(max(widths[0], 1), widths[-1], num)
    edges = [position for position, width in enumerate(widths) if width % step == 0] or list(range(last + 1))
    chosen = {0, last, *(min(edges, key=lambda position: abs(widths[position] - mark)) for mark in marks[1:-1])}
    return sorted(chosen)


def _crossings(lines: Sequence[Sequence[int]]) -> list[Point]:
    return [(row, column) for row in lines[0] for column in lines[1]]


def _spans(line: Sequence[int]) -> list[tuple[int, int]]:
    return list(pairwise(line)) or [(line[0], line[0])]
