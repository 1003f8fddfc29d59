"""The network that teaches a pruned one, where settings name another than the dense network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from halp_trt.errors import HalpError, ModelError, UsageError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.reference import flatten
from halp_trt.models.sources import LoadedModel, is_own_network, load_model
from halp_trt.tasks import task_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.workflows.recipe import fine_tuning
from halp_trt.workflows.settings import NO_DATA, Settings

__all__ = ["check_taught", "teacher_of"]

_TRIED = 2
"""Pictures on which a teacher is tried."""


def check_taught(settings: Settings) -> None:
    """Refuses a teacher from whom nothing would be learnt.

    Raises:
        UsageError: distillation is not asked for, there are no pictures, or the teacher has no trained weights; or
            weights are named without a teacher.
    """
    tune = settings.tune
    if not tune.teacher:
        if tune.teacher_weights:
            raise UsageError(
                f"there are weights {tune.teacher_weights} of a teacher, but no teacher is named; add --teacher, or "
                f"leave --teacher-weights out"
            )
        return
    if tune.distillation == 0:
        raise UsageError(
            f"nothing is learnt from the teacher {tune.teacher} without --distillation, the weight of its outputs in "
            f"the loss; set it to 0.5, say, or leave --teacher out"
        )
    if settings.data.data == NO_DATA:
        raise UsageError(f"the teacher {tune.teacher} has no pictures to teach on; name some with --data")
    if not tune.teacher_weights and not is_own_network(tune.teacher):
        raise UsageError(f"the teacher {tune.teacher} has no trained weights; name them with --teacher-weights")


def teacher_of(settings: Settings, network: LoadedModel, data: DataSet | None) -> nn.Module | None:
    """The teacher that settings name, in evaluation mode; None if the dense network teaches, or nobody.

    Args:
        settings: all settings.
        network: the dense network, which it must have the outputs of.
        data: the pictures to learn on.

    Raises:
        ModelError: it cannot be loaded, or its outputs do not suit the task.
        UsageError: a run's file names its code, and the user does not.
        ArtefactError, NonFiniteError: its weights are missing, damaged or not finite.
        DataError: a picture cannot be read.
    """
    source = settings.tune.teacher
    if not source or data is None:
        return None
    pictures, targets = data.train_batch(np.arange(min(_TRIED, data.num_train)))
    how = fine_tuning(settings.tune, seed=settings.random.seed)
    try:
        with torch.no_grad():
            outputs = network.module(pictures)
            teacher = _loaded(settings, network, None if is_own_network(source) else _num_classes(outputs, data))
            task_of(data).loss(outputs, targets, how, teacher(pictures))
    except HalpError:
        raise
    except Exception as error:  # networks and tasks of users fail in many ways
        raise_if_stopped(error)
        raise ModelError(
            f"the teacher {source} does not suit the network's pictures or its task ({type(error).__name__}: {error}); "
            f"name another with --teacher"
        ) from error
    return teacher


def _loaded(settings: Settings, network: LoadedModel, num_classes: int | None) -> nn.Module:
    tune = settings.tune
    weights = Path(tune.teacher_weights) if tune.teacher_weights else None
    try:
        return load_model(
            tune.teacher,
            weights=weights,
            input_shape=network.input_shape,
            num_classes=num_classes,
            seed=settings.random.seed,
        ).module
    except ModelError as error:
        raise ModelError(f"the teacher {tune.teacher} cannot be used: {error}") from error


def _num_classes(outputs: object, data: DataSet) -> int | None:
    """The width of a classifier's first output; None for a network of another kind."""
    first = flatten(outputs)[:1]
    return int(first[0].shape[1]) if data.num_classes and first and first[0].ndim == 2 else None
