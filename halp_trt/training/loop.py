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
        seconds: longest time between two calls within an epoch; every epoch ends with a call, before its network is
            scored, and with another one after that.
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
    after_epoch: Callable[[int], bool] | None = None,
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
        after_epoch: function called with the steps done once an epoch's last step is saved, to score the network, and
            before the first step where the training goes on from there; False if there was nothing to do.
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
    steps = range(start_step, total)
    is_on_gpu = any(parameter.is_cuda for parameter in module.parameters())
    ends = _Ends(lesson, saving, after_epoch)
    lesson.world.meet()
    ends.resume(start_step)
    with prefetched(lesson.data, lesson.settings, steps, lesson.world, pinned=is_on_gpu) as data:
        lesson = replace(lesson, data=data)
        for step in steps:
            with _unfinished(module, lesson.world, saving, step) as unfinished:
                loss = train_step(
                    module, optimizer, lesson, step=step, total=total, after_backward=after_backward, passes=passes
                )
                if after_step is not None:
                    after_step(step + 1, loss)
                unfinished.num_done = step + 1
            ends.after(step + 1)
    module.eval()
    return optimizer


class _Ends:
    """The saving of a training now and then, and the ends of its epochs."""

    def __init__(self, lesson: Lesson, saving: Saving | None, after_epoch: Callable[[int], bool] | None) -> None:
        self._world, self._saving, self._after_epoch = lesson.world, saving, after_epoch
        self._per_epoch = num_batches(lesson.data.num_train, lesson.settings.batch_size)
        self._saved = time.monotonic()

    def resume(self, done: int) -> None:
        """Ends the epoch that was left open when the training was broken off."""
        if done and done % self._per_epoch == 0:
            self._end(done)

    def after(self, done: int) -> None:
        """Saves the state where that is due, and ends the epoch where its steps are done."""
        is_end = done % self._per_epoch == 0
        if is_end or (self._saving is not None and time.monotonic() - self._saved >= self._saving.seconds):
            self._save(done)
        if is_end:
            self._end(done)

    def _end(self, done: int) -> None:
        """Calls what is to be done after an epoch, for which all processes wait without limit, and saves again.

        A request to end breaks it off: the epoch's steps are saved already.
        """
        if self._after_epoch is not None and self._after_epoch(done):
            self._save(done)
            self._world.meet()

    def _save(self, done: int) -> None:
        if self._saving is not None and self._world.is_first:
            with self._world.guarded():
                self._saving.write(done)
            self._saved = time.monotonic()


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
