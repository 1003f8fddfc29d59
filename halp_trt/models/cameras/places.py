"""Places of a map in the cameras' features: for every cell, at several heights, the feature that shows it.

These follow from the calibration alone, so that a network's view from above is a Gather by constant indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halp_trt.errors import ModelError
from halp_trt.models.cameras.calibration import Camera, fit_of

__all__ = ["Depths", "Ground", "Places", "places_of"]

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The map around the vehicle: rows go left, columns forward, the vehicle stands in the middle.

    Attributes:
        shape: number of rows and columns.
        cell: side of a cell, in metres.
        heights: metres above the ground at which each cell is looked at.
    """

    shape: tuple[int, int] = (128, 128)
    cell: float = 0.8
    heights: tuple[float, ...] = (0.0, 0.75, 1.5, 2.5)

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not self.cell > 0 or not self.heights:
            raise ModelError(f"a map needs rows, columns, a size of cells and a height, got {self}")

    @property
    def points(self) -> Floats:
        """``[cells, heights, 3]``: the middles of all cells, row by row, at every height."""
        rows, columns = ((np.arange(size) + 0.5 - size / 2) * self.cell for size in self.shape)
        left, forward, up = np.meshgrid(rows, columns, np.asarray(self.heights), indexing="ij")
        return np.stack([forward, left, up], axis=-1).reshape(-1, len(self.heights), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depths:
    """Stretches of distance in front of a camera.

    Attributes:
        first: distance at which they begin, in metres.
        step: length of each.
        count: number of them.
    """

    first: float = 1.0
    step: float = 1.0
    count: int = 59

    def __post_init__(self) -> None:
        if not (self.step > 0 and self.count > 0):
            raise ModelError(f"depths need stretches above 0 in number and length, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Places:
    """The features that show the points of a map. A point belongs to the camera that has it nearest to its middle.

    Attributes:
        pixels: place of each point in ``[cameras, rows, columns]`` of features, flattened.
        depths: place of each point in ``[cameras, depths, rows, columns]``, flattened.
        seen: 1 for points that a camera sees, else 0; their places are 0.
    """

    pixels: Whole
    depths: Whole
    seen: npt.NDArray[np.float32]


def places_of(
    cameras: Sequence[Camera], size: tuple[int, int], features: tuple[int, int], ground: Ground, depths: Depths
) -> Places:
    """The places of a map's points, in the order of :attr:`Ground.points`.

    Args:
        cameras: the cameras, in the order of the network's input.
        size: height and width of the network's input.
        features: rows and columns of the map of features that it makes of a picture.
        ground: the map.
        depths: stretches of distance.
    """
    points = ground.points.reshape(-1, 3)
    best = np.full(len(points), np.inf)
    pixels, bins = np.zeros(len(points), np.int64), np.zeros(len(points), np.int64)
    for number, camera in enumerate(cameras):
        across, down, distance = _seen_by(camera, points, size)
        stretch = np.floor((distance - depths.first) / depths.step)
        is_inside = (across >= 0) & (across < 1) & (down >= 0) & (down < 1)
        is_inside &= (stretch >= 0) & (stretch < depths.count)
        apart = np.where(is_inside, np.abs(across - 0.5), np.inf)
        taken = apart < best
        row, column = (down[taken] * features[0]).astype(np.int64), (across[taken] * features[1]).astype(np.int64)
        place = row * features[1] + column
        pixels[taken] = number * features[0] * features[1] + place
        layer = number * depths.count + stretch[taken].astype(np.int64)
        bins[taken] = layer * features[0] * features[1] + place
        best[taken] = apart[taken]
    return Places(pixels=pixels, depths=bins, seen=np.isfinite(best).astype(np.float32))


def _seen_by(camera: Camera, points: Floats, size: tuple[int, int]) -> tuple[Floats, Floats, Floats]:
    """The points as a camera has them: in shares of the input's width and height, and metres in front of it."""
    height, width = size
    fit = fit_of(camera, height, width)
    own = (points - camera.pose[:3, 3]) @ np.linalg.inv(camera.pose[:3, :3]).T
    projected = own @ camera.intrinsics.T
    with np.errstate(divide="ignore", invalid="ignore"):
        across, down = (projected[:, axis] / projected[:, 2] for axis in (0, 1))
        across, down = (fit.scale * across - fit.left) / width, (fit.scale * down - fit.top) / height
    behind = own[:, 2] <= 0
    return np.where(behind, -1.0, across), np.where(behind, -1.0, down), own[:, 2]
