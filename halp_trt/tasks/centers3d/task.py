"""The task of objects in three dimensions, judged by average precision over distances of centres."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from halp_trt.errors import DataError, ModelError, NonFiniteError
from halp_trt.models.detection.head import SpatialHead
from halp_trt.specs import Score
from halp_trt.tasks import Outputs
from halp_trt.tasks.centers3d.objects import Found, Objects
from halp_trt.tasks.centers3d.rule import THRESHOLDS_M, Matches, average_precision, matches
from halp_trt.training.settings import TrainSettings

if TYPE_CHECKING:
    from halp_trt.tasks.dataset import DataSet

__all__ = ["BANDS_M", "Centers3d", "found_in"]

LEAST_SCORE, MOST_FOUND = 0.01, 100
"""The bounds of what is found: scores of 0.01 or more, and of a frame the best 100."""
BANDS_M = ((0, 10), (10, 20), (20, 30), (30, 40), (40, 60), (60, 80), (80, 1000))
"""The distances from the sensor, in metres, whose objects are scored apart."""


class Centers3d:
    """The task of objects in three dimensions.

    Raises:
        DataError: the data set has no classes, or another number of points in a pillar than the network reads.
    """

    def __init__(self, data: DataSet) -> None:
        if not data.num_classes:
            raise DataError(f"data set {data.name!r} has no classes to detect; name them in its boxes")
        self._classes, self._name, self._head = data.classes, data.name, data.head
        given = getattr(getattr(data.train, "grid", None), "num_points", 0)
        read = data.head.num_points if isinstance(data.head, SpatialHead) else 0
        if given and read and given != read:
            raise DataError(
                f"the network reads {read} points of a pillar and {data.name} gives {given}; end the data's name in "
                f",points={read}"
            )

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """The loss of the network's head, mixed with the distance to a teacher's raw outputs if there is one.

        Raises:
            ModelError: the network does not say how its raw outputs are read, or they are others.
        """
        boxes, labels = [], []
        for one in targets:
            nearest, farthest = one["range"]
            places = (one["boxes"][:, :2] - nearest) / (farthest - nearest)
            boxes.append(torch.cat([places, one["boxes"][:, 2:]], dim=1))
            labels.append(one["labels"])
        head = self._reader()
        loss = head.loss(outputs, boxes, labels)
        if taught is None:
            return loss
        return (1 - settings.distillation) * loss + settings.distillation * head.distance(outputs, taught)

    def predict(self, outputs: Outputs) -> list[Found]:
        """The objects found in each frame, best first; x and y are shares of the range.

        Raises:
            ModelError: the network does not say how its raw outputs are read, or they are others.
            NonFiniteError: a box or a score is NaN.
        """
        with torch.no_grad():
            tensors = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in outputs.items()}
            boxes, scores = (tensor.numpy() for tensor in self._reader().read(tensors))
        if scores.shape[2] != len(self._classes):
            raise ModelError(
                f"the network finds {scores.shape[2]} classes and {self._name} has {len(self._classes)}; build it for "
                f"those"
            )
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise NonFiniteError("boxes or scores are NaN or infinite; check the weights of the network")
        return [found_in(*one) for one in zip(boxes, scores, strict=True)]

    def metric(self, answers: Iterable[tuple[Sequence[Any], Any]]) -> Score:
        """The mean over classes and distances of 0.5, 1, 2 and 4 m of average precision.

        Its parts are those of each class, of a class at each distance of centres, and of a class within distances from
        the sensor.
        """
        found, truth = _in_metres(answers)
        classes: dict[str, float] = {}
        parts: dict[str, float] = {}
        for label, name in enumerate(self._classes):
            curves = [matches(found, truth, label, threshold) for threshold in THRESHOLDS_M]
            own = [average_precision(curve) for curve in curves]
            if own[0] is None:
                continue
            classes[name] = _mean(curves)
            parts |= {f"{name} at {at:g} m": float(one or 0) for at, one in zip(THRESHOLDS_M, own, strict=True)}
            for least, most in BANDS_M:
                within = [curve.between(least, most) for curve in curves]
                if len(within[0].objects_m):
                    parts[f"{name}, {least} to {most} m away"] = _mean(within)
        if not classes:
            raise DataError(f"the test frames of {self._name} hold no object, so that nothing can be scored; add some")
        return Score(
            name="mAP",
            value=float(np.mean(list(classes.values()))),
            unit="fraction",
            num_examples=len(found),
            parts={**classes, **parts},
        )

    def _reader(self) -> SpatialHead:
        if not isinstance(self._head, SpatialHead):
            raise ModelError(
                "the network does not say how its raw outputs are read in three dimensions; expected an attribute "
                "'detection' (see halp_trt.models.detection.head.SpatialHead), or a task of your own with --task"
            )
        return self._head


def found_in(boxes: Any, scores: Any) -> Found:
    """The objects found in one frame, best first.

    Args:
        boxes: ``[A, 7]``.
        scores: ``[A, classes]``, in 0..1.
    """
    cells, labels = np.nonzero(scores >= LEAST_SCORE)
    own = scores[cells, labels]
    best = np.argsort(-own, kind="stable")[:MOST_FOUND]
    return Found(boxes=boxes[cells[best]].astype(np.float64), scores=own[best].astype(np.float64), labels=labels[best])


def _mean(curves: Sequence[Matches]) -> float:
    return float(np.mean([average_precision(curve) or 0.0 for curve in curves]))


def _in_metres(answers: Iterable[tuple[Sequence[Any], Any]]) -> tuple[list[Found], list[Objects]]:
    """The detections and the objects of all frames, in metres."""
    found: list[Found] = []
    truth: list[Objects] = []
    for some, targets in answers:
        for one, target in zip(some, targets, strict=True):
            nearest, farthest = np.asarray(target["range"], dtype=np.float64)
            found.append(one.in_range(nearest, farthest))
            truth.append(
                Objects(boxes=np.asarray(target["boxes"], dtype=np.float64), labels=np.asarray(target["labels"]))
            )
    return found, truth
