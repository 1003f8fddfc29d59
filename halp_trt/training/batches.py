"""Batches: their parts, their source, and the examples in the batch of each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Indices", "Source", "batch_indices", "num_batches", "num_steps", "step_seed", "training_batch"]

Indices = Sequence[int] | npt.NDArray[np.int64]
"""Numbers of examples in a split."""


class Batch(NamedTuple):
    """Pictures, one along the first axis for each example, and their targets.

    Attributes:
        pictures: the network's input, a tensor.
        targets: tensors, or nested tuples, lists and mappings of them; the task alone reads them.
    """

    pictures: torch.Tensor
    targets: Any


class Source(Protocol):
    """A source of training batches."""

    @property
    def num_train(self) -> int:
        """Number of training examples."""

    def train_batch(self, indices: Indices, *, augment_seed: int | None = None) -> Batch:
        """Returns these examples, augmented at random if a seed is given: a pure function of its arguments."""


def num_batches(num: int, batch_size: int) -> int:
    """Number of training steps in an epoch: full batches only, or one smaller batch if the examples fill none."""
    return max(1, num // batch_size)


def num_steps(data: Source, settings: TrainSettings) -> int:
    """Number of steps of the whole training."""
    return settings.num_epochs * num_batches(data.num_train, settings.batch_size)


def batch_indices(num: int, batch_size: int, *, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], ...]:
    """The training batches of one epoch, a pure function of its arguments; examples that fill no batch are left out."""
    order = np.random.default_rng((seed, epoch)).permutation(num).astype(np.int64)
    return tuple(order[i * batch_size : (i + 1) * batch_size] for i in range(num_batches(num, batch_size)))


def training_batch(data: Source, settings: TrainSettings, step: int, world: World = ALONE) -> Batch:
    """The batch of a step, or a process's share of it; a pure function of its arguments.

    Raises:
        DataError: an example cannot be read.
    """
    epoch, position = divmod(step, num_batches(data.num_train, settings.batch_size))
    indices = batch_indices(data.num_train, settings.batch_size, seed=settings.seed, epoch=epoch)[position]
    return data.train_batch(world.share(indices), augment_seed=step_seed(settings, step) if settings.augment else None)


def step_seed(settings: TrainSettings, step: int) -> int:
    """The seed of all randomness in a step."""
    return int(np.random.SeedSequence((settings.seed, step)).generate_state(1)[0])
