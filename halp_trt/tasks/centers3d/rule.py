"""Average precision by the distance of centres, counted as nuScenes' development kit counts it.

See Caesar et al., "nuScenes: A multimodal dataset for autonomous driving", CVPR 2020 (arXiv 1903.11027), section 3.1.
Detections of a class are taken in the order of their scores over all frames. Each is held against the nearest object of
its class in its frame, seen from above, among those that none before it found: right if that is nearer than a
threshold, else wrong. Precision is interpolated at recalls of 0, 0.01 ... 1; it is 0 beyond the last recall. Recalls up
to 0.1 are left out, precision counts by how far it is above 0.1, and the mean is scaled so that 1 is perfect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halp_trt.tasks.centers3d.objects import Found, Objects

__all__ = ["LEAST_PRECISION", "LEAST_RECALL", "THRESHOLDS_M", "Matches", "average_precision", "matches"]

THRESHOLDS_M = (0.5, 1.0, 2.0, 4.0)
"""The distances below which an object is found."""
LEAST_RECALL, LEAST_PRECISION = 0.1, 0.1
_NUM_RECALLS = 101
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """The detections of a class at one threshold, best first, and the objects that there are.

    Attributes:
        is_right: bool ``[n]``: True for what found an object.
        distances_m: float64 ``[n]``: distance from the sensor, of the object where one was found.
        objects_m: float64 ``[m]``: distance of each object from the sensor.
    """

    is_right: npt.NDArray[np.bool_]
    distances_m: Floats
    objects_m: Floats

    def between(self, least_m: float, most_m: float) -> Matches:
        """Those at distances from ``least_m`` to below ``most_m``; who found an object counts where the object is."""
        found = (self.distances_m >= least_m) & (self.distances_m < most_m)
        objects = (self.objects_m >= least_m) & (self.objects_m < most_m)
        return Matches(
            is_right=self.is_right[found], distances_m=self.distances_m[found], objects_m=self.objects_m[objects]
        )


def matches(found: Sequence[Found], truth: Sequence[Objects], label: int, threshold_m: float) -> Matches:
    """The detections of a class, held against its objects.

    Args:
        found: what was found in each frame; of equal scores the later counts first, as in the development kit.
        truth: objects in each frame, in the same order.
        label: the class.
        threshold_m: distance below which an object is found.
    """
    scores, rights, distances, objects = [np.zeros(0)], [np.zeros(0, dtype=bool)], [np.zeros(0)], [np.zeros(0)]
    for one, there in zip(found, truth, strict=True):
        chosen = one.labels == label
        centres, own = one.boxes[chosen, :2], there.boxes[there.labels == label, :2]
        owner = _owners(one.scores[chosen], centres, own, threshold_m)
        is_right = owner >= 0
        places = np.where(is_right[:, None], own[owner] if len(own) else centres, centres)
        scores.append(one.scores[chosen])
        rights.append(is_right)
        distances.append(np.hypot(places[:, 0], places[:, 1]))
        objects.append(np.hypot(own[:, 0], own[:, 1]))
    order = _best_first(np.concatenate(scores))
    return Matches(
        is_right=np.concatenate(rights)[order],
        distances_m=np.concatenate(distances)[order],
        objects_m=np.concatenate(objects),
    )


def average_precision(found: Matches) -> float | None:
    """The average precision, 0..1; None if there is no object to find."""
    if not len(found.objects_m):
        return None
    if not found.is_right.any():
        return 0.0
    hits = np.cumsum(found.is_right).astype(np.float64)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / len(found.objects_m)
    points = np.linspace(0, 1, _NUM_RECALLS)
    at = np.interp(points, recall, precision, right=0.0)[round(100 * LEAST_RECALL) + 1 :]
    return float(np.clip(at - LEAST_PRECISION, 0, None).mean() / (1 - LEAST_PRECISION))


def _best_first(scores: Floats) -> npt.NDArray[np.int64]:
    return np.argsort(scores, kind="stable")[::-1]


def _owners(scores: Floats, centres: Floats, own: Floats, threshold_m: float) -> npt.NDArray[np.int64]:
    """The object that each of these found, -1 for none."""
    owner = np.full(len(scores), -1, dtype=np.int64)
    if not len(own) or not len(scores):
        return owner
    distances = np.linalg.norm(centres[:, None] - own[None], axis=2)
    near = distances.min(axis=1) < threshold_m  # whoever is far from all finds nothing, whatever is taken
    for number in _best_first(scores):
        if not near[number]:
            continue
        best = int(distances[number].argmin())
        if distances[number, best] < threshold_m:
            owner[number] = best
            distances[:, best] = np.inf
    return owner
