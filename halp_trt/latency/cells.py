"""The cells of a surface over a layer's widths, and the latency between their corners."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.specs import Measurement

__all__ = ["Cell", "Floats", "Point", "area", "bilinear", "contains", "corner_points", "split"]

Floats = npt.NDArray[np.float64]
Point = tuple[int, int]
"""Positions along both axes of a grid of widths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A rectangle between four measured corners, in positions along the axes, with its interpolation error.

    Attributes:
        low, high: its corners nearest to and farthest from the origin; equal along an axis of one width.
        error_fraction: distance of the middle probe from its interpolation, relative to the probe; without a middle
            probe ``(slowest corner - fastest corner) / fastest corner``; 0 if nothing lies between the corners.
    """

    low: Point
    high: Point
    error_fraction: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.error_fraction) and self.error_fraction >= 0):
            raise UsageError(f"a cell's error must be finite and not negative, got {self.error_fraction}")

    @property
    def middle(self) -> Point:
        """The position half-way between its corners, rounded down along each axis."""
        return (self.low[0] + self.high[0]) // 2, (self.low[1] + self.high[1]) // 2

    @property
    def is_full(self) -> bool:
        """True if it holds no position but its corners."""
        return all(high - low <= 1 for low, high in zip(self.low, self.high, strict=True))


def corner_points(cell: Cell) -> list[Point]:
    """A cell's corners, row by row."""
    return [(row, column) for row in (cell.low[0], cell.high[0]) for column in (cell.low[1], cell.high[1])]


def split(cell: Cell) -> list[Cell]:
    """A cell's two or four parts around its middle."""
    (top, left), (bottom, right), (row, column) = cell.low, cell.high, cell.middle
    rows = [(top, row), (row, bottom)] if bottom - top > 1 else [(top, bottom)]
    columns = [(left, column), (column, right)] if right - left > 1 else [(left, right)]
    return [Cell(low=(a, c), high=(b, d)) for a, b in rows for c, d in columns]


def contains(cell: Cell, position: Point) -> bool:
    """True if a position lies in a cell or on its edge."""
    return all(low <= at <= high for low, at, high in zip(cell.low, position, cell.high, strict=True))


def area(cell: Cell) -> int:
    """A cell's area in grid squares; a degenerate cell counts as one wide."""
    return max(1, cell.high[0] - cell.low[0]) * max(1, cell.high[1] - cell.low[1])


def bilinear(
    cell: Cell, rows: Any, columns: Any, coordinates: tuple[Floats, Floats], points: Mapping[Point, Measurement]
) -> Any:
    """The latency between a cell's four corners, linear along each axis in stair coordinates; takes arrays, too."""
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
