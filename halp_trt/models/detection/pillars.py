"""A detector of objects in clouds of points: pillars, a canvas seen from above, a CNN with three scales, centre heads.

It follows PointPillars (arXiv 1812.05784) and CenterPoint (arXiv 2006.11275). Points are sorted into the places of
their pillars on the host, each pillar with as many places as the network reads points; so the encoder is a 1x1
convolution and a maximum over a pillar's places, and nothing is scattered in the graph. Its channels are those of the
canvas: they are pruned with what the first convolution reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.models.detection.centre_head import NUM_BOX, CentreHead

__all__ = ["NUM_POINTS", "PillarEncoder", "PillarNet", "pillars"]

NUM_POINTS = 4
"""Points of a pillar that are read, by default."""
CANVAS, WIDTHS, DEPTHS, JOINED = 32, (32, 64, 128), (1, 1, 1), 32
"""Channels of the canvas and of the CNN's scales, convolutions of each scale beside the one of stride 2, and channels
of each scale where all are joined."""
_RARE = -2.19
"""The logit of a likelihood of 0.1: a heat map begins with few objects, as the focal loss needs it."""


class PillarEncoder(nn.Module):
    """A layer for each point, and the maximum over the points of a pillar.

    It has neither bias nor batch norm: places without a point are zeros, and stay zeros on the canvas. The first number
    of a point is 1 where there is one, so that its weight is the bias of points.
    """

    def __init__(self, in_channels: int, width: int, num_points: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(in_channels, width, 1, bias=False)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d((num_points, 1))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Maps ``[N, numbers, rows * points, columns]`` to a canvas ``[N, width, rows, columns]``."""
        canvas: torch.Tensor = self.relu(self.pool(self.linear(points)))
        return canvas


def _normed(inside: int, outside: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """A convolution, its batch norm and ReLU."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outside), nn.ReLU()]


class PillarNet(nn.Module):
    """The detector: points in the places of pillars to raw maps, at half of the canvas's resolution.

    It returns a mapping: ``heat`` ``[N, classes, rows/2, columns/2]``, logits, and ``boxes`` ``[N, 8, rows/2,
    columns/2]``.

    Attributes:
        detection: how these are learnt and read.
    """

    def __init__(
        self,
        num_classes: int,
        shape: tuple[int, int, int],
        *,
        num_points: int = NUM_POINTS,
        canvas: int = CANVAS,
        widths: Sequence[int] = WIDTHS,
        depths: Sequence[int] = DEPTHS,
        joined: int = JOINED,
    ) -> None:
        """Builds it with initial weights.

        Args:
            num_classes: number of classes.
            shape: numbers of a point, rows of the canvas times points of a pillar, and columns.
            num_points: points of a pillar.
            canvas: channels of the canvas.
            widths: channels of each scale; each has half the resolution of the one before, the first half the canvas's.
            depths: convolutions of each scale beside the one of stride 2.
            joined: channels of each scale where all are joined, and of the heads.

        Raises:
            ModelError: the canvas cannot be halved so often, or the pillars do not fill whole rows.
        """
        super().__init__()
        step = 2 ** len(widths)
        rows, rest = divmod(shape[1], num_points)
        if rest or rows % step or shape[2] % step or not rows or not shape[2]:
            raise ModelError(
                f"pillars are read from inputs of NUMBERSxHEIGHTxWIDTH, the width a multiple of {step} and the height "
                f"of {step * num_points} ({num_points} points of each pillar), got {'x'.join(map(str, shape))}"
            )
        self.encoder = PillarEncoder(shape[0], canvas, num_points)
        self.scales, self.ups = nn.ModuleList(), nn.ModuleList()
        inside = canvas
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            layers = _normed(inside, width, 3, stride=2)
            for _ in range(depth):
                layers += _normed(width, width, 3)
            self.scales.append(nn.Sequential(*layers))
            up = [nn.Upsample(scale_factor=2**number, mode="nearest")] if number else []
            self.ups.append(nn.Sequential(*_normed(width, joined, 1), *up))
            inside = width
        self.neck = nn.Sequential(*_normed(joined * len(widths), joined, 3))
        self.heat = nn.Sequential(*_normed(joined, joined, 3), nn.Conv2d(joined, num_classes, 1))
        self.boxes = nn.Sequential(*_normed(joined, joined, 3), nn.Conv2d(joined, NUM_BOX, 1))
        nn.init.constant_(self.heat[-1].bias, _RARE)  # type: ignore[arg-type]  # a convolution's
        self.detection = CentreHead(num_classes, (rows // 2, shape[2] // 2), num_points=num_points)

    def forward(self, points: torch.Tensor) -> dict[str, torch.Tensor]:
        features, seen = self.encoder(points), []
        for scale, up in zip(self.scales, self.ups, strict=True):
            features = scale(features)
            seen.append(up(features))
        joined = self.neck(torch.cat(seen, dim=1))
        return {"heat": self.heat(joined), "boxes": self.boxes(joined)}


def pillars(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """The detector of pillars with its usual widths, and four points of a pillar; raises as :class:`PillarNet`."""
    return PillarNet(num_classes, input_shape)
