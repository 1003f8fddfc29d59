"""The trainings that settings spell out: of the dense network, between pruning steps, and of fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from halp_trt.errors import UsageError
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.settings import DenseTrainingSettings, FineTuningSettings

__all__ = ["dense_training", "fine_tuning", "pruning_rate"]


def dense_training(train: DenseTrainingSettings, tune: FineTuningSettings, *, seed: int) -> TrainSettings:
    """The settings of the dense network's training.

    Raises:
        UsageError: they do not make sense.
    """
    return _training(tune, num_epochs=train.train_epochs, rate=train.train_rate, seed=seed)


def fine_tuning(tune: FineTuningSettings, *, seed: int) -> TrainSettings:
    """The settings of fine-tuning.

    Raises:
        UsageError: they do not make sense.
    """
    found = _training(tune, num_epochs=tune.epochs, rate=tune.tune_rate, seed=seed)
    return replace(found, distillation=tune.distillation)


def pruning_rate(tune: FineTuningSettings) -> float | None:
    """The learning rate between pruning steps; None if no one is named."""
    return None if tune.prune_rate is None else _scaled(tune.prune_rate, tune)


def _scaled(rate: float, tune: FineTuningSettings) -> float:
    """A learning rate for the batches that are trained on.

    Rates that are stated for batches of another size grow in proportion to the batch (arXiv:1706.02677, section 2.1).
    """
    return rate if tune.rate_batch is None else rate * tune.train_batch / tune.rate_batch


def _training(tune: FineTuningSettings, *, num_epochs: int, rate: float, seed: int) -> TrainSettings:
    found = TrainSettings(
        num_epochs=num_epochs,
        batch_size=tune.train_batch,
        num_parts=tune.accumulate,
        learning_rate=_scaled(rate, tune),
        optimizer=tune.optimizer,
        momentum=tune.momentum,
        weight_decay=tune.weight_decay,
        label_smoothing=tune.label_smoothing,
        update=tune.update,
        precision=cast(Any, tune.train_precision),
        ema=tune.ema,
        score_every=tune.score_every,
        keep=cast(Any, tune.keep),
        seed=seed,
    )
    if tune.warmup_epochs is None or num_epochs == 0:
        return found
    if tune.warmup_epochs > num_epochs:
        raise UsageError(
            f"a warm-up of {tune.warmup_epochs:g} epochs does not fit into a training of {num_epochs}; lower "
            f"--warmup-epochs, or train longer"
        )
    return replace(found, warmup_fraction=tune.warmup_epochs / num_epochs)
