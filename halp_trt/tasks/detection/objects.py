"""The objects in pictures, and what was found in them, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["Annotated", "Detections", "Objects", "Split"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """The objects in one picture.

    Attributes:
        boxes: float64 ``[n, 4]`` in pixels of the picture.
        labels: class of each, int64 ``[n]``.
        is_ignored: bool ``[n]``: True for objects that count neither as found nor as missed (VOC's ``difficult``), or
            for regions of many (COCO's ``iscrowd``).
    """

    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    is_ignored: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, boxes: Sequence[Sequence[float]], labels: Sequence[int], is_ignored: Sequence[bool]) -> Objects:
        """The objects from lists, which may be empty."""
        return cls(
            boxes=np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
            labels=np.asarray(labels, dtype=np.int64),
            is_ignored=np.asarray(is_ignored, dtype=np.bool_),
        )

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Objects:
        """The chosen ones."""
        return Objects(boxes=self.boxes[chosen], labels=self.labels[chosen], is_ignored=self.is_ignored[chosen])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """The objects that a detector found in one picture, best first.

    Attributes:
        boxes: float64 ``[n, 4]``.
        scores: float64 ``[n]``.
        labels: class of each, int64 ``[n]``.
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]

    def scaled(self, width: float, height: float) -> Detections:
        """The detections with boxes in shares of the picture's sides brought to its pixels."""
        return Detections(
            boxes=self.boxes * np.asarray([width, height, width, height]), scores=self.scores, labels=self.labels
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """The pictures of one split: their files, and the objects in each."""

    files: tuple[Path, ...]
    objects: tuple[Objects, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotated:
    """Pictures with objects in them.

    Attributes:
        classes: names of the classes.
        train, test: the two splits.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split
