"""The frames of a split as a network of pillars reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import DataError
from halp_trt.tasks.centers3d.change import changed
from halp_trt.tasks.centers3d.grid import PillarGrid, in_pillars
from halp_trt.tasks.centers3d.layout import Layout, SpatialSplit
from halp_trt.tasks.centers3d.objects import Objects

__all__ = ["Frames", "Target", "spread_of"]

Target = Mapping[str, npt.NDArray[Any]]
"""The objects of a frame: ``boxes`` float32 ``[n, 7]`` in metres, ``labels`` int64 ``[n]``, and ``range`` float32 ``[2,
2]``, the least and the largest x and y that the network sees."""
_MOST_READ = 500
"""Frames whose points tell the spread of all."""
Floats = npt.NDArray[np.float64]
Change = Callable[[Floats, Objects], tuple[Floats, Objects]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """Frames whose points are sorted into pillars on every read.

    Attributes:
        layout: the points.
        split: the frames of this split, and the objects in each.
        grid: the cells.
        mean, deviation: mean and standard deviation of z, and of each further number of the points.
    """

    layout: Layout
    split: SpatialSplit
    grid: PillarGrid
    mean: Floats
    deviation: Floats

    def __len__(self) -> int:
        return len(self.split.numbers)

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], list[Target]]:
        """The inputs ``[N, numbers, rows * points, columns]`` and the targets; objects outside of the cells are gone.

        Raises:
            DataError: a point is NaN or infinite.
        """
        return self._read(indices, [_as_it_is] * len(indices))

    def draw(
        self, indices: Sequence[int] | npt.NDArray[np.int64], seeds: Sequence[int]
    ) -> tuple[npt.NDArray[np.float32], list[Target]]:
        """The inputs and targets as ``read`` gives them, each frame changed as its seed says, its boxes with it."""
        return self._read(indices, [partial(changed, seed=seed) for seed in seeds])

    def _read(
        self, indices: Sequence[int] | npt.NDArray[np.int64], changes: Sequence[Change]
    ) -> tuple[npt.NDArray[np.float32], list[Target]]:
        inputs: list[npt.NDArray[np.float32]] = []
        targets: list[Target] = []
        for index, change in zip(indices, changes, strict=True):
            points = points_of(self.layout, int(self.split.numbers[index]))
            if not np.isfinite(points).all():
                raise DataError(
                    f"frame {self.split.names[index]} has a point that is NaN or infinite; take it out of points.npy"
                )
            points, objects = change(points, self.split.objects[index])
            inputs.append(in_pillars(points, self.grid, self.mean, self.deviation))
            objects = objects.take(self.grid.holds(objects.boxes))
            targets.append(
                {
                    "boxes": objects.boxes.astype(np.float32),
                    "labels": objects.labels,
                    "range": np.stack([self.grid.nearest, self.grid.farthest]).astype(np.float32),
                }
            )
        return np.stack(inputs), targets


def _as_it_is(points: Floats, objects: Objects) -> tuple[Floats, Objects]:
    return points, objects


def points_of(layout: Layout, number: int) -> Floats:
    """The points of a frame, ``[n, 3 or more]``."""
    return np.asarray(layout.points[layout.offsets[number] : layout.offsets[number + 1]], dtype=np.float64)


def spread_of(layout: Layout) -> tuple[Floats, Floats]:
    """The mean and the standard deviation of z and of each further number, over training frames spread over all.

    Points that are not finite are left out: reading their frame refuses them.
    """
    numbers = layout.train.numbers
    picked = numbers[np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), _MOST_READ)).astype(np.int64))]
    own = np.concatenate([points_of(layout, int(number))[:, 2:] for number in picked])
    own = own[np.isfinite(own).all(axis=1)]
    if not len(own):
        return np.zeros(own.shape[1]), np.ones(own.shape[1])
    deviation = own.std(axis=0)
    return own.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
