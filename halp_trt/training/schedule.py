"""The learning rate of a step."""

from __future__ import annotations

import math

from halp_trt.training.settings import TrainSettings

__all__ = ["learning_rate"]


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """The learning rate of a step: linear warm-up to the peak, then half a cosine to zero or a constant."""
    num_warmup = round(settings.warmup_fraction * total)
    if step < num_warmup:
        return settings.learning_rate * (step + 1) / num_warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - num_warmup) / max(1, total - num_warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
