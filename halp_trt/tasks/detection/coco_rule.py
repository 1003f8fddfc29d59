"""The average precision of COCO, counted by ``faster-coco-eval``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from halp_trt.errors import UsageError
from halp_trt.tasks.detection.boxes import areas
from halp_trt.tasks.detection.objects import Detections, Objects

__all__ = ["CocoPrecision", "coco_precision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoPrecision:
    """COCO's average precisions.

    Attributes:
        mean: mean over classes and over overlaps of 0.5 to 0.95 (``mAP``).
        mean_50: mean over classes at an overlap of 0.5 (``mAP@50``).
        by_class: at an overlap of 0.5, for each class; NaN for a class without objects.
    """

    mean: float
    mean_50: float
    by_class: tuple[float, ...]


def coco_precision(found: Sequence[Detections], truth: Sequence[Objects], num_classes: int) -> CocoPrecision:
    """COCO's average precisions over 101 recalls and at most 100 detections in a picture.

    Args:
        found: detections in each picture.
        truth: objects in each picture, in the same order; ignored ones are regions of many (``iscrowd``).
        num_classes: number of classes.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ModuleNotFoundError as error:
        raise UsageError(
            "COCO's average precision is counted by faster-coco-eval, which is not installed; pip install "
            "faster-coco-eval"
        ) from error
    known = COCO(_annotations(truth, num_classes))
    judged = COCOeval_faster(known, known.loadRes(_results(found)), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    precision = np.asarray(judged.eval["precision"])[0, :, :, 0, -1]  # [recalls, classes], 100 detections, all sizes
    by_class = np.where((precision > -1).all(axis=0), precision.mean(axis=0), np.nan)
    return CocoPrecision(mean=float(judged.stats[0]), mean_50=float(judged.stats[1]), by_class=tuple(by_class.tolist()))


def _annotations(truth: Sequence[Objects], num_classes: int) -> dict[str, Any]:
    """The objects in the form of a COCO file; numbers count from 1."""
    rows: list[dict[str, Any]] = []
    for picture, objects in enumerate(truth, 1):
        sizes = areas(objects.boxes)
        for box, label, crowd, area in zip(objects.boxes, objects.labels, objects.is_ignored, sizes, strict=True):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": picture,
                    "category_id": int(label) + 1,
                    "bbox": _corner_and_sides(box),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "images": [{"id": picture} for picture in range(1, len(truth) + 1)],
        "annotations": rows,
        "categories": [{"id": label, "name": str(label)} for label in range(1, num_classes + 1)],
    }


def _results(found: Sequence[Detections]) -> list[dict[str, Any]]:
    """The detections in the form of COCO's results."""
    return [
        {
            "image_id": picture,
            "category_id": int(label) + 1,
            "bbox": _corner_and_sides(box),
            "score": float(score),
        }
        for picture, one in enumerate(found, 1)
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
    ]


def _corner_and_sides(box: Any) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]
