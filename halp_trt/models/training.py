"""Training as functions over (module, data, settings): no trainer, no hidden state.

Every step's batch, augmentation, learning rate and random numbers follow from ``(settings.seed, step)`` alone, so a
training that stops after step k and starts again from its weights and optimiser state goes on bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from halp_trt.errors import ModelError, NonFiniteError, UsageError
from halp_trt.models.data import DataSet, batch_indices, num_batches

__all__ = [
    "TrainSettings",
    "learning_rate",
    "logits_of",
    "make_optimizer",
    "num_steps",
    "train_epochs",
    "train_step",
    "training_batch",
    "uses_bfloat16",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train.

    Attributes:
        num_epochs: passes over the training pictures.
        batch_size: pictures of a step.
        learning_rate: its peak.
        warmup_fraction: share of the steps in which the learning rate climbs linearly to its peak.
        schedule: ``cosine`` falls to zero after the warm-up, ``constant`` stays at the peak.
        momentum: of Nesterov's SGD.
        weight_decay: on all parameters but one-dimensional ones (batch norm, biases).
        label_smoothing: probability mass spread over all classes.
        precision: ``bf16`` (autocast), ``fp32``, or ``auto``: bfloat16 where the processor computes in it natively.
        augment: whether training pictures are augmented.
        distillation: weight of a teacher's soft labels, where a teacher is given (arXiv 1503.02531).
        temperature: of the soft labels.
        seed: of all randomness.
    """

    num_epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    warmup_fraction: float = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    augment: bool = True
    distillation: float = 0.0
    temperature: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = (self.warmup_fraction, self.momentum, self.label_smoothing, self.distillation)
        if self.num_epochs < 0 or self.batch_size < 1 or self.seed < 0:
            raise UsageError(f"training needs epochs and seed of at least 0 and batches of at least 1, got {self}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0 and self.temperature > 0):
            raise UsageError(f"learning rate and temperature must be finite and above 0, got {self}")
        if not all(0 <= f <= 1 for f in fractions) or self.momentum == 1 or self.weight_decay < 0:
            raise UsageError(
                f"warm-up, momentum, smoothing and distillation lie in 0..1, weight decay is not negative: {self}"
            )


def num_steps(data: DataSet, settings: TrainSettings) -> int:
    """Steps of the whole training."""
    return settings.num_epochs * num_batches(data.num_train, settings.batch_size)


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """The learning rate of a step: linear warm-up to the peak, then half a cosine to zero or a constant."""
    num_warmup = round(settings.warmup_fraction * total)
    if step < num_warmup:
        return settings.learning_rate * (step + 1) / num_warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - num_warmup) / max(1, total - num_warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.SGD:
    """Nesterov SGD; one-dimensional parameters (batch norm, biases) are not decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError("the network has no parameter that can be trained; set requires_grad on some")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def uses_bfloat16(settings: TrainSettings, device: torch.device) -> bool:
    """Whether steps run under bfloat16 autocast; ``auto`` does so where the hardware computes in it."""
    if settings.precision != "auto":
        return settings.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return any(bool(getattr(torch.cpu, f, bool)()) for f in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def training_batch(data: DataSet, settings: TrainSettings, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch of a step: a pure function of the data, the settings and the step.

    Raises:
        DataError: a picture cannot be read.
    """
    epoch, position = divmod(step, num_batches(data.num_train, settings.batch_size))
    indices = batch_indices(data.num_train, settings.batch_size, seed=settings.seed, epoch=epoch)[position]
    return data.train_batch(indices, augment_seed=_step_seed(settings, step) if settings.augment else None)


def train_step(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: DataSet,
    settings: TrainSettings,
    *,
    step: int,
    total: int,
    teacher: nn.Module | None = None,
    after_backward: Callable[[], None] | None = None,
) -> float:
    """One minibatch: sets the learning rate, computes the loss and its gradients, updates the weights.

    Gradients stay on the parameters until the next step.

    Args:
        module: the network; it is put into training mode.
        optimizer: from :func:`make_optimizer`.
        data: where the batch comes from.
        settings: how to train.
        step: which step, counted from 0 over the whole training.
        total: steps of the whole training, for the learning rate.
        teacher: a frozen network whose soft labels are learnt too, weighted ``settings.distillation``.
        after_backward: called between the gradients and the update, to read the gradients.

    Returns:
        The loss.

    Raises:
        NonFiniteError: the loss is NaN or infinite; the weights are left as they were.
        ModelError: the network does not give one logit per class.
        DataError: a picture cannot be read.
    """
    pictures, labels = training_batch(data, settings, step)
    device = next(module.parameters()).device
    pictures = pictures.to(device).contiguous(memory_format=torch.channels_last)
    labels = labels.to(device)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, total, settings)
    torch.manual_seed(_step_seed(settings, step))
    module.train()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bfloat16(settings, device)):
        logits = logits_of(module(pictures)).float()
        _check_logits(logits, data)
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        if teacher is not None and settings.distillation > 0:
            soft = _distillation_loss(logits, teacher, pictures, settings.temperature)
            loss = (1 - settings.distillation) * loss + settings.distillation * soft
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonFiniteError(
            f"loss {value} at step {step} of {total} (learning rate {learning_rate(step, total, settings):.3g}); "
            f"lower the learning rate or lengthen its warm-up"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if after_backward is not None:
        after_backward()
    optimizer.step()
    return value


def train_epochs(
    module: nn.Module,
    data: DataSet,
    settings: TrainSettings,
    *,
    start_step: int = 0,
    optimizer: torch.optim.Optimizer | None = None,
    teacher: nn.Module | None = None,
    after_step: Callable[[int], None] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> torch.optim.Optimizer:
    """Trains ``module`` in place from ``start_step`` to the end and leaves it in evaluation mode.

    Args:
        module: the network.
        data: training pictures.
        settings: how to train.
        start_step: 0, or the step to go on from; then hand in the optimiser with its state as well.
        optimizer: None makes a fresh one.
        teacher: see :func:`train_step`.
        after_step: called with the step's number after each update, to apply masks or save a checkpoint.
        progress: called with (steps done, steps in total, loss).

    Returns:
        The optimiser, with its state.

    Raises:
        NonFiniteError, ModelError, DataError: as :func:`train_step`.
    """
    optimizer = optimizer or make_optimizer(module, settings)
    total = num_steps(data, settings)
    for step in range(start_step, total):
        loss = train_step(module, optimizer, data, settings, step=step, total=total, teacher=teacher)
        if after_step is not None:
            after_step(step)
        if progress is not None:
            progress(step + 1, total, loss)
    module.eval()
    return optimizer


def logits_of(output: object) -> torch.Tensor:
    """The class logits among a network's outputs: the tensor itself, or the first of several.

    Raises:
        ModelError: there is no tensor.
    """
    first = output
    while isinstance(first, (tuple, list, dict)) and first:
        first = next(iter(first.values())) if isinstance(first, dict) else first[0]
    if not isinstance(first, torch.Tensor):
        raise ModelError(
            f"the network returned {type(output).__name__}; expected logits [N, classes] as its first output"
        )
    return first


def _check_logits(logits: torch.Tensor, data: DataSet) -> None:
    if logits.ndim != 2:
        raise ModelError(
            f"the network's first output is {tuple(logits.shape)}, expected one row of logits per picture: only "
            f"classifiers are trained here; use data none"
        )
    if logits.shape[1] < data.num_classes:
        raise ModelError(
            f"the network's output is {tuple(logits.shape)}, but {data.name!r} has {data.num_classes} classes; set the "
            f"number of classes of the model"
        )


def _distillation_loss(
    logits: torch.Tensor, teacher: nn.Module, pictures: torch.Tensor, temperature: float
) -> torch.Tensor:
    """``T² KL(teacher || student)`` of the softened predictions (arXiv 1503.02531, section 2.1)."""
    teacher.eval()
    with torch.no_grad():
        target = F.log_softmax(logits_of(teacher(pictures)).float() / temperature, dim=1)
    student = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2


def _step_seed(settings: TrainSettings, step: int) -> int:
    return int(np.random.SeedSequence((settings.seed, step)).generate_state(1)[0])
