"""A network and pictures small enough to run every verb in a second; tests copy this file into their working folder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

TINY = ("--model", "tiny:net", "--data", "tiny:pictures", "--runtime", "synthetic")


def net(num_classes: int = 3) -> tuple[nn.Module, torch.Tensor]:
    layers = [
        nn.Conv2d(1, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, num_classes),
    ]
    return nn.Sequential(*layers), torch.zeros(1, 1, 8, 8)


def pictures() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Noise that is brighter for higher labels."""
    random = np.random.default_rng(0)
    labels = np.arange(96) % 3
    pixels = random.integers(0, 80, (96, 1, 8, 8)) + 80 * labels[:, None, None, None]
    pixels = pixels.astype(np.uint8)
    return pixels[:64], labels[:64], pixels[64:], labels[64:]


class Summed(nn.Module):
    """Takes two pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()[0]

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.net(x + y)


def two_inputs() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Summed(), (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def doubled() -> tuple[nn.Module, torch.Tensor]:
    return net()[0].double(), torch.zeros(1, 1, 8, 8, dtype=torch.float64)


def picture_to_picture() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(*list(net()[0])[:6]), torch.zeros(1, 1, 8, 8)


class Deciding(nn.Module):
    """Branches on what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y if y.mean() > 0 else -y


def deciding() -> tuple[nn.Module, torch.Tensor]:
    return Deciding(), torch.zeros(1, 1, 8, 8)


def impatient() -> nn.Module:
    """What Ctrl-C while a network loads looks like."""
    raise KeyboardInterrupt
