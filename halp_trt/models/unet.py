"""U-Net, a network from pictures to a class for every pixel (arXiv 1505.04597), with batch norm and padding."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from halp_trt.errors import ModelError

__all__ = ["UNet", "unet"]

WIDTHS = (32, 64, 128, 256)
"""Channels at each resolution; the paper has twice as many, and one resolution more."""


def _twice(inside: int, outside: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """Features on the way down, joined with those of the same resolution on the way up."""

    def __init__(self, num_classes: int, in_channels: int = 3, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        inside = (in_channels, *widths)
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip(inside, widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        wide = list(reversed(widths))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(wide))
        self.up = nn.ModuleList(_twice(2 * b, b) for b in wide[1:])
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Maps ``[N, C, H, W]`` to logits ``[N, classes, H, W]``."""
        features, passed = pictures, []
        for index, block in enumerate(self.down):
            features = block(features if index == 0 else self.pool(features))
            passed.append(features)
        for grow, block, beside in zip(self.grow, self.up, reversed(passed[:-1]), strict=True):
            features = block(torch.cat([beside, grow(features)], dim=1))
        logits: torch.Tensor = self.classifier(features)
        return logits


def unet(num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A U-Net for pictures whose sides are multiples of 8.

    Raises:
        ModelError: they are not.
    """
    step = 2 ** (len(WIDTHS) - 1)
    if input_shape[1] % step or input_shape[2] % step:
        raise ModelError(f"unet takes pictures whose sides are multiples of {step}, got input shape {input_shape}")
    return UNet(num_classes, input_shape[0])
