"""The head of single-shot detectors: a score of every class, and offsets from a prior box, for each prior box.

The loss is that of Liu et al., arXiv 1512.02325, section 2.2: cross-entropy over the priors of objects and the three
times as many hardest of the background, and smooth L1 of the objects' offsets, both over the number of objects' priors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from halp_trt.errors import ModelError
from halp_trt.models.detection.priors import VARIANCES

__all__ = ["SsdHead"]

LEAST_OVERLAP = 0.5
"""The least intersection over union of a prior with the object that it stands for."""
HARD = 3
"""Priors of the background in the loss for each of an object."""
_LARGEST_LOG = 4.0
"""Largest logarithm of a size over the prior's: beyond it the exponential would overflow in wrong networks."""


class SsdHead:
    """The reader of outputs ``classes`` ``[N, A, 1 + classes]``, background first, and ``boxes`` ``[N, A, 4]``."""

    def __init__(self, priors: npt.NDArray[np.float32], num_classes: int) -> None:
        """Begins with prior boxes ``[A, 4]``, as centre, width and height."""
        self.priors, self.num_classes = priors, num_classes

    def loss(self, outputs: Any, boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """The loss of a batch; raises as ``DetectionHead.loss``."""
        classes, offsets = self._checked(outputs)
        classes, offsets = classes.float(), offsets.float()
        priors = torch.from_numpy(self.priors).to(classes.device)
        pairs = [self._matched(priors, *one) for one in zip(boxes, labels, strict=True)]
        wanted, targets = torch.stack([one for one, _ in pairs]), torch.stack([one for _, one in pairs])
        is_object = wanted > 0
        num_objects = is_object.sum().clamp(min=1)
        entropy = F.cross_entropy(classes.transpose(1, 2), wanted, reduction="none")
        with torch.no_grad():
            background = entropy.masked_fill(is_object, -1)
            rank = background.argsort(dim=1, descending=True).argsort(dim=1)
            is_hard = (rank < HARD * is_object.sum(dim=1, keepdim=True).clamp(min=1)) & ~is_object
        smooth = F.smooth_l1_loss(offsets, targets, reduction="none").sum(dim=2)
        return ((entropy * (is_object | is_hard)).sum() + (smooth * is_object).sum()) / num_objects

    def distance(self, outputs: Any, taught: Any) -> torch.Tensor:
        """The divergence of class probabilities from a teacher's, and of offsets where it sees objects."""
        classes, offsets = self._checked(outputs)
        their_classes, their_offsets = self._checked(taught)
        wanted = F.softmax(their_classes.float(), dim=2)
        weight = 1 - wanted[..., :1]  # of an object, whichever
        divergence = F.kl_div(F.log_softmax(classes.float(), dim=2), wanted, reduction="none").sum(dim=2, keepdim=True)
        smooth = F.smooth_l1_loss(offsets.float(), their_offsets.float(), reduction="none").sum(dim=2, keepdim=True)
        return (divergence + weight * smooth).sum() / weight.sum().clamp(min=1)

    def read(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The boxes ``[N, A, 4]`` and the scores ``[N, A, classes]``; raises as ``DetectionHead.read``."""
        classes, offsets = self._checked(outputs)
        priors, units = torch.from_numpy(self.priors), torch.tensor(VARIANCES)
        centre = priors[:, :2] + offsets[..., :2] * units[:2] * priors[:, 2:]
        half = priors[:, 2:] * torch.exp((offsets[..., 2:] * units[2:]).clamp(max=_LARGEST_LOG)) / 2
        return torch.cat([centre - half, centre + half], dim=2).clamp(0, 1), F.softmax(classes, dim=2)[..., 1:]

    def _checked(self, outputs: Any) -> tuple[Any, Any]:
        """The two raw outputs.

        Raises:
            ModelError: they are not there, or are of other shapes.
        """
        wanted = {"classes": (len(self.priors), 1 + self.num_classes), "boxes": (len(self.priors), 4)}
        found = outputs if isinstance(outputs, Mapping) else {}
        for name, shape in wanted.items():
            if name not in found or tuple(found[name].shape[1:]) != shape:
                have = {key: tuple(value.shape) for key, value in found.items()} or type(outputs).__name__
                raise ModelError(f"the network's raw outputs are {have}, expected {name} [N, {shape[0]}, {shape[1]}]")
        return found["classes"], found["boxes"]

    @staticmethod
    def _matched(priors: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The class of each prior ``[A]``, 0 for the background, and the offsets ``[A, 4]`` of its object."""
        classes = torch.zeros(len(priors), dtype=torch.int64, device=priors.device)
        if not len(boxes):
            return classes, torch.zeros_like(priors)
        half = priors[:, 2:] / 2
        overlap = _overlaps(torch.cat([priors[:, :2] - half, priors[:, :2] + half], dim=1), boxes)
        best, owner = overlap.max(dim=1)
        favourite = overlap.argmax(dim=0)  # each object has a prior of its own, however little they overlap
        best = best.index_fill(0, favourite, 2.0)
        owner = owner.index_copy(0, favourite, torch.arange(len(boxes), device=owner.device))
        classes = torch.where(best >= LEAST_OVERLAP, labels[owner] + 1, classes)
        own = boxes[owner]
        centre, size = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]).clamp(min=1e-6)
        units = torch.tensor(VARIANCES, device=priors.device)
        offsets = torch.cat([(centre - priors[:, :2]) / priors[:, 2:], torch.log(size / priors[:, 2:])], dim=1) / units
        return classes, offsets


def _overlaps(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The intersections over unions ``[n, m]`` of boxes ``[n, 4]`` with other boxes ``[m, 4]``."""
    sides = (
        torch.minimum(boxes[:, None, 2:], others[None, :, 2:]) - torch.maximum(boxes[:, None, :2], others[None, :, :2])
    ).clamp(min=0)
    inside = sides.prod(dim=2)
    areas = [(one[:, 2:] - one[:, :2]).prod(dim=1) for one in (boxes, others)]
    return inside / (areas[0][:, None] + areas[1][None] - inside).clamp(min=1e-12)
