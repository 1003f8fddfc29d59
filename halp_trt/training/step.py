"""One step of training, as a function of the network, its lesson and the step's number.

Every step's batch, augmentation, learning rate and random numbers follow from ``(settings.seed, step)`` alone. A
training resumed after step k from its weights and optimiser state is therefore equal bit for bit to an undisturbed one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from halp_trt.errors import NonFiniteError
from halp_trt.training.batches import Batch, Source, step_seed, training_batch
from halp_trt.training.schedule import learning_rate
from halp_trt.training.settings import TrainSettings
from halp_trt.training.updates import get_update
from halp_trt.training.world import ALONE, World

__all__ = ["Lesson", "Loss", "train_step", "uses_bfloat16"]


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
) -> float:
    """Trains on one minibatch: sets the learning rate, computes the loss and its gradients, updates the weights.

    The batch is moved to the network's device. Gradients stay on the parameters until the next step.

    Args:
        module: the network; it is put into training mode.
        optimizer: the optimiser, from ``halp_trt.training.optimizer.make_optimizer``.
        lesson: data, loss and settings.
        step: number of the step, counted from 0 over the whole training.
        total: number of steps of the whole training, for the learning rate.
        after_backward: function called once, between the gradients at the present weights and the update, to read them.

    Returns:
        The loss.

    Raises:
        NonFiniteError: the loss is NaN or infinite; the weights are left as they were.
        ModelError: the task cannot read the network's outputs.
        DataError: an example cannot be read.
    """
    settings = lesson.settings
    batch = training_batch(lesson.data, settings, step, lesson.world)
    device = next(module.parameters()).device
    batch = Batch(batch.pictures.to(device).contiguous(memory_format=torch.channels_last), moved(batch.targets, device))
    rate = learning_rate(step, total, settings)
    for group in optimizer.param_groups:
        group["lr"] = rate
    is_read = after_backward is None

    def gradients() -> float:
        nonlocal is_read
        torch.manual_seed(step_seed(settings, step))
        module.train()
        loss = _loss(module, batch, lesson)
        value = float(lesson.world.mean(loss.detach()))
        if not math.isfinite(value):
            where = f"loss {value} at step {step} of {total} (learning rate {rate:.3g})"
            raise NonFiniteError(f"{where}; lower the learning rate or lengthen its warm-up")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch has no types here
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad = lesson.world.mean(parameter.grad)
        if after_backward is not None and not is_read:
            is_read = True
            after_backward()
        return value

    return get_update(settings.update)(optimizer, gradients)


def _loss(module: nn.Module, batch: Batch, lesson: Lesson) -> torch.Tensor:
    """The loss of a batch, its forward pass in the number format of the settings."""
    device = batch.pictures.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(lesson.settings, device)):
        outputs, taught = module(batch.pictures), None
        if lesson.teacher is not None and lesson.settings.distillation > 0:
            lesson.teacher.eval()
            with torch.no_grad():
                taught = lesson.teacher(batch.pictures)
        return lesson.loss(outputs, batch.targets, lesson.settings, taught)


def uses_bfloat16(settings: TrainSettings, device: torch.device) -> bool:
    """True if steps run under bfloat16 autocast; ``auto`` does so if the hardware computes in it natively."""
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return any(bool(getattr(torch.cpu, f, bool)()) for f in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def moved(value: Any, device: torch.device) -> Any:
    """The value with all tensors in nested tuples, lists and mappings moved to a device; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [moved(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
