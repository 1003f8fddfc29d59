"""One step of training, as a function of the network, its lesson and the step's number.

Every step's batch, augmentation, learning rate and random numbers follow from ``(settings.seed, step)`` alone. A
training resumed after step k from its weights and optimiser state is therefore equal bit for bit to an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from halp_trt.errors import NonFiniteError, UsageError
from halp_trt.training.batches import Batch, Borrowed, Source, num_examples, seed_of, step_seed, training_batches
from halp_trt.training.passes import Passes, passes_of
from halp_trt.training.schedule import learning_rate
from halp_trt.training.settings import TrainSettings
from halp_trt.training.updates import get_update
from halp_trt.training.world import ALONE, World

__all__ = ["Lesson", "Loss", "train_step"]


class Loss(Protocol):
    """The function that training minimises: a task's ``loss``."""

    def __call__(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """Returns the loss of a batch, a scalar.

        Args:
            outputs: outputs of the network.
            targets: targets of the batch, on the network's device.
            settings: settings of the training.
            taught: a teacher's outputs for the same pictures; None without a teacher.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Data, loss and settings of a training.

    Attributes:
        data: source of batches.
        settings: settings of the training.
        loss: function to minimise.
        teacher: a frozen network whose outputs are learnt too, weighted ``settings.distillation``; None for none.
        world: this process among those that share the work.
    """

    data: Source
    settings: TrainSettings
    loss: Loss
    teacher: nn.Module | None = None
    world: World = ALONE


def train_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    lesson: Lesson,
    *,
    step: int,
    total: int,
    after_backward: Callable[[], None] | None = None,
    passes: Passes | None = None,
) -> float:
    """Trains on one minibatch: sets the learning rate, computes the loss and its gradients, updates the weights.

    The batch is split into ``settings.num_parts`` parts, whose gradients add up to those of the whole; each is moved to
    the network's device when it is due. Several processes each take a share of every part. Gradients stay on the
    parameters until the next step. In fp16 a pass whose gradients overflow is computed again with half the loss scale,
    and a step whose loss is not finite is skipped.

    Args:
        module: the network; it is put into training mode.
        optimizer: the optimiser, from ``halp_trt.training.optimizer.make_optimizer``.
        lesson: data, loss and settings.
        step: number of the step, counted from 0 over the whole training.
        total: number of steps of the whole training, for the learning rate.
        after_backward: function called once, between the gradients at the present weights and the update, to read them;
            not called in a skipped step.
        passes: the training's passes, with their loss scale; None makes fresh ones.

    Returns:
        The loss; not finite if the step was skipped.

    Raises:
        NonFiniteError: the loss is NaN or infinite, or too many passes in a row overflowed in fp16; the weights are
            left as they were.
        UsageError: the network's device does not compute in the precision of the settings, or its memory is too small.
        ModelError: the task cannot read the network's outputs, or the network cannot be compiled.
        DataError: an example cannot be read.
    """
    rate = learning_rate(step, total, lesson.settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    work = _Work(
        module=module,
        optimizer=optimizer,
        lesson=lesson,
        passes=passes or passes_of(module, lesson.settings, lesson.world),
        batches=training_batches(lesson.data, lesson.settings, step, lesson.world),
        num_examples=num_examples(lesson.data, lesson.settings),
        seed=_seed(lesson, step),
        place=f"step {step} of {total} (learning rate {rate:.3g})",
    )
    return work.update(after_backward)


def _seed(lesson: Lesson, step: int) -> int:
    """The seed of a step's random numbers, such as dropout's: of its own in every process."""
    seed = step_seed(lesson.settings, step)
    return seed if lesson.world.is_first else seed_of(seed, lesson.world.rank)


class _Skipped(Exception):
    """The end of a step that changed nothing."""

    def __init__(self, loss: float) -> None:
        super().__init__(loss)
        self.loss = loss


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    """The work of one step: its minibatch, and all that computes gradients from it.

    Attributes:
        module, optimizer, lesson, passes: as in :func:`train_step`.
        batches: the parts of the minibatch, or this process's shares of them.
        num_examples: number of examples in the whole minibatch, if all can be read.
        seed: seed of the step's random numbers.
        place: the step in words, for errors.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    lesson: Lesson
    passes: Passes
    batches: Sequence[Batch]
    num_examples: int
    seed: int
    place: str

    def update(self, after_backward: Callable[[], None] | None) -> float:
        """Updates the weights by the rule of the settings, and returns the loss; raises as :func:`train_step`."""
        is_first = True

        def gradients() -> float:
            nonlocal is_first
            loss = self.gradients(may_skip=is_first)
            if after_backward is not None and is_first:
                after_backward()
            is_first = False
            return loss

        try:
            return get_update(self.lesson.settings.update)(self.optimizer, gradients)
        except _Skipped as skipped:
            return skipped.loss
        except torch.OutOfMemoryError as error:
            device, most = next(self.module.parameters()).device, max(len(batch.pictures) for batch in self.batches)
            raise UsageError(
                f"the memory of {device} does not hold a training step of {most} pictures; split batches into parts "
                f"(--accumulate), or make them smaller (--train-batch)"
            ) from error

    def gradients(self, *, may_skip: bool) -> float:
        """Leaves the gradients at the present weights on the parameters, and returns the loss.

        Raises:
            _Skipped: the loss is not finite in fp16, and the step may be skipped; it changed nothing.
            NonFiniteError, ModelError: as :func:`train_step`.
        """
        is_scaled = self.passes.is_scaled
        before = [buffer.detach().clone() for buffer in self.module.buffers()] if is_scaled else []
        while True:
            torch.manual_seed(self.seed)
            self.module.train()
            self.passes.clear(self.module, self.optimizer)
            value = self._accumulated()
            is_finite = math.isfinite(value)
            if not is_finite and not (is_scaled and may_skip):
                raise NonFiniteError(f"loss {value} at {self.place}; lower the learning rate or lengthen its warm-up")
            if is_finite and self.passes.settle(self.module, self.optimizer):
                return value
            with torch.no_grad():
                for buffer, kept in zip(self.module.buffers(), before, strict=False):
                    buffer.copy_(kept)  # statistics of a pass that does not count
            if not is_finite:
                self.passes.skip()
                raise _Skipped(value)

    def _accumulated(self) -> float:
        """Adds up the gradients of all parts, and returns the loss; stops at the first that is not finite.

        Both are means over the examples that could be read, in whatever process. Once it returns, the gradients of all
        processes have arrived.
        """
        total, num_read, world = 0.0, 0.0, self.lesson.world
        counts = [0 if isinstance(batch, Borrowed) else len(batch.pictures) for batch in self.batches]
        num_expected = sum(counts) if world.size == 1 else self.num_examples
        for index, (batch, count) in enumerate(zip(self.batches, counts, strict=True)):
            loss = self._loss(batch, is_last=index + 1 == len(self.batches))
            weight = count * world.size / num_expected
            if weight != 1:
                loss = loss * weight
            value, mean_count = world.mean(_pair(loss, count)).tolist()
            total, num_read = total + value, num_read + mean_count * world.size
            if not math.isfinite(total):
                break
            self.passes.backward(loss, counts=count > 0)
        world.settle()
        if math.isfinite(total) and round(num_read) != num_expected:
            total *= self._rescaled(num_expected / round(num_read))
        return total

    def _rescaled(self, factor: float) -> float:
        """Multiplies the gradients by a factor, and returns it."""
        for parameter in self.module.parameters():
            if parameter.grad is not None:
                parameter.grad *= factor
        return factor

    def _loss(self, batch: Batch, *, is_last: bool) -> torch.Tensor:
        """The loss of a part, its forward pass in the number format of the passes."""
        lesson, device = self.lesson, next(self.module.parameters()).device
        pictures, targets = moved(batch.pictures, device), moved(batch.targets, device)
        pictures = pictures.contiguous(memory_format=torch.channels_last)

        def compute() -> torch.Tensor:
            outputs, taught = self.passes.forward(self.module, pictures), None
            if lesson.teacher is not None and lesson.settings.distillation > 0:
                lesson.teacher.eval()
                with torch.no_grad():
                    taught = lesson.teacher(pictures)
            return lesson.loss(outputs, targets, lesson.settings, taught)

        return self.passes.loss(self.module, compute, is_last=is_last, counts=not isinstance(batch, Borrowed))


def _pair(loss: torch.Tensor, count: int) -> torch.Tensor:
    """A loss and a number of examples as one tensor, which travels at once."""
    wide = loss.detach().to(torch.promote_types(loss.dtype, torch.float32)).reshape(())
    return torch.stack([wide, torch.full_like(wide, count)])


def moved(value: Any, device: torch.device) -> Any:
    """The value with all tensors in nested tuples, lists and mappings moved to a device; anything else as it is.

    From pinned memory they are copied while the processor goes on.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=value.device.type == "cpu" and value.is_pinned())
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
