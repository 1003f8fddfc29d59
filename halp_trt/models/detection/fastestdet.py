"""FastestDet, a detector of 0.24 million parameters: a small ShuffleNetV2, one map, an object's centre in its cell.

Made after the description of https://github.com/dog-qiuqiu/FastestDet (BSD-3-Clause), whose weights fit by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from halp_trt.errors import ModelError

__all__ = ["CellHead", "FastestDet"]

_WIDTHS, _REPEATS = (24, 48, 96, 192), (4, 8, 4)
"""Channels after the first convolution and after each stage, and the number of blocks in each stage."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The normalisation of the pictures that the network is given; it takes it back, as it learnt from pixels in 0..1."""
_STRIDE = 16


def _normed(inside: int, outside: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    return [
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
    ]


class _Block(nn.Module):
    """A block of ShuffleNetV2: half of the channels pass, or all are projected where the map is halved."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        middle, inside = out // 2, width if stride == 2 else width // 2
        self.branch_main = nn.Sequential(
            *_normed(inside, middle, 1),
            nn.ReLU(),
            *_normed(middle, middle, 3, stride=stride, groups=middle),
            *_normed(middle, out - inside, 1),
            nn.ReLU(),
        )
        self.branch_proj = (
            nn.Sequential(*_normed(width, width, 3, stride=2, groups=width), *_normed(width, width, 1), nn.ReLU())
            if stride == 2
            else None
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.branch_proj is not None:
            return torch.cat([self.branch_proj(features), self.branch_main(features)], dim=1)
        num, width, height, wide = features.shape
        pairs = features.reshape(num, width // 2, 2, height, wide)
        return torch.cat([pairs[:, :, 0], self.branch_main(pairs[:, :, 1])], dim=1)


class _Backbone(nn.Module):
    """Three maps of features, at strides of 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(*_normed(3, _WIDTHS[0], 3, stride=2), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages = []
        for width, out, repeats in zip(_WIDTHS, _WIDTHS[1:], _REPEATS, strict=False):
            stages.append(nn.Sequential(_Block(width, out, 2), *(_Block(out, out, 1) for _ in range(repeats - 1))))
        self.stage2, self.stage3, self.stage4 = stages

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        first = self.stage2(self.maxpool(self.first_conv(pictures)))
        second = self.stage3(first)
        return first, second, self.stage4(second)


class _Reduce(nn.Module):
    """A 1x1 convolution with batch norm and ReLU."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Sequential(*_normed(width, out, 1), nn.ReLU())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv1x1(features)
        return found


def _depthwise(width: int, repeats: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(repeats):
        layers += [*_normed(width, width, 5, groups=width), nn.ReLU()]
    return nn.Sequential(*layers)


class _Pyramid(nn.Module):
    """Features seen through one, two and three depthwise convolutions, joined and added."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.Conv1x1 = _Reduce(width, out)
        self.S1, self.S2, self.S3 = (_depthwise(out, repeats) for repeats in (1, 2, 3))
        self.output = nn.Sequential(*_normed(3 * out, out, 1))
        self.relu = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.Conv1x1(features)
        seen = torch.cat([self.S1(features), self.S2(features), self.S3(features)], dim=1)
        found: torch.Tensor = self.relu(features + self.output(seen))
        return found


class _Layers(nn.Module):
    """A depthwise convolution, and a 1x1 convolution to the numbers of a cell."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv5x5 = nn.Sequential(*_normed(width, width, 5, groups=width), nn.ReLU(), *_normed(width, out, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv5x5(features)
        return found


class _Heads(nn.Module):
    """The numbers of each cell: likelihood of an object, its box, likelihoods of classes."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv1x1 = _Reduce(width, width)
        self.obj_layers, self.reg_layers = _Layers(width, 1), _Layers(width, 4)
        self.cls_layers = _Layers(width, num_classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.conv1x1(features)
        likely, classes = torch.sigmoid(self.obj_layers(features)), torch.softmax(self.cls_layers(features), dim=1)
        return torch.cat([likely, self.reg_layers(features), classes], dim=1)


class FastestDet(nn.Module):
    """The detector: pictures ``[N, 3, H, W]`` to one map ``[N, 5 + classes, H/16, W/16]``.

    A cell has the likelihood of an object, four numbers of its box, and likelihoods of the classes.

    Attributes:
        detection: how the map is learnt and read.
    """

    def __init__(self, num_classes: int, shape: tuple[int, int, int]) -> None:
        """Builds it with initial weights.

        Raises:
            ModelError: pictures have other than 3 channels, or sides that are no multiples of 32.
        """
        super().__init__()
        if shape[0] != 3 or shape[1] % 32 or shape[2] % 32:
            raise ModelError(f"fastestdet takes pictures of 3 channels whose sides are multiples of 32, got {shape}")
        self.backbone = _Backbone()
        self.upsample, self.avg_pool = nn.Upsample(scale_factor=2, mode="nearest"), nn.AvgPool2d(3, 2, 1)
        self.SPP = _Pyramid(sum(_WIDTHS[1:]), _WIDTHS[2])
        self.detect_head = _Heads(_WIDTHS[2], num_classes)
        self.detection = CellHead(num_classes, (shape[1] // _STRIDE, shape[2] // _STRIDE))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        blue_first = [pictures[:, i : i + 1] * _STD[i] + _MEAN[i] for i in (2, 1, 0)]
        first, second, third = self.backbone(torch.cat(blue_first, dim=1))
        joined = torch.cat([self.avg_pool(first), second, self.upsample(third)], dim=1)
        found: torch.Tensor = self.detect_head(self.SPP(joined))
        return found


class CellHead:
    """The reader of one map of cells: an object's centre lies in a cell's reach, its sides are shares of the picture.

    A cell is an object of its likeliest class, with the score ``objectness^0.6 * class^0.4``, as FastestDet has it.
    """

    def __init__(self, num_classes: int, cells: tuple[int, int]) -> None:
        """Begins with the number of classes, and the map's height and width."""
        self.num_classes, self._cells = num_classes, cells

    def loss(self, outputs: Any, boxes: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Overlap, class and objectness of the four cells around each centre; raises as ``DetectionHead.loss``."""
        found = self._checked(outputs).float()
        predicted = self._boxes(found)
        wanted = torch.zeros_like(found[:, 0])
        overlaps, classes = [], []
        for number, (own, names) in enumerate(zip(boxes, labels, strict=True)):
            if not len(own):
                continue
            rows, columns, owners = self._cells_of(own)
            overlap = _overlap(predicted[number, :, rows, columns].T, own[owners])
            overlaps.append(1 - overlap)
            likely = found[number, 5 + names[owners], rows, columns]
            classes.append(-likely.clamp(min=1e-6).log())
            wanted[number, rows, columns] = overlap.detach().clamp(0, 1)
        objectness = F.smooth_l1_loss(found[:, 0], wanted, reduction="none", beta=0.11)
        is_object = wanted > 0
        total: torch.Tensor = objectness[is_object].sum() / is_object.sum().clamp(min=1) + objectness[~is_object].mean()
        if overlaps:
            total = total * 2 + torch.cat(overlaps).mean() * 2 + torch.cat(classes).mean() * 0.5
        return total

    def distance(self, outputs: Any, taught: Any) -> torch.Tensor:
        """The mean square of likelihoods' differences, and of boxes where the teacher sees objects."""
        own, theirs = self._checked(outputs).float(), self._checked(taught).float()
        weight = theirs[:, :1]
        squares = (own - theirs) ** 2
        boxes = F.smooth_l1_loss(own[:, 1:5], theirs[:, 1:5], reduction="none")
        total: torch.Tensor = squares[:, :1].sum() + (weight * squares[:, 5:]).sum() + (weight * boxes).sum()
        found: torch.Tensor = total / weight.sum().clamp(min=1)
        return found

    def read(self, outputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The boxes ``[N, A, 4]`` and the scores ``[N, A, classes]``; raises as ``DetectionHead.read``."""
        found = self._checked(next(iter(outputs.values()), None))
        classes = found[:, 5:].clamp(min=0)
        is_best = classes == classes.amax(dim=1, keepdim=True)
        scores = found[:, :1].clamp(min=0) ** 0.6 * classes**0.4 * is_best
        boxes = self._boxes(found).clamp(0, 1)
        return boxes.flatten(2).transpose(1, 2), scores.flatten(2).transpose(1, 2)

    def _boxes(self, found: torch.Tensor) -> torch.Tensor:
        """The box of every cell ``[N, 4, H, W]``."""
        height, width = self._cells
        column = torch.arange(width, device=found.device, dtype=found.dtype)
        row = torch.arange(height, device=found.device, dtype=found.dtype)[:, None]
        across, down = (found[:, 1].tanh() + column) / width, (found[:, 2].tanh() + row) / height
        wide, high = found[:, 3].sigmoid() / 2, found[:, 4].sigmoid() / 2
        return torch.stack([across - wide, down - high, across + wide, down + high], dim=1)

    def _cells_of(self, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows and columns of the cells that reach the centre of a box, and the number of the box of each."""
        height, width = self._cells
        across, down = (boxes[:, 0] + boxes[:, 2]) / 2 * width, (boxes[:, 1] + boxes[:, 3]) / 2 * height
        steps = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], device=boxes.device)
        columns = (across.floor().long()[:, None] + steps[:, 0]).flatten()
        rows = (down.floor().long()[:, None] + steps[:, 1]).flatten()
        owners = torch.arange(len(boxes), device=boxes.device).repeat_interleave(len(steps))
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        return rows[inside], columns[inside], owners[inside]

    def _checked(self, found: Any) -> Any:
        """The raw output.

        Raises:
            ModelError: it is not there, or is of another shape.
        """
        wanted = (5 + self.num_classes, *self._cells)
        if getattr(found, "ndim", 0) != 4 or tuple(found.shape[1:]) != wanted:
            have = tuple(found.shape) if hasattr(found, "shape") else type(found).__name__
            raise ModelError(f"the network's raw output is {have}, expected [N, {', '.join(map(str, wanted))}]")
        return found


def _overlap(boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """The intersection over union of each box ``[n, 4]`` with its other ``[n, 4]``."""
    low, high = torch.maximum(boxes[:, :2], others[:, :2]), torch.minimum(boxes[:, 2:], others[:, 2:])
    inside: torch.Tensor = (high - low).clamp(min=0).prod(dim=1)
    areas = [(one[:, 2:] - one[:, :2]).clamp(min=0).prod(dim=1) for one in (boxes, others)]
    return inside / (areas[0] + areas[1] - inside).clamp(min=1e-9)
