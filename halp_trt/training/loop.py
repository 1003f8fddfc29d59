"""The training loop: every training of this package runs through it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from halp_trt.training.batches import num_batches, num_steps, prefetched
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.passes import Passes, passes_of
from halp_trt.training.step import Lesson, train_step

__all__ = ["Saving", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """The schedule by which a training's state is saved.

    Attributes:
        write: function that saves it, called with the number of steps done.
        seconds: longest time between two calls within an epoch; every epoch ends with a call.
    """

    write: Callable[[int], None]
    seconds: float = 60.0


def train(
    module: nn.Module,
    lesson: Lesson,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    start_step: int = 0,
    total: int | None = None,
    after_backward: Callable[[], None] | None = None,
    after_step: Callable[[int, float], None] | None = None,
    saving: Saving | None = None,
    passes: Passes | None = None,
) -> torch.optim.Optimizer:
    """Trains ``module`` in place from ``start_step`` to the end and leaves it in evaluation mode.

    The batches are made ahead by workers, where the data have any; they are the same without.

    Args:
        module: the network.
        lesson: data, loss and settings.
        optimizer: the optimiser; None makes a fresh one.
        start_step: 0, or the step to go on from; then the optimiser's state has to come along.
        total: number of steps of the whole training; None for those of the settings' epochs.
        after_backward: as in ``halp_trt.training.step.train_step``.
        after_step: function called after each update with the steps done and the loss, to apply masks or show progress.
        saving: schedule of saving, which follows ``after_step``; the first process alone saves.
        passes: the training's passes, with their loss scale; None makes fresh ones.

    Returns:
        The optimiser, with its state.

    Raises:
        NonFiniteError, UsageError, ModelError, DataError: as ``halp_trt.training.step.train_step``.
    """
    optimizer = optimizer or make_optimizer(module, lesson.settings)
    passes = passes or passes_of(module, lesson.settings, lesson.world)
    total = num_steps(lesson.data, lesson.settings) if total is None else total
    per_epoch = num_batches(lesson.data.num_train, lesson.settings.batch_size)
    saved, steps = time.monotonic(), range(start_step, total)
    is_on_gpu = any(parameter.is_cuda for parameter in module.parameters())
    with prefetched(lesson.data, lesson.settings, steps, lesson.world, pinned=is_on_gpu) as data:
        lesson = replace(lesson, data=data)
        for step in steps:
            loss = train_step(
                module, optimizer, lesson, step=step, total=total, after_backward=after_backward, passes=passes
            )
            done = step + 1
            if after_step is not None:
                after_step(done, loss)
            is_due = done % per_epoch == 0 or (saving is not None and time.monotonic() - saved >= saving.seconds)
            if saving is not None and is_due and lesson.world.is_first:
                saving.write(done)
                saved = time.monotonic()
    module.eval()
    return optimizer
