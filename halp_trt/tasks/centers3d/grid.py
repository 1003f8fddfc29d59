"""Points in the places of pillars, as a network of pillars reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.models.detection.pillars import NUM_POINTS

__all__ = ["NUM_COMPUTED", "PillarGrid", "in_pillars"]

NUM_COMPUTED = 6
"""Numbers of a place before the point's own: 1 where there is a point; its offset from the middle of the cell and its
place in the range, forward and to the left; and the logarithm of one more than the pillar's number of points."""
_MOST = 5.0
"""Largest deviation of a point's own number: one wrong echo shall not drown all others."""
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PillarGrid:
    """The cells that points are sorted into, seen from above.

    Attributes:
        x, y: from where to where they reach, in metres.
        rows, columns: number of cells along x and along y.
        num_points: number of places in each pillar; of more points those with the largest fourth number stay.
    """

    x: tuple[float, float] = (0.0, 25.6)
    y: tuple[float, float] = (-12.8, 12.8)
    rows: int = 128
    columns: int = 128
    num_points: int = NUM_POINTS

    @property
    def nearest(self) -> npt.NDArray[np.float64]:
        """The least x and y."""
        return np.asarray([self.x[0], self.y[0]])

    @property
    def farthest(self) -> npt.NDArray[np.float64]:
        """The largest x and y."""
        return np.asarray([self.x[1], self.y[1]])

    def holds(self, places: Floats) -> npt.NDArray[np.bool_]:
        """True for each of the places ``[n, 2 or more]`` whose x and y are in a cell."""
        return np.asarray(((places[:, :2] >= self.nearest) & (places[:, :2] < self.farthest)).all(axis=1))


def in_pillars(points: Floats, grid: PillarGrid, mean: Floats, deviation: Floats) -> npt.NDArray[np.float32]:
    """The network's input ``[6 + own numbers, rows * num_points, columns]``; places without a point are zeros.

    The places of a pillar follow each other along the second axis.

    Args:
        points: ``[n, 2 + own numbers]``: x, y, z, and what else was measured.
        grid: the cells.
        mean, deviation: mean and standard deviation of each of the points' own numbers, z and those after it.
    """
    points = points[grid.holds(points)].astype(np.float64)
    shares = (points[:, :2] - grid.nearest) / (grid.farthest - grid.nearest)
    places = shares * (grid.rows, grid.columns)
    cells = np.minimum(places.astype(np.int64), (grid.rows - 1, grid.columns - 1))
    pillar = cells[:, 0] * grid.columns + cells[:, 1]
    strength = points[:, 3] if points.shape[1] > 3 else np.zeros(len(points))
    order = np.lexsort((-strength, pillar))
    ordered = pillar[order]
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]
    number = np.arange(len(ordered))
    place = number - np.maximum.accumulate(np.where(is_first, number, 0)) if len(ordered) else number
    order, place = order[place < grid.num_points], place[place < grid.num_points]
    counts = np.bincount(pillar, minlength=1)[pillar]
    own = np.clip((points[:, 2:] - mean) / deviation, -_MOST, _MOST)
    numbers = np.concatenate(
        [np.ones((len(points), 1)), 2 * (places - cells) - 1, 2 * shares - 1, np.log1p(counts)[:, None], own], axis=1
    )
    found = np.zeros((numbers.shape[1], grid.rows * grid.num_points, grid.columns), dtype=np.float32)
    found[:, cells[order, 0] * grid.num_points + place, cells[order, 1]] = numbers[order].T
    return found
