"""The tasks of detection: objects in boxes, judged by VOC's or by COCO's average precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from halp_trt.errors import DataError, ModelError, NonFiniteError, brief
from halp_trt.models.detection.head import DetectionHead, SpatialHead
from halp_trt.specs import Score
from halp_trt.tasks import Outputs
from halp_trt.tasks.detection.boxes import suppress
from halp_trt.tasks.detection.coco_rule import coco_precision
from halp_trt.tasks.detection.drawing import LEAST_SHOWN, count_boxes, draw_boxes, labelled_boxes
from halp_trt.tasks.detection.objects import Detections, Objects
from halp_trt.tasks.detection.voc_rule import area_under, eleven_points, precisions_of
from halp_trt.tasks.drawing import legend_of
from halp_trt.training.settings import TrainSettings

if TYPE_CHECKING:
    from PIL import Image

    from halp_trt.tasks.dataset import DataSet

__all__ = ["CocoDetection", "Detection"]

_MOST_NAMES = 80
"""Characters of the classes' names in an error."""

LEAST_SCORE, MOST_OVERLAP, MOST_BEFORE, MOST_FOUND = 0.01, 0.45, 400, 200
"""The bounds of what is found (arXiv 1512.02325, section 3.1). The best 400 boxes of a class with a score of 0.01 or
more are held against each other; one that overlaps a better one by more than 0.45 goes; the best 200 of a picture stay.
"""


class Detection:
    """The task of detection, judged by VOC's average precision at an overlap of 0.5, the area under the curve.

    Attributes:
        reads, caption, legend: as ``halp_trt.tasks.Reads`` and ``halp_trt.tasks.Draws`` have them.

    Raises:
        DataError: the data set has no classes.
    """

    reads = "decoding and NMS"
    caption = f"Test pictures as they are labelled, and what each engine finds with a score of {LEAST_SHOWN:g} or more."

    def __init__(self, data: DataSet) -> None:
        if not data.num_classes:
            raise DataError(f"data set {data.name!r} has no classes to detect; name them in its annotations")
        self._classes, self._name, self._head = data.classes, data.name, data.head
        self.legend = legend_of(data.classes)

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """The loss of the network's head, mixed with the distance to a teacher's raw outputs if there is one.

        Raises:
            ModelError: the network does not say how its raw outputs are read, or they are others.
        """
        boxes, labels = [], []
        for one in targets:
            sides = one["size"].flip(0).repeat(2).to(one["boxes"].dtype)
            counts = ~one["is_ignored"]
            boxes.append((one["boxes"] / sides)[counts])
            labels.append(one["labels"][counts])
        head = self._reader()
        loss = head.loss(outputs, boxes, labels)
        if taught is None:
            return loss
        return (1 - settings.distillation) * loss + settings.distillation * head.distance(outputs, taught)

    def predict(self, outputs: Outputs) -> list[Detections]:
        """The detections in each picture, best first; boxes are shares of the picture's width and height.

        Raises:
            ModelError: the network does not say how its raw outputs are read, they are others, or they lack a class of
                the data.
            NonFiniteError: a box or a score is NaN.
        """
        with torch.no_grad():
            tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in outputs.items()}
            boxes, scores = (tensor.numpy() for tensor in self._reader().read(tensors))
        if scores.shape[2] < len(self._classes):
            raise ModelError(
                f"the network tells {scores.shape[2]} classes apart, and {self._name} has {len(self._classes)} "
                f"({brief(', '.join(self._classes), _MOST_NAMES)}); build it for all of them, with --classes or in its "
                f"factory"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise NonFiniteError("detections have boxes or scores that are NaN or infinite; check the weights")
        own = scores[..., : len(self._classes)]
        return [found_in(*one) for one in zip(boxes, own, strict=True)]

    def metric(self, answers: Iterable[tuple[Sequence[Any], Any]]) -> Score:
        """The mean over classes of VOC's average precision, with that of each class and by eleven points."""
        found, truth = _in_pixels(answers)
        areas, points = {}, []
        for label, name in enumerate(self._classes):
            curve = precisions_of(found, truth, label)
            if curve is not None:
                areas[name] = area_under(*curve)
                points.append(eleven_points(*curve))
        if not areas:
            raise DataError(
                f"the test pictures of {self._name} hold no object, so that nothing can be scored; add some"
            )
        return Score(
            name="mAP@50",
            value=float(np.mean(list(areas.values()))),
            unit="fraction",
            num_examples=len(found),
            parts={"mAP@50, 11 points": float(np.mean(points)), **areas},
        )

    def labelled(self, target: Any) -> Detections:
        """The objects of a picture that count, as detections."""
        return labelled_boxes(target)

    def draw(self, pixels: npt.NDArray[np.uint8], answer: Detections, target: Any) -> Image.Image:
        """The picture with its likely detections as boxes, in the proportions that it had."""
        return draw_boxes(pixels, answer, np.asarray(target["size"]), self._classes)

    def count(self, answer: Detections) -> str:
        """The number of drawn boxes by class."""
        return count_boxes(answer, self._classes)

    def _reader(self) -> DetectionHead:
        if self._head is None:
            raise ModelError(
                "the network does not say how its raw outputs are read; expected an attribute 'detection' (see "
                "halp_trt.models.detection.head.DetectionHead), or a task of your own with --task"
            )
        if isinstance(self._head, SpatialHead):
            raise ModelError(
                f"the network finds objects in three dimensions and {self._name} has boxes in pictures; name data such "
                f"as radar3d:PATH"
            )
        head: DetectionHead = self._head
        return head


class CocoDetection(Detection):
    """The task of detection, judged by COCO's average precision over overlaps of 0.5 to 0.95."""

    def metric(self, answers: Iterable[tuple[Sequence[Any], Any]]) -> Score:
        """COCO's average precision, with that at an overlap of 0.5, of all classes and of each.

        Raises:
            UsageError: the library that counts it is not installed.
        """
        found, truth = _in_pixels(answers)
        precision = coco_precision(found, truth, len(self._classes))
        parts = {name: value for name, value in zip(self._classes, precision.by_class, strict=True) if value == value}
        if not parts:
            raise DataError(
                f"the test pictures of {self._name} hold no object, so that nothing can be scored; add some"
            )
        return Score(
            name="mAP",
            value=precision.mean,
            unit="fraction",
            num_examples=len(found),
            parts={"mAP@50": precision.mean_50, **parts},
        )


def found_in(boxes: Any, scores: Any) -> Detections:
    """The detections in one picture.

    Args:
        boxes: ``[A, 4]``.
        scores: ``[A, classes]``, in 0..1.
    """
    rows: list[tuple[Any, Any, Any]] = []
    for label in range(scores.shape[1]):
        own = scores[:, label]
        likely = np.flatnonzero(own >= LEAST_SCORE)
        likely = likely[np.argsort(-own[likely], kind="stable")[:MOST_BEFORE]]
        kept = likely[suppress(boxes[likely], own[likely], MOST_OVERLAP, MOST_FOUND)]
        rows.append((boxes[kept], own[kept], np.full(len(kept), label)))
    all_boxes, all_scores, labels = (np.concatenate(column) for column in zip(*rows, strict=True))
    best = np.argsort(-all_scores, kind="stable")[:MOST_FOUND]
    return Detections(
        boxes=all_boxes[best].astype(np.float64), scores=all_scores[best].astype(np.float64), labels=labels[best]
    )


def _in_pixels(answers: Iterable[tuple[Sequence[Any], Any]]) -> tuple[list[Detections], list[Objects]]:
    """The detections and the objects of all pictures, in pixels of each."""
    found: list[Detections] = []
    truth: list[Objects] = []
    for detections, targets in answers:
        for one, target in zip(detections, targets, strict=True):
            height, width = (int(side) for side in target["size"])
            found.append(one.scaled(width, height))
            truth.append(
                Objects(
                    boxes=np.asarray(target["boxes"], dtype=np.float64),
                    labels=np.asarray(target["labels"]),
                    is_ignored=np.asarray(target["is_ignored"]),
                )
            )
    return found, truth
