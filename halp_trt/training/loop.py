"""The training loop: every training of this package runs through it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from halp_trt.errors import LostProcessError
from halp_trt.training.batches import num_batches, num_steps, prefetched
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.passes import Passes, passes_of
from halp_trt.training.step import Lesson, train_step
from halp_trt.training.world import World

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
        LostProcessError: another process of the world is gone; the steps before are saved.
    """
    optimizer = optimizer or make_optimizer(module, lesson.settings)
    passes = passes or passes_of(module, lesson.settings, lesson.world)
    total = num_steps(lesson.data, lesson.settings) if total is None else total
    per_epoch = num_batches(lesson.data.num_train, lesson.settings.batch_size)
    saved, steps = time.monotonic(), range(start_step, total)
    is_on_gpu = any(parameter.is_cuda for parameter in module.parameters())
    lesson.world.meet()
    with prefetched(lesson.data, lesson.settings, steps, lesson.world, pinned=is_on_gpu) as data:
        lesson = replace(lesson, data=data)
        for step in steps:
            with _unfinished(module, lesson.world, saving, step) as unfinished:
                loss = train_step(
                    module, optimizer, lesson, step=step, total=total, after_backward=after_backward, passes=passes
                )
                done = step + 1
                if after_step is not None:
                    after_step(done, loss)
                unfinished.num_done = done
            is_due = done % per_epoch == 0 or (saving is not None and time.monotonic() - saved >= saving.seconds)
            if saving is not None and is_due and lesson.world.is_first:
                saving.write(done)
                saved = time.monotonic()
    module.eval()
    return optimizer


@dataclass(slots=True, kw_only=True)
class _Unfinished:
    """A step under way: how many are done, with it if it is."""

    num_done: int


@contextlib.contextmanager
def _unfinished(module: nn.Module, world: World, saving: Saving | None, step: int) -> Iterator[_Unfinished]:
    """The context of a step; where another process is gone, all that is done is saved before the error goes on.

    Raises:
        LostProcessError: another process is gone, or this one was told to end.
    """
    unfinished = _Unfinished(num_done=step)
    if world.link is None:
        yield unfinished
        return
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    versions = [parameter._version for parameter in module.parameters()]
    try:
        with world.guarded():
            yield unfinished
    except LostProcessError:
        is_whole = unfinished.num_done > step
        if not is_whole and versions == [parameter._version for parameter in module.parameters()]:
            with torch.no_grad():
                for buffer, kept in buffers:
                    buffer.copy_(kept)  # statistics of the step that broke off
            is_whole = True
        if is_whole and saving is not None and world.is_first:
            saving.write(unfinished.num_done)
        raise
