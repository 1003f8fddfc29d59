"""The settings of a training, as a value that needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from halp_trt.errors import UsageError
from halp_trt.training.optimizer import OPTIMIZERS
from halp_trt.training.updates import UPDATES

__all__ = ["BEST", "KEPT", "LAST", "STEP_PRECISIONS", "TrainSettings"]

STEP_PRECISIONS = ("auto", "bf16", "fp16", "fp32")
"""The number formats of training steps."""
LAST = "last"
"""The name of the weights at the end of a training."""
BEST = "best"
"""The name of the weights with the best score."""
KEPT = (LAST, BEST)
"""The weights that may be a training's result."""


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
        optimizer: optimiser, a name in ``OPTIMIZERS``.
        momentum: momentum of SGD, or decay of the first moment of AdamW.
        weight_decay: weight decay of all parameters but one-dimensional ones (batch norm, biases).
        label_smoothing: probability mass spread over all classes, if the task has classes.
        precision: ``bf16`` or ``fp16`` (autocast, fp16 with a scaled loss), ``fp32``, or ``auto``: bfloat16 if the
            device computes in it natively, else fp32.
        augment: True if training pictures are augmented.
        distillation: weight of a teacher's outputs in the loss, if a teacher is given (arXiv 1503.02531).
        temperature: temperature of soft labels.
        update: rule by which gradients change the weights, a name in ``UPDATES``.
        ema: decay of an exponential moving average of the weights, which is the training's result; 0 for none.
        score_every: epochs between two scores on the test examples; the last epoch is scored, too. 0 for none.
        keep: ``last`` if the weights at the end are the result, ``best`` if those with the best score are.
        seed: seed of all randomness.
    """

    num_epochs: int
    batch_size: int = 128
    num_parts: int = 1
    learning_rate: float = 0.1
    warmup_fraction: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    augment: bool = True
    distillation: float = 0.0
    temperature: float = 4.0
    update: str = "sgd"
    ema: float = 0.0
    score_every: int = 0
    keep: Literal["last", "best"] = "last"
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = (self.warmup_fraction, self.momentum, self.label_smoothing, self.distillation)
        if min(self.num_epochs, self.seed, self.score_every) < 0 or min(self.batch_size, self.num_parts) < 1:
            raise UsageError(
                f"training needs epochs, scores and seed of at least 0, batches and parts of at least 1, got {self}"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0 and self.temperature > 0):
            raise UsageError(f"learning rate and temperature must be finite and above 0, got {self}")
        if not all(0 <= f <= 1 for f in fractions) or self.momentum == 1 or self.weight_decay < 0:
            raise UsageError(
                f"warm-up, momentum, smoothing and distillation lie in 0..1, weight decay is not negative: {self}"
            )
        if not 0 <= self.ema < 1:
            raise UsageError(f"the decay of averaged weights is {self.ema}; expected a number from 0 to below 1")
        self._check_names()
        if self.keep == BEST and self.score_every < 1:
            raise UsageError("the best weights are found by their scores, and none are asked for; set --score-every 1")

    @property
    def lasting(self) -> TrainSettings:
        """These settings without those that may change while a training is interrupted.

        They are its precision, the parts of its batches, and how often it is scored where no weights are chosen by it.
        """
        return replace(self, precision="auto", num_parts=1, score_every=self.score_every if self.keep == BEST else 0)

    def _check_names(self) -> None:
        """Refuses names that are not known."""
        if self.precision not in STEP_PRECISIONS:
            raise UsageError(
                f"training precision {self.precision!r} is not known; expected one of {', '.join(STEP_PRECISIONS)}"
            )
        if self.update not in UPDATES:
            raise UsageError(f"update {self.update!r} is not known; expected one of {', '.join(UPDATES)}")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimiser {self.optimizer!r} is not known; expected one of {', '.join(OPTIMIZERS)}")
        if self.keep not in KEPT:
            raise UsageError(f"the weights to keep are {self.keep!r}; expected one of {', '.join(KEPT)}")
