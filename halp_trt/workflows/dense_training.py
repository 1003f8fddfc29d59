"""Training a dense network so that a kill costs a minute at most."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from halp_trt.errors import ArtefactError
from halp_trt.store import encode, sha256_bytes
from halp_trt.tasks import lesson_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.training.batches import num_steps
from halp_trt.training.loop import Saving, train
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.passes import passes_of
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.checkpoint import TrainWords, load_checkpoint, read_checkpoint, save_checkpoint
from halp_trt.workflows.giving import give_file, give_weights
from halp_trt.workflows.metrics import TRAIN, Metrics, course_of
from halp_trt.workflows.request import arrays_of

__all__ = ["SAVE_SECONDS", "train_resumably"]

SAVE_SECONDS = 60.0
"""The longest time between two checkpoints; there is one after every epoch in any case."""


def train_resumably(
    module: nn.Module,
    data: DataSet,
    settings: TrainSettings,
    checkpoint: Path,
    *,
    resume: bool,
    progress: Callable[[int, int, float], None],
    save_seconds: float = SAVE_SECONDS,
    world: World = ALONE,
    metrics: Metrics | None = None,
    teacher: nn.Module | None = None,
) -> None:
    """Trains a network in place, with a checkpoint now and then.

    Killed at any point and called again with ``resume`` and the same initial network, it ends with the same bits. The
    caller removes the checkpoint. All processes call this, each with one of its own, of which the first one's counts.

    Args:
        module: the network, with its initial weights, on the device that trains; left in evaluation mode.
        data, settings: training pictures, and settings of the training.
        checkpoint: file of the checkpoint.
        resume: whether to go on from the checkpoint, where there is one; else it is replaced.
        progress: called with (steps done, steps in total, loss).
        save_seconds, world: longest time between two checkpoints, and this process among those that train.
        metrics: file that takes a row for each epoch; None for none.
        teacher: a frozen network on the same device, weighted ``settings.distillation``; None for none.

    Raises:
        ArtefactError: the checkpoint is damaged, or of another training.
        NonFiniteError, UsageError, ModelError, DataError, LostProcessError: as ``halp_trt.training.loop.train``.
    """
    give_weights(world, module)
    optimizer, passes = make_optimizer(module, settings), passes_of(module, settings, world)
    course = course_of(data, settings, phase=TRAIN, metrics=metrics, world=world)
    words = _begun(checkpoint, _fingerprint(module, data, settings, teacher), world, resume=resume)
    if checkpoint.exists():
        load_checkpoint(checkpoint, module, optimizer, passes, course)

    def write(done: int) -> None:
        save_checkpoint(checkpoint, replace(words, num_trained=done), module, optimizer, passes, course)

    def after_step(done: int, loss: float) -> None:
        course.after_step(module, done, loss)
        progress(done, num_steps(data, settings), loss)

    if metrics is not None and world.is_first:
        metrics.cut(TRAIN, words.num_trained - course.is_open)
    course.begin(module)
    train(
        module,
        lesson_of(data, settings, teacher=teacher, world=world),
        optimizer=optimizer,
        start_step=words.num_trained,
        after_step=after_step,
        after_epoch=partial(course.end_epoch, module),
        saving=Saving(write=write, seconds=save_seconds),
        passes=passes,
    )
    course.finish(module)


def _begun(checkpoint: Path, fingerprint: str, world: World, *, resume: bool) -> TrainWords:
    """The words of a training that goes on, whose checkpoint every process has then, or of one that begins.

    Raises:
        ArtefactError: the checkpoint is damaged, or belongs to another training.
    """
    is_begun = world.agree(resume and checkpoint.exists())
    if not is_begun:
        checkpoint.unlink(missing_ok=True)
        return TrainWords(fingerprint=fingerprint, num_trained=0)
    give_file(world, checkpoint)
    words = read_checkpoint(checkpoint, TrainWords)
    if words.fingerprint != fingerprint:
        raise ArtefactError(
            f"{checkpoint} belongs to a training of another network, with other settings or other data; repeat "
            f"them, or start without --resume"
        )
    return words


def _fingerprint(module: nn.Module, data: DataSet, settings: TrainSettings, teacher: nn.Module | None) -> str:
    """A digest of all that must be equal for a training to go on: initial network, data, settings, teacher.

    Precision and parts of batches may change.
    """
    rows = [
        encode(settings.lasting),
        _digests(module),
        [data.name, data.fingerprint, data.num_train, data.task, list(data.input_shape)],
        *([] if teacher is None else [_digests(teacher)]),
    ]
    return sha256_bytes(json.dumps(rows, sort_keys=True).encode())


def _digests(module: nn.Module) -> dict[str, str]:
    """SHA-256 of every tensor of a network, by name."""
    return {name: sha256_bytes(array.tobytes()) for name, array in arrays_of(module).items()}
