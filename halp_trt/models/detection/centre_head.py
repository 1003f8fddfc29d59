"""Heads that see objects as points: a heat map of each class's centres, and eight numbers of the box at each cell.

The loss of the heat maps is the focal one of CenterNet (arXiv 1904.07850, section 3), that of the boxes L1 at the cells
of centres, as in CenterPoint (arXiv 2006.11275, section 3). Differs from them: the Gaussian around a centre has one
width for all objects, and a cell's box has no velocity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from halp_trt.errors import ModelError

__all__ = ["NUM_BOX", "CentreHead"]

NUM_BOX = 8
"""Numbers of a cell's box: offsets from the cell's middle in cells, forward and to the left; the height of the centre
in metres; logarithms of length, width and height in metres; sine and cosine of the yaw."""
RADIUS = 2
"""Cells around a centre that are less wrong than others; three standard deviations of the Gaussian span them."""
BOX_WEIGHT = 0.25
"""The weight of the boxes' loss beside that of the heat maps (CenterPoint's)."""
_LARGEST_LOG = 5.0
"""Largest logarithm of a size: beyond it the exponential would overflow in wrong networks."""


class CentreHead:
    """The reader of outputs ``heat`` ``[N, classes, H, W]``, logits, and ``boxes`` ``[N, 8, H, W]``.

    Rows of a map lead forward, columns to the left.

    Attributes:
        num_points: number of points of a pillar that the network reads; 0 if it reads no pillars.
    """

    def __init__(self, num_classes: int, cells: tuple[int, int], *, num_points: int = 0, radius: int = RADIUS) -> None:
        """Begins with the number of classes, the maps' height and width, and the radius of a centre in cells."""
        self.num_classes, self._cells = num_classes, cells
        self.num_points, self._radius = num_points, radius

    def loss(self, outputs: Any, boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """The focal loss of the heat maps and the boxes' L1, over the number of objects.

        Objects outside of the range count as nothing. Raises as ``SpatialHead.loss``.
        """
        heat, found = (tensor.float() for tensor in self._checked(outputs))
        wanted = torch.zeros_like(heat)
        total, num_objects = heat.new_zeros(()), 0
        for number, (own, classes) in enumerate(zip(boxes, labels, strict=True)):
            if len(classes) and int(classes.max()) >= self.num_classes:
                raise ModelError(
                    f"there is an object of class {int(classes.max())} and the network's classes end at "
                    f"{self.num_classes - 1}; build it for those of the data"
                )
            rows, columns, targets, inside = self._targets(own.to(heat))
            num_objects += len(rows)
            for bell, label in zip(self._bells(rows, columns), classes[inside], strict=True):
                wanted[number, label] = torch.maximum(wanted[number, label], bell)
            total = total + (found[number][:, rows, columns].T - targets).abs().sum()
        loss: torch.Tensor = (_focal(heat, wanted) + BOX_WEIGHT * total) / max(num_objects, 1)
        return loss

    def distance(self, outputs: Any, taught: Any) -> torch.Tensor:
        """The divergence of likelihoods from a teacher's, and L1 of boxes where it sees objects; 0 if all are equal."""
        heat, found = (tensor.float() for tensor in self._checked(outputs))
        their_heat, their_boxes = (tensor.float() for tensor in self._checked(taught))
        likely = their_heat.sigmoid()
        weight = likely.amax(dim=1, keepdim=True)
        lost = F.binary_cross_entropy_with_logits(heat, likely, reduction="sum")
        least = F.binary_cross_entropy_with_logits(their_heat, likely, reduction="sum")
        total = lost - least + BOX_WEIGHT * (weight * (found - their_boxes).abs()).sum()
        mean: torch.Tensor = total / weight.sum().clamp(min=1)
        return mean

    def read(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The boxes ``[N, H*W, 7]`` and the scores ``[N, H*W, classes]``; raises as ``SpatialHead.read``.

        A cell has a score of a class if no neighbour has a higher one, else 0.
        """
        heat, found = self._checked(outputs)
        height, width = self._cells
        scores = heat.sigmoid()
        is_peak = scores == F.max_pool2d(scores, 3, stride=1, padding=1)
        rows = torch.arange(height, device=found.device, dtype=found.dtype)[:, None]
        columns = torch.arange(width, device=found.device, dtype=found.dtype)
        forward, left = (rows + 0.5 + found[:, 0]) / height, (columns + 0.5 + found[:, 1]) / width
        sizes = found[:, 3:6].clamp(max=_LARGEST_LOG).exp()
        yaw = torch.atan2(found[:, 6], found[:, 7])
        boxes = torch.cat([torch.stack([forward, left, found[:, 2]], dim=1), sizes, yaw[:, None]], dim=1)
        return boxes.flatten(2).transpose(1, 2), (scores * is_peak).flatten(2).transpose(1, 2)

    def _targets(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows and columns of the centres inside of the range, the eight numbers of each, and which boxes these are."""
        inside = ((boxes[:, :2] >= 0) & (boxes[:, :2] < 1)).all(dim=1)
        boxes = boxes[inside]
        places = boxes[:, :2] * torch.tensor(self._cells, device=boxes.device, dtype=boxes.dtype)
        cells = places.long()
        yaw = boxes[:, 6:7]
        targets = torch.cat(
            [places - cells - 0.5, boxes[:, 2:3], boxes[:, 3:6].clamp(min=1e-3).log(), yaw.sin(), yaw.cos()], dim=1
        )
        return cells[:, 0], cells[:, 1], targets, inside

    def _bells(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """A Gaussian ``[n, H, W]`` around each of these cells, 1 at the cell and 0 outside of the radius."""
        height, width = self._cells
        down = torch.arange(height, device=rows.device) - rows[:, None]
        across = torch.arange(width, device=rows.device) - columns[:, None]
        deviation = (2 * self._radius + 1) / 6
        squares = (down**2)[:, :, None] + (across**2)[:, None, :]
        is_near = (down.abs() <= self._radius)[:, :, None] & (across.abs() <= self._radius)[:, None, :]
        return torch.exp(-squares / (2 * deviation**2)) * is_near

    def _checked(self, outputs: Any) -> tuple[Any, Any]:
        """The two raw outputs.

        Raises:
            ModelError: they are not there, or are of other shapes.
        """
        wanted = {"heat": (self.num_classes, *self._cells), "boxes": (NUM_BOX, *self._cells)}
        found = outputs if isinstance(outputs, Mapping) else {}
        for name, shape in wanted.items():
            if name not in found or tuple(found[name].shape[1:]) != shape:
                have = {key: tuple(value.shape) for key, value in found.items()} or type(outputs).__name__
                raise ModelError(
                    f"the network's raw outputs are {have}, expected {name} [N, {', '.join(map(str, shape))}]"
                )
        return found["heat"], found["boxes"]


def _focal(heat: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The focal loss of logits against maps of 0..1, summed.

    It is ``-(1 - p)² log p`` where the map is 1, and ``-(1 - y)⁴ p² log(1 - p)`` where it is y.
    """
    likely = heat.sigmoid()
    is_centre = wanted == 1
    found = (1 - likely) ** 2 * F.logsigmoid(heat) * is_centre
    spared = (1 - wanted) ** 4 * likely**2 * F.logsigmoid(-heat) * ~is_centre
    total: torch.Tensor = -(found + spared).sum()
    return total
