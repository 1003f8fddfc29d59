"""A small network, and how it is trained."""

from __future__ import annotations

import torch
from torch import nn

from halp_trt.training.settings import TrainSettings

SETTINGS = TrainSettings(num_epochs=1, batch_size=128, learning_rate=0.1, precision="fp32")


def small_net(num_classes: int = 10) -> nn.Module:
    """A CNN with batch norm and dropout, so that hidden random state would show."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * 16, num_classes),
    )
