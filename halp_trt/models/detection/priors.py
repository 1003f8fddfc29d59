"""Prior boxes of single-shot detectors, and boxes as offsets from them (arXiv 1512.02325, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

__all__ = ["VARIANCES", "corners_of", "default_scales", "prior_boxes"]

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""The units of offsets of centre and of size: networks learn numbers of about one."""
Floats = npt.NDArray[np.float32]


def default_scales(num_maps: int, *, first: float = 0.1, low: float = 0.2, high: float = 0.9) -> tuple[float, ...]:
    """The sizes of priors on each map, in shares of the picture's side, and one more beyond the last map's.

    The first map has the smallest; from the second on they rise evenly from ``low`` to ``high``.
    """
    rest = np.linspace(low, high, num_maps - 1) if num_maps > 1 else np.zeros(0)
    step = rest[1] - rest[0] if len(rest) > 1 else 0.1
    return (first, *rest.tolist(), float(min(1.0, (rest[-1] if len(rest) else first) + step)))


def prior_boxes(sides: Sequence[tuple[int, int]], scales: Sequence[float], ratios: Sequence[Sequence[float]]) -> Floats:
    """The priors ``[A, 4]`` of all maps as centre, width and height, in shares of the picture's sides.

    Each cell has a square of its map's scale, one of the geometric mean with the next map's, and for every ratio a wide
    and a tall box. They follow each other by map, row, column, and shape.

    Args:
        sides: height and width of each map.
        scales: scale of each map, and one more.
        ratios: width over height of the wide boxes on each map.
    """
    rows: list[tuple[float, float, float, float]] = []
    for (height, width), scale, following, wide in zip(sides, scales[:-1], scales[1:], ratios, strict=True):
        shapes = [(scale, scale), (float(np.sqrt(scale * following)),) * 2]
        for ratio in wide:
            root = float(np.sqrt(ratio))
            shapes += [(scale * root, scale / root), (scale / root, scale * root)]
        for row, column in product(range(height), range(width)):
            rows += [((column + 0.5) / width, (row + 0.5) / height, *shape) for shape in shapes]
    return np.asarray(rows, dtype=np.float32)


def corners_of(centres: Floats) -> Floats:
    """Boxes as left, top, right, bottom, from centre, width and height."""
    half = centres[..., 2:] / 2
    return np.concatenate([centres[..., :2] - half, centres[..., :2] + half], axis=-1)
