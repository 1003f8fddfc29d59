"""Overlaps of boxes, and the suppression of boxes that another, better one covers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["areas", "overlaps", "suppress"]

Floats = npt.NDArray[np.floating]


def areas(boxes: Floats) -> Floats:
    """The areas ``[n]`` of boxes ``[n, 4]``; an empty box has none."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """The intersections over unions ``[n, m]`` of boxes ``[n, 4]`` with other boxes ``[m, 4]``; 0 if both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(high - low, 0)
    inside = sides[..., 0] * sides[..., 1]
    union = areas(boxes)[:, None] + areas(others)[None] - inside
    return np.asarray(np.divide(inside, union, out=np.zeros_like(inside), where=union > 0))


def suppress(boxes: Floats, scores: Floats, most_overlap: float, most: int) -> npt.NDArray[np.int64]:
    """The numbers of the boxes that stay, best first: greedy non-maximum suppression within one class.

    Args:
        boxes: ``[n, 4]``.
        scores: ``[n]``; of equal ones the earlier box counts as the better.
        most_overlap: largest intersection over union of two boxes that both stay.
        most: largest number of boxes that stay.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[overlaps(boxes[best : best + 1], boxes[left])[0] <= most_overlap]
    return np.asarray(kept, dtype=np.int64)
