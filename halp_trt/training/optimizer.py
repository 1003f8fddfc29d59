"""The optimiser of a network."""

from __future__ import annotations

import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.training.settings import TrainSettings

__all__ = ["make_optimizer"]


def make_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.SGD:
    """A Nesterov SGD optimiser; one-dimensional parameters (batch norm, biases) are not decayed.

    Raises:
        ModelError: the network has no parameter that can be trained.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError("the network has no parameter that can be trained; set requires_grad on some")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )
