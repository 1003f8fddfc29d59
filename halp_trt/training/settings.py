"""The settings of a training, as a value that needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from halp_trt.errors import UsageError
from halp_trt.training.updates import UPDATES

__all__ = ["STEP_PRECISIONS", "TrainSettings"]

STEP_PRECISIONS = ("auto", "bf16", "fp16", "fp32")
"""The number formats of training steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """The settings of a training.

    Attributes:
        num_epochs: number of passes over the training pictures.
        batch_size: number of pictures in a step, over all parts and processes.
        num_parts: number of parts that a step's batch is split into, whose gradients add up, for batches that memory
            does not hold; batch norms see one part at a time.
        learning_rate: peak learning rate.
        warmup_fraction: share of the steps in which the learning rate climbs linearly to its peak.
        schedule: ``cosine`` falls to zero after the warm-up, ``constant`` stays at the peak.
        momentum: momentum of Nesterov's SGD.
        weight_decay: weight decay of all parameters but one-dimensional ones (batch norm, biases).
        label_smoothing: probability mass spread over all classes, if the task has classes.
        precision: ``bf16`` or ``fp16`` (autocast, fp16 with a scaled loss), ``fp32``, or ``auto``: bfloat16 if the
            device computes in it natively, else fp32.
        augment: True if training pictures are augmented.
        distillation: weight of a teacher's outputs in the loss, if a teacher is given (arXiv 1503.02531).
        temperature: temperature of soft labels.
        update: rule by which gradients change the weights, a name in ``UPDATES``.
        seed: seed of all randomness.
    """

    num_epochs: int
    batch_size: int = 128
    num_parts: int = 1
    learning_rate: float = 0.1
    warmup_fraction: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    augment: bool = True
    distillation: float = 0.0
    temperature: float = 4.0
    update: str = "sgd"
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = (self.warmup_fraction, self.momentum, self.label_smoothing, self.distillation)
        if self.num_epochs < 0 or self.batch_size < 1 or self.num_parts < 1 or self.seed < 0:
            raise UsageError(
                f"training needs epochs and seed of at least 0, batches and parts of at least 1, got {self}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0 and self.temperature > 0):
            raise UsageError(f"learning rate and temperature must be finite and above 0, got {self}")
        if not all(0 <= f <= 1 for f in fractions) or self.momentum == 1 or self.weight_decay < 0:
            raise UsageError(
                f"warm-up, momentum, smoothing and distillation lie in 0..1, weight decay is not negative: {self}"
            )
        if self.precision not in STEP_PRECISIONS:
            raise UsageError(
                f"training precision {self.precision!r} is not known; expected one of {', '.join(STEP_PRECISIONS)}"
            )
        if self.update not in UPDATES:
            raise UsageError(f"update {self.update!r} is not known; expected one of {', '.join(UPDATES)}")
