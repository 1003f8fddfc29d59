"""Random changes of a training picture that its boxes follow: SSD's colours, zooms, crops and flips.

They are those of Liu et al., arXiv 1512.02325, sections 2.2 and 3.6, as ``torchvision.transforms.v2`` has them. Without
torchvision pictures are flipped alone.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from halp_trt.tasks.detection.objects import Objects
from halp_trt.tasks.preparation import drawn_from

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["changed"]

_LEAST_SIDE = 1.0
"""The least width and height, in pixels, of a box that stays."""


def changed(picture: Image.Image, objects: Objects, *, seed: int) -> tuple[Image.Image, Objects]:
    """The picture and its objects after a random change, a pure function of the arguments; objects outside are gone."""
    import torch

    transforms = _transforms()
    with drawn_from(seed):
        if transforms is None:
            return _flipped(picture, objects) if torch.rand(1) < 0.5 else (picture, objects)
        boxes_of, transform = transforms
        boxes = boxes_of(torch.from_numpy(objects.boxes), picture.height, picture.width)
        picture, boxes = transform(picture, boxes)
    found = boxes.numpy().astype(np.float64).clip(0, [picture.width, picture.height] * 2)
    there = ((found[:, 2:] - found[:, :2]) >= _LEAST_SIDE).all(axis=1)
    moved = Objects(boxes=found, labels=objects.labels, is_ignored=objects.is_ignored)
    return picture, moved.take(there)


def _flipped(picture: Image.Image, objects: Objects) -> tuple[Image.Image, Objects]:
    from PIL import Image

    boxes = objects.boxes.copy()
    boxes[:, [0, 2]] = picture.width - boxes[:, [2, 0]]
    turned = Objects(boxes=boxes, labels=objects.labels, is_ignored=objects.is_ignored)
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), turned


@cache
def _transforms() -> tuple[Any, Any] | None:
    """A maker of torchvision's boxes, and its transforms; None where torchvision is not installed or too old."""
    from importlib import import_module

    from halp_trt.errors import ModelError
    from halp_trt.models.sources import import_torchvision

    try:
        import_torchvision()
        v2, tensors = import_module("torchvision.transforms.v2"), import_module("torchvision.tv_tensors")
    except (ModelError, ImportError):
        return None

    def boxes_of(boxes: Any, height: int, width: int) -> Any:
        return tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))

    steps = [v2.RandomPhotometricDistort(), v2.RandomZoomOut(fill=_MEAN), v2.RandomIoUCrop(), v2.RandomHorizontalFlip()]
    return boxes_of, v2.Compose(steps)


_MEAN = (124, 116, 104)
"""ImageNet's mean colour, around pictures that are zoomed out."""
