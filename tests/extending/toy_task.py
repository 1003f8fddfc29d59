"""A task of one's own: how bright is a picture? Targets are no whole numbers, and less of the score is better."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from halp_trt.specs import Score
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures


class Brightness:
    def __init__(self, data):
        self.name = data.name

    def loss(self, outputs, targets, settings, taught=None):
        return nn.functional.mse_loss(outputs["brightness"][:, 0], targets)

    def predict(self, outputs):
        return outputs["brightness"][:, 0]

    def metric(self, answers):
        errors = np.concatenate([np.asarray(found) - np.asarray(targets) for found, targets in answers])
        value = float(np.sqrt((errors**2).mean()))
        return Score(name="error", value=value, unit="cd", num_examples=len(errors), higher_is_better=False)


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
