"""The objects around a sensor, and what was found of them, as values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Found", "Objects"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """The objects in one frame.

    Attributes:
        boxes: float64 ``[n, 7]`` in metres.
        labels: class of each, int64 ``[n]``.
    """

    boxes: Floats
    labels: npt.NDArray[np.int64]

    def take(self, chosen: npt.NDArray[np.bool_]) -> Objects:
        """The chosen ones."""
        return Objects(boxes=self.boxes[chosen], labels=self.labels[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """The objects that a detector found in one frame.

    Attributes:
        boxes: float64 ``[n, 7]``; a network gives x and y in shares of its range.
        scores: float64 ``[n]``.
        labels: class of each, int64 ``[n]``.
    """

    boxes: Floats
    scores: Floats
    labels: npt.NDArray[np.int64]

    def in_range(self, nearest: Floats, farthest: Floats) -> Found:
        """The same with x and y in metres, for a range from ``nearest`` to ``farthest``, x and y of each."""
        places = nearest + self.boxes[:, :2] * (farthest - nearest)
        return Found(boxes=np.concatenate([places, self.boxes[:, 2:]], axis=1), scores=self.scores, labels=self.labels)
