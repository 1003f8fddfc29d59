"""Semantic segmentation: a class for every pixel, cross-entropy over pixels, mean intersection over union."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from halp_trt.errors import DataError, ModelError
from halp_trt.models.reference import flatten
from halp_trt.specs import Score
from halp_trt.tasks import Outputs
from halp_trt.tasks.drawing import as_image, colour_of, legend_of
from halp_trt.tasks.masks import IGNORED
from halp_trt.training.settings import TrainSettings

if TYPE_CHECKING:
    from PIL import Image

    from halp_trt.tasks.dataset import DataSet

__all__ = ["Segmentation"]

_OPACITY = 140
"""Opacity of the colours over a picture, of 255."""


class Segmentation:
    """The task of segmentation; targets are classes ``[N, H, W]``, 255 where a pixel does not count.

    The first output has a logit for each class at a resolution of its own; it is resized to the targets'.

    Attributes:
        reads, caption, legend: as ``halp_trt.tasks.Reads`` and ``halp_trt.tasks.Draws`` have them.

    Raises:
        DataError: the data set has fewer than two classes.
    """

    reads = "resizing and classes of pixels"
    caption = "Test pictures under the classes of their pixels: as they are labelled, and as each engine finds them."

    def __init__(self, data: DataSet) -> None:
        if data.num_classes < 2:
            raise DataError(f"data set {data.name!r} needs at least two classes of pixels, got {list(data.classes)}")
        self._classes, self._name, self._size = data.classes, data.name, data.input_shape[1:]
        self.legend = legend_of(data.classes)

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """The cross-entropy over pixels, mixed with the divergence from a teacher's probabilities if there is one.

        Raises:
            ModelError: the first output is not one logit per class and place.
        """
        logits = self._logits(flatten(outputs))
        wanted = targets.long()
        is_counted = wanted != IGNORED
        entropy = F.cross_entropy(_resized(logits, wanted.shape[1:]), wanted, ignore_index=IGNORED, reduction="sum")
        loss: torch.Tensor = entropy / is_counted.sum().clamp(min=1)
        if taught is None:
            return loss
        theirs = F.softmax(self._logits(flatten(taught)) / settings.temperature, dim=1)
        own = F.log_softmax(logits / settings.temperature, dim=1)
        soft: torch.Tensor = F.kl_div(own, theirs, reduction="none").sum(dim=1).mean() * settings.temperature**2
        return (1 - settings.distillation) * loss + settings.distillation * soft

    def predict(self, outputs: Outputs) -> npt.NDArray[np.int64]:
        """The most likely class of every pixel of the network's input, ``[N, H, W]``.

        Raises:
            ModelError: the first output is not one logit per class and place.
        """
        logits = self._logits([torch.from_numpy(np.asarray(next(iter(outputs.values()))))])
        classes: npt.NDArray[np.int64] = _resized(logits, self._size).argmax(dim=1).numpy()
        return classes

    def metric(self, answers: Iterable[tuple[Sequence[Any] | npt.NDArray[Any], Any]]) -> Score:
        """The mean over classes of intersection over union, counted over all pixels, with that of each class."""
        num = len(self._classes)
        counts, num_examples = np.zeros((num, num), dtype=np.int64), 0
        for predicted, targets in answers:
            found, wanted = np.asarray(predicted), np.asarray(targets)
            num_examples += len(wanted)
            is_counted = wanted != IGNORED
            pairs = wanted[is_counted].astype(np.int64) * num + np.minimum(found[is_counted], num - 1)
            counts += np.bincount(pairs, minlength=num * num).reshape(num, num)
        inside = np.diag(counts)
        union = counts.sum(axis=0) + counts.sum(axis=1) - inside
        parts = {name: float(inside[i] / union[i]) for i, name in enumerate(self._classes) if union[i]}
        if not parts:
            raise DataError(f"the test pictures of {self._name} have no pixel that counts; mend their masks")
        return Score(
            name="mIoU",
            value=float(np.mean(list(parts.values()))),
            unit="fraction",
            num_examples=num_examples,
            parts=parts,
        )

    def labelled(self, target: Any) -> npt.NDArray[np.uint8]:
        """The classes of a picture's pixels."""
        return np.asarray(target)

    def draw(self, pixels: npt.NDArray[np.uint8], answer: npt.NDArray[Any], target: Any) -> Image.Image:
        """The picture under the colours of its pixels' classes; the first class and pixels without one stay clear."""
        from PIL import Image

        base = as_image(pixels, pixels.shape[1:])
        planes = np.zeros((*answer.shape, 4), dtype=np.uint8)
        for label in range(1, len(self._classes)):
            red, green, blue = bytes.fromhex(colour_of(label)[1:])
            planes[answer == label] = (red, green, blue, _OPACITY)
        overlay = Image.fromarray(planes).resize(base.size, Image.Resampling.NEAREST)
        return Image.alpha_composite(base.convert("RGBA"), overlay).convert("RGB")

    def count(self, answer: npt.NDArray[Any]) -> str:
        """The share of the pixels that have another class than the first."""
        is_counted = answer != IGNORED
        share = float((answer[is_counted] > 0).mean()) if is_counted.any() else 0.0
        return f"{share:.0%} not {self._classes[0]}"

    def _logits(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The first output, in float32.

        Raises:
            ModelError: it is not ``[N, classes, H, W]``.
        """
        found = tensors[0] if tensors else None
        if found is None or found.ndim != 4 or found.shape[1] < len(self._classes):
            shape = None if found is None else tuple(found.shape)
            raise ModelError(
                f"the network's first output is {shape}, expected logits [N, {len(self._classes)}, H, W] for the "
                f"classes of {self._name}; use data none, or data of another task"
            )
        return found.float()


def _resized(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)
