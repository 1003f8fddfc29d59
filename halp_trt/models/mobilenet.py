"""MobileNetV2 for pictures of CIFAR's size: inverted residuals around depthwise convolutions."""

from __future__ import annotations

import torch
from torch import nn

from halp_trt.errors import ModelError

__all__ = ["InvertedResidual", "MobileNetV2", "cifar_mobilenetv2"]

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
"""Expansion, channels, blocks and first stride of each stage: table 2 of arXiv 1801.04381 with its sixth stage (and the
stem) at stride 1, so that a picture of 32x32 ends at 4x4."""
_STEM_CHANNELS = 32
"""Channels of the stem at a multiplier of 1."""
_HEAD_CHANNELS = 1280
"""Channels of the last convolution at a multiplier of 1."""


class InvertedResidual(nn.Module):
    """A widening 1x1 convolution, a depthwise 3x3 and a linear, narrowing 1x1; a residual if shapes are equal.

    Args:
        in_channels, out_channels: channels of the narrow sides.
        stride: stride of the depthwise convolution.
        expansion: ratio of the middle width to ``in_channels``; 1 leaves the first convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        middle = expansion * in_channels
        self.expand = _block(in_channels, middle, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _block(middle, middle, 3, stride=stride, groups=middle)
        self.project = nn.Sequential(nn.Conv2d(middle, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.has_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``[N, in, H, W]`` to ``[N, out, H/stride, W/stride]``."""
        inner: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + inner if self.has_residual else inner


class MobileNetV2(nn.Module):
    """A 3x3 stem, seven stages of inverted residuals, a wide 1x1 head, global average pooling and a classifier.

    Args:
        multiplier: factor of all widths; products are rounded to multiples of 8.
        in_channels: channels of the picture.
        num_classes: width of the classifier.
    """

    def __init__(self, *, multiplier: float, in_channels: int, num_classes: int) -> None:
        super().__init__()
        previous = _rounded(_STEM_CHANNELS * multiplier)
        self.stem = _block(in_channels, previous, 3)
        blocks = []
        for expansion, channels, num_blocks, first_stride in _STAGES:
            width = _rounded(channels * multiplier)
            for index in range(num_blocks):
                stride = first_stride if index == 0 else 1
                blocks.append(InvertedResidual(previous, width, stride=stride, expansion=expansion))
                previous = width
        self.blocks = nn.Sequential(*blocks)
        last = _rounded(_HEAD_CHANNELS * multiplier)
        self.head = _block(previous, last, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps pictures ``[N, C, H, W]`` to logits ``[N, num_classes]``."""
        x = self.pool(self.head(self.blocks(self.stem(x))))
        logits: torch.Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def cifar_mobilenetv2(num_classes: int, input_shape: tuple[int, int, int], *, multiplier: float) -> nn.Module:
    """MobileNetV2 (arXiv 1801.04381) for 32x32 pictures: its stem and its sixth stage keep the picture's size.

    Differs from the paper: a multiplier below 1 narrows the head, too.

    Raises:
        ModelError: the picture is smaller than 8x8.
    """
    if min(input_shape[1:]) < 8:
        raise ModelError(
            f"mobilenetv2-cifar halves its picture three times and needs at least 8x8, got input shape {input_shape}"
        )
    return MobileNetV2(multiplier=multiplier, in_channels=input_shape[0], num_classes=num_classes)


def _block(in_channels: int, out_channels: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution with batch norm and ReLU6."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


def _rounded(width: float) -> int:
    """The nearest multiple of 8, or the next one if that is below 0.9 of the width, as in the authors' code."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest
