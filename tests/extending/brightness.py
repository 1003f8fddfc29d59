"""Grey pictures and a network that tells how bright they are, for the toy task."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures


def _split(seed, num):
    pixels = np.random.default_rng(seed).integers(0, 256, (num, 1, 1, 1)).astype(np.uint8).repeat(8, 2).repeat(8, 3)
    return ArrayPictures(pixels=pixels, labels=(pixels[:, 0, 0, 0] / 255).astype(np.float32))


def pictures() -> DataSet:
    return DataSet(
        name="grey", train=_split(0, 256), test=_split(1, 50), input_shape=(1, 8, 8), mean=(0.5,), std=(0.3,),
        task="brightness",
    )  # fmt: skip


class _Net(nn.Module):
    """Answers by name, and says something else first."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.guess, self.brightness = nn.Linear(32, 2), nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(x)
        return {"guess": self.guess(features), "brightness": self.brightness(features)}


def net() -> tuple[nn.Module, torch.Tensor]:
    return _Net(), torch.zeros(1, 1, 8, 8)
