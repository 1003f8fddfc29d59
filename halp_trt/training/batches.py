"""Batches: what one is, where they come from, and which examples are in the batch of a step."""

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


class Batch(NamedTuple):
    """Pictures, one along the first axis for each example, and what a network should answer to them.

    Attributes:
        pictures: a tensor; what a network is called with.
        targets: tensors, or nested tuples, lists and mappings of them; the task alone reads them.
    """

    pictures: torch.Tensor
    targets: Any


class Source(Protocol):
    """Where training batches come from."""

    @property
    def num_train(self) -> int:
        """How many examples there are."""

    def train_batch(self, indices: Indices, *, augment_seed: int | None = None) -> Batch:
        """These examples, augmented at random where a seed is given: a pure function of its arguments."""


def num_batches(num: int, batch_size: int) -> int:
    """Training steps of one epoch: full batches only, or one smaller batch where there are too few examples."""
    return max(1, num // batch_size)


def num_steps(data: Source, settings: TrainSettings) -> int:
    """Steps of the whole training."""
    return settings.num_epochs * num_batches(data.num_train, settings.batch_size)


def batch_indices(num: int, batch_size: int, *, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], ...]:
    """The training batches of one epoch: a pure function of its arguments; the rest that fills no batch is left out."""
    order = np.random.default_rng((seed, epoch)).permutation(num).astype(np.int64)
    return tuple(order[i * batch_size : (i + 1) * batch_size] for i in range(num_batches(num, batch_size)))


def training_batch(data: Source, settings: TrainSettings, step: int, world: World = ALONE) -> Batch:
    """The batch of a step, or a process's share of it: a pure function of its arguments.

    Raises:
        DataError: an example cannot be read.
    """
    epoch, position = divmod(step, num_batches(data.num_train, settings.batch_size))
    indices = batch_indices(data.num_train, settings.batch_size, seed=settings.seed, epoch=epoch)[position]
    return data.train_batch(world.share(indices), augment_seed=step_seed(settings, step) if settings.augment else None)


def step_seed(settings: TrainSettings, step: int) -> int:
    """The seed of everything random in a step."""
    return int(np.random.SeedSequence((settings.seed, step)).generate_state(1)[0])
