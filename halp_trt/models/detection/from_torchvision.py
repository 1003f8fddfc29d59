"""Torchvision's one-stage detectors, taken apart: what is pruned ends at their heads' raw outputs.

A whole detector of torchvision resizes pictures, makes anchors, thresholds and suppresses boxes in Python, which cannot
be exported. Its backbone and heads can. Its loss, anchors and box coder stay torchvision's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from halp_trt.errors import ModelError
from halp_trt.interrupts import raise_if_stopped

__all__ = ["RawDetector", "TorchvisionHead", "load_detector", "one_stage_names"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The normalisation of the pictures that the network is given."""
_SIZES: Mapping[str, int] = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
"""Side of the pictures that a detector was made for; others take any, and get 512 if nothing is said."""
_ANY_SIZE = 512


class RawDetector(nn.Module):
    """The backbone and the heads of a detector; parameters have the names that they have in torchvision's.

    It returns the mapping of the heads: ``cls_logits`` ``[N, A, classes]``, ``bbox_regression`` ``[N, A, 4]``, and for
    FCOS ``bbox_ctrness`` ``[N, A, 1]``.

    Attributes:
        detection: how these are learnt and read.
    """

    def __init__(self, model: Any, size: tuple[int, int]) -> None:
        """Takes a detector of torchvision apart, for pictures of a height and width."""
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self._scale, self._shift = _normalisation(model.transform)
        with torch.no_grad():
            was_training = model.training
            model.eval()
            features = self._features(torch.zeros(1, 3, *size))
            model.train(was_training)
        self.detection = TorchvisionHead(model, features, size)

    def _features(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        found = self.backbone(pictures)
        return [found] if isinstance(found, torch.Tensor) else list(found.values())

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        if self._scale is not None:
            channels = [pictures[:, i : i + 1] * self._scale[i] + self._shift[i] for i in range(3)]
            pictures = torch.cat(channels, dim=1)
        found: dict[str, torch.Tensor] = self.head(self._features(pictures))
        return found


def _normalisation(transform: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...]]:
    """Scale and shift of each channel from our normalisation to the detector's own; no scale if both agree."""
    mean, std = tuple(transform.image_mean), tuple(transform.image_std)
    if np.allclose(mean, _MEAN) and np.allclose(std, _STD):
        return None, ()
    scale = tuple(ours / own for ours, own in zip(_STD, std, strict=True))
    shift = tuple((ours - own) / deviation for ours, own, deviation in zip(_MEAN, mean, std, strict=True))
    return scale, shift


class TorchvisionHead:
    """The reader of the raw outputs of a detector of torchvision, with its own loss, anchors and box coder."""

    def __init__(self, model: Any, features: Sequence[torch.Tensor], size: tuple[int, int]) -> None:
        """Begins with a detector, its features for one picture, and that picture's height and width."""
        from torchvision.models.detection.image_list import ImageList

        self._size = size
        self._kind = _kind_of(model)
        pictures = ImageList(torch.zeros(1, 3, *size), [size])
        (self._anchors,) = model.anchor_generator(pictures, list(features))
        per_cell = len(self._anchors) // max(1, sum(one.shape[2] * one.shape[3] for one in features))
        self._num_by_level = [one.shape[2] * one.shape[3] * per_cell for one in features]
        self._shell = _shell(model)

    def loss(self, outputs: Any, boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """The sum of the detector's own losses; raises as ``DetectionHead.loss``."""
        found = {name: value.float() for name, value in self._checked(outputs).items()}
        device = found["cls_logits"].device
        sides = torch.tensor([self._size[1], self._size[0]] * 2, dtype=torch.float32, device=device)
        targets = [
            {"boxes": one * sides, "labels": own + self._kind.first_label}
            for one, own in zip(boxes, labels, strict=True)
        ]
        anchors = [self._anchors.to(device)] * len(targets)
        losses = self._kind.losses(self._shell, targets, found, anchors, self._num_by_level)
        return torch.stack([loss.reshape(()) for loss in losses.values()]).sum()

    def distance(self, outputs: Any, taught: Any) -> torch.Tensor:
        """The mean square of the scores' differences, and of the boxes' offsets where the teacher sees objects."""
        own, theirs = self._checked(outputs), self._checked(taught)
        scores, wanted = self._kind.scores(own), self._kind.scores(theirs)
        weight = wanted.amax(dim=2, keepdim=True)
        smooth = F.smooth_l1_loss(own["bbox_regression"].float(), theirs["bbox_regression"].float(), reduction="none")
        return (((scores - wanted) ** 2).sum() + (weight * smooth).sum()) / weight.sum().clamp(min=1)

    def read(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The boxes ``[N, A, 4]`` and the scores ``[N, A, classes]``; raises as ``DetectionHead.read``."""
        found = self._checked(outputs)
        decode = getattr(self._shell.box_coder, "decode_single", None) or self._shell.box_coder.decode
        boxes = torch.stack([decode(one, self._anchors) for one in found["bbox_regression"].unbind()])
        sides = torch.tensor([self._size[1], self._size[0]] * 2, dtype=torch.float32)
        return (boxes / sides).clamp(0, 1), self._kind.scores(found)

    def _checked(self, outputs: Any) -> Mapping[str, Any]:
        """The raw outputs.

        Raises:
            ModelError: some are not there, or are of another number of anchors.
        """
        found = outputs if isinstance(outputs, Mapping) else {}
        for name in self._kind.names:
            if name not in found or found[name].ndim != 3 or found[name].shape[1] != len(self._anchors):
                have = {key: tuple(value.shape) for key, value in found.items()} or type(outputs).__name__
                raise ModelError(
                    f"the network's raw outputs are {have}, expected {name} [N, {len(self._anchors)}, ...]"
                )
        return found


# ---- the kinds ------------------------------------------------------------------------------------------------------


class _Ssd:
    """SSD: logits with the background first, boxes matched to anchors before the loss."""

    names = ("cls_logits", "bbox_regression")
    first_label = 1

    @staticmethod
    def scores(found: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return F.softmax(found["cls_logits"].float(), dim=2)[..., 1:]

    @staticmethod
    def losses(
        shell: Any, targets: Any, found: Any, anchors: Sequence[torch.Tensor], num_by_level: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        from torchvision.ops.boxes import box_iou

        matched = [
            shell.proposal_matcher(box_iou(target["boxes"], own))
            if len(target["boxes"])
            else torch.full((len(own),), -1, dtype=torch.int64, device=own.device)
            for target, own in zip(targets, anchors, strict=True)
        ]
        losses: dict[str, torch.Tensor] = shell.compute_loss(targets, found, anchors, matched)
        return losses


class _RetinaNet:
    """RetinaNet: a logit for each class, focal loss."""

    names = ("cls_logits", "bbox_regression")
    first_label = 0

    @staticmethod
    def scores(found: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return found["cls_logits"].float().sigmoid()

    @staticmethod
    def losses(
        shell: Any, targets: Any, found: Any, anchors: Sequence[torch.Tensor], num_by_level: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = shell.compute_loss(targets, found, anchors)
        return losses


class _Fcos:
    """FCOS: a logit for each class and one for how central a cell is in its object; no anchor boxes but cells."""

    names = ("cls_logits", "bbox_regression", "bbox_ctrness")
    first_label = 0

    @staticmethod
    def scores(found: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (found["cls_logits"].float().sigmoid() * found["bbox_ctrness"].float().sigmoid()).sqrt()

    @staticmethod
    def losses(
        shell: Any, targets: Any, found: Any, anchors: Sequence[torch.Tensor], num_by_level: Sequence[int]
    ) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = shell.compute_loss(targets, found, anchors, list(num_by_level))
        return losses


_Kind = type[_Ssd] | type[_RetinaNet] | type[_Fcos]


def _kind_of(model: Any) -> _Kind:
    from torchvision.models.detection import FCOS, RetinaNet
    from torchvision.models.detection.ssd import SSD

    kinds: Sequence[tuple[type, _Kind]] = ((SSD, _Ssd), (RetinaNet, _RetinaNet), (FCOS, _Fcos))
    return next(kind for cls, kind in kinds if isinstance(model, cls))


def _shell(model: Any) -> Any:
    """The detector without a single parameter: its losses, matcher and coder are left."""
    shell = copy.copy(model)
    shell._modules = dict(model._modules)
    shell.backbone = None
    shell.head = _hollow(model.head)
    return shell


def _hollow(module: nn.Module) -> nn.Module:
    """A module of the same classes without the layers that hold parameters, as far as those have no loss."""
    found = copy.copy(module)
    found._parameters, found._buffers = {}, {}
    found._modules = {
        name: _hollow(child)
        for name, child in module._modules.items()
        if child is not None and hasattr(child, "compute_loss")
    }
    return found


# ---- by name --------------------------------------------------------------------------------------------------------


def one_stage_names(detection: Any, models: Any) -> list[str]:
    """The names of torchvision's one-stage detectors; two-stage ones propose regions in Python."""
    return [name for name in models.list_models(module=detection) if "rcnn" not in name]


def load_detector(
    torchvision: Any, name: str, num_classes: int | None, shape: tuple[int, ...] | None, close: Callable[..., str]
) -> tuple[nn.Module, tuple[int, ...]]:
    """A detector of torchvision, taken apart, with initial weights, and its input shape.

    Args:
        torchvision: the package.
        name: name of the detector.
        num_classes: number of classes, without a background; None for COCO's 90.
        shape: channels, height and width; None for its own.
        close: function from a name and the known ones to a question that offers the closest.

    Raises:
        ModelError: there is no such detector, or it cannot be built.
    """
    models = torchvision.models
    known = one_stage_names(models.detection, models)
    if name not in known:
        raise ModelError(
            f"torchvision has no one-stage detector {name!r}; {close(name, known)}expected one of {', '.join(known)}"
        )
    side = _SIZES.get(name, _ANY_SIZE)
    size = (shape[-2], shape[-1]) if shape else (side, side)
    classes = 90 if num_classes is None else num_classes
    try:
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes + ("ssd" in name))
        return RawDetector(model, size), (3, *size)
    except Exception as cause:
        raise_if_stopped(cause)
        raise ModelError(f"torchvision cannot build {name!r} ({type(cause).__name__}: {cause})") from cause
