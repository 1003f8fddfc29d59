"""The average precision of PASCAL VOC, counted as its development kit counts it.

Detections of a class are taken in the order of their scores over all pictures. Each is held against the object of its
class that it overlaps most: found if that is at least half and the object was not found before, else a false alarm.
Objects marked as difficult count neither way. See Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV
2010, section 4.2, and the development kit's ``VOCevaldet`` and ``VOCap``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from halp_trt.tasks.detection.boxes import overlaps
from halp_trt.tasks.detection.objects import Detections, Objects

__all__ = ["LEAST_OVERLAP", "area_under", "eleven_points", "precisions_of"]

LEAST_OVERLAP = 0.5
"""The least intersection over union of a detection with the object that it finds."""
_ROUNDING = 1e-12
"""The rounding of a recall: 3 of 10 objects are a recall of 0.3."""
Floats = npt.NDArray[np.float64]


def precisions_of(
    found: Sequence[Detections], truth: Sequence[Objects], label: int, *, least_overlap: float = LEAST_OVERLAP
) -> tuple[Floats, Floats] | None:
    """Recall and precision ``[n]`` of a class after each of its detections, best first; None without objects of it.

    Args:
        found: detections in each picture.
        truth: objects in each picture, in the same order.
        label: the class.
        least_overlap: least intersection over union of a detection with the object that it finds.
    """
    objects = [one.take(one.labels == label) for one in truth]
    num_objects = sum(int((~one.is_ignored).sum()) for one in objects)
    if not num_objects:
        return None
    chosen = [one.labels == label for one in found]
    pictures = np.repeat(np.arange(len(found)), [int(mask.sum()) for mask in chosen])
    scores = np.concatenate([one.scores[mask] for one, mask in zip(found, chosen, strict=True)] or [np.zeros(0)])
    boxes = np.concatenate([one.boxes[mask] for one, mask in zip(found, chosen, strict=True)] or [np.zeros((0, 4))])
    is_taken = [np.zeros(len(one.boxes), dtype=bool) for one in objects]
    is_right, counts = np.zeros(len(scores), dtype=bool), np.ones(len(scores), dtype=bool)
    order = np.argsort(-scores, kind="stable")
    for place, number in enumerate(order):
        picture = pictures[number]
        own = overlaps(boxes[number : number + 1], objects[picture].boxes)[0]
        best = int(own.argmax()) if len(own) else -1
        if best < 0 or own[best] < least_overlap:
            continue
        if objects[picture].is_ignored[best]:
            counts[place] = False
        elif not is_taken[picture][best]:
            is_right[place] = is_taken[picture][best] = True
    hits, alarms = np.cumsum(is_right & counts), np.cumsum(~is_right & counts)
    return hits / num_objects, hits / np.maximum(hits + alarms, 1)


def eleven_points(recall: Floats, precision: Floats) -> float:
    """The mean over recalls of 0, 0.1 ... 1 of the best precision at that recall or a higher one (VOC 2007)."""
    best = [precision[recall >= point - _ROUNDING].max(initial=0.0) for point in np.linspace(0, 1, 11)]
    return float(np.mean(best))


def area_under(recall: Floats, precision: Floats) -> float:
    """The area under precision over recall, each precision raised to the best at a higher recall (VOC from 2010)."""
    recalls = np.concatenate([[0.0], recall, [1.0]])
    best = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    return float(np.sum(np.diff(recalls) * best[1:]))
