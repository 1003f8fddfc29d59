"""Batches: their parts, their source, and the examples in the batch of each step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from halp_trt.errors import EmptyBatchError
from halp_trt.texts import counted
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import ALONE, World

if TYPE_CHECKING:
    import torch

__all__ = [
    "Batch",
    "Borrowed",
    "Indices",
    "Source",
    "batch_indices",
    "check_shares",
    "num_batches",
    "num_examples",
    "num_steps",
    "prefetched",
    "seed_of",
    "step_seed",
    "training_batch",
    "training_batches",
]

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


class Borrowed(Batch):
    """An example of another share, in the place of a share of which none can be read; it does not count.

    A process without examples of its own computes with it what the others compute, so that all stay in step.
    """

    __slots__ = ()


class Source(Protocol):
    """A source of training batches."""

    @property
    def num_train(self) -> int:
        """Number of training examples."""

    def num_workers(self, num_processes: int = 1) -> int:
        """Number of processes that make training batches ahead for each of so many on a machine; 0 if none does."""

    def train_batch(
        self,
        indices: Indices,
        *,
        augment_seed: int | None = None,
        epoch_seed: int | None = None,
        part: Indices | None = None,
    ) -> Batch:
        """Returns these examples, augmented at random if a seed is given: a pure function of its arguments.

        Args:
            indices: numbers of the examples.
            augment_seed: seed of what is drawn for the batch as a whole; None leaves the examples as they are.
            epoch_seed: seed of what is drawn for each example by its number; None takes ``augment_seed``.
            part: positions in the batch that are wanted, with the same bits as in the whole batch; None for all.

        Raises:
            EmptyBatchError: no example that is wanted can be read, and bad ones are to be skipped.
        """


def num_batches(num: int, batch_size: int) -> int:
    """Number of training steps in an epoch: full batches only, or one smaller batch if the examples fill none."""
    return max(1, num // batch_size)


def num_examples(data: Source, settings: TrainSettings) -> int:
    """Number of examples in the batch of each step, over all of its parts and all processes."""
    return min(settings.batch_size, data.num_train)


def check_shares(data: Source | None, settings: TrainSettings, world: World = ALONE) -> None:
    """Refuses batches that cannot be shared among all processes and parts.

    Raises:
        UsageError: a batch has fewer examples than there are parts and processes, or the data have.
    """
    if data is not None:
        what, num_parts = counted(data.num_train, "training picture"), settings.num_parts
        world.check_enough(data.num_train, num_parts, what=what, more="take more pictures")
        world.share(range(num_examples(data, settings)), num_parts=num_parts)


def num_steps(data: Source, settings: TrainSettings) -> int:
    """Number of steps of the whole training."""
    return settings.num_epochs * num_batches(data.num_train, settings.batch_size)


def batch_indices(num: int, batch_size: int, *, seed: int, epoch: int) -> tuple[npt.NDArray[np.int64], ...]:
    """The training batches of one epoch, a pure function of its arguments; examples that fill no batch are left out."""
    order = _order(num, seed, epoch)
    return tuple(order[i * batch_size : (i + 1) * batch_size] for i in range(num_batches(num, batch_size)))


@lru_cache(maxsize=2)
def _order(num: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The examples of an epoch in the order in which they are trained on."""
    order = np.random.default_rng((seed, epoch)).permutation(num).astype(np.int64)
    order.flags.writeable = False
    return order


def training_batches(data: Source, settings: TrainSettings, step: int, world: World = ALONE) -> tuple[Batch, ...]:
    """The parts of the batch of a step, or a process's shares of them; one that nobody can read is left out.

    Raises:
        EmptyBatchError: no example of the batch can be read, and bad ones are to be skipped.
        DataError, UsageError: as :func:`training_batch`.
    """
    parts = (_part(data, settings, step, world, part) for part in range(settings.num_parts))
    found = tuple(part for part in parts if part is not None and len(part.pictures))
    return found or (_whole(data, settings, step),)


def training_batch(data: Source, settings: TrainSettings, step: int, world: World = ALONE, *, part: int = 0) -> Batch:
    """A part of the batch of a step, or a process's share of it; a pure function of its arguments.

    Where bad examples are to be skipped and none of the share is left, it is :class:`Borrowed`.

    Raises:
        DataError: an example cannot be read.
        EmptyBatchError: no example of the part can be read, and bad ones are to be skipped.
        UsageError: the batch has fewer examples than there are parts and processes.
    """
    found = _part(data, settings, step, world, part)
    return _whole(data, settings, step) if found is None else found


def _part(data: Source, settings: TrainSettings, step: int, world: World, part: int) -> Batch | None:
    """A part of a batch as :func:`training_batch` gives it; None, in all processes, if none of its examples is left."""
    if isinstance(data, _Prefetched):
        return data.batch_of(settings, step, world, part)
    indices, read = _reader(data, settings, step)
    num_parts = settings.num_parts
    if world.size == num_parts == 1:
        return read(None)
    positions = np.arange(len(indices))
    found = _left(read, world.share(positions, part=part, num_parts=num_parts))
    others = iter(positions[part::num_parts])
    while found is None and (position := next(others, None)) is not None:
        borrowed = _left(read, [int(position)])
        found = None if borrowed is None else Borrowed(*borrowed)
    return found


def _left(read: Callable[[Indices | None], Batch], positions: Indices) -> Batch | None:
    """The examples at some positions that can be read; None if none can, and bad ones are to be skipped."""
    with contextlib.suppress(EmptyBatchError):
        batch = read(positions)
        return batch if len(batch.pictures) else None
    return None


def _whole(data: Source, settings: TrainSettings, step: int) -> Batch:
    """The batch of a step, over all of its parts and all processes.

    Raises:
        EmptyBatchError: no example of it can be read.
    """
    batch = _reader(data, settings, step)[1](None)
    if not len(batch.pictures):
        raise EmptyBatchError(f"no picture of the batch of step {step} can be read; replace the files")
    return batch


def _reader(
    data: Source, settings: TrainSettings, step: int
) -> tuple[npt.NDArray[np.int64], Callable[[Indices | None], Batch]]:
    """The examples of a step, and a function that reads those at some positions among them; None for all."""
    size = settings.batch_size
    epoch, position = divmod(step, num_batches(data.num_train, size))
    indices = _order(data.num_train, settings.seed, epoch)[position * size : (position + 1) * size]

    def read(part: Indices | None) -> Batch:
        return data.train_batch(
            indices,
            augment_seed=step_seed(settings, step) if settings.augment else None,
            epoch_seed=seed_of(settings.seed, epoch),
            part=part,
        )

    return indices, read


def step_seed(settings: TrainSettings, step: int) -> int:
    """The seed of all randomness in a step."""
    return seed_of(settings.seed, step)


def seed_of(seed: int, number: int) -> int:
    """A seed of 32 bits for one of many: a step or an epoch of a training, an example of an epoch."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


# ---- ahead ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def prefetched(
    data: Source, settings: TrainSettings, steps: Sequence[int], world: World = ALONE, *, pinned: bool = False
) -> Iterator[Source]:
    """The source of a training whose batches of these steps are made ahead by workers, where the source has any.

    ``training_batch`` gives the same bits by it as by the source itself, for these steps and for any other.

    Args:
        data: the source.
        settings: settings of the training.
        steps: the steps that are to come, in order.
        world: this process.
        pinned: True if batches are copied to a GPU next.

    Raises:
        DataError: a worker died; also raised out of the context's body.
    """
    num_workers = data.num_workers(world.num_here)
    if num_workers == 0:
        yield data
        return
    from halp_trt.training.ahead import made_ahead

    due = [(step, part) for step in steps for part in range(settings.num_parts)]

    def make(number: int) -> Batch | None:
        step, part = due[number]
        return _part(data, settings, step, world, part)

    with made_ahead(make, range(len(due)), num_workers=num_workers, pinned=pinned) as batches:
        yield _Prefetched(data, settings, world, zip(due, batches, strict=True))


class _Prefetched:
    """A source that hands out the batches of coming steps as they were made ahead."""

    def __init__(
        self, data: Source, settings: TrainSettings, world: World, made: Iterator[tuple[tuple[int, int], Batch | None]]
    ) -> None:
        self._data, self._key, self._made = data, _drawn_by(settings, world), made
        self._given: tuple[tuple[int, int], Batch | None] | None = None

    @property
    def num_train(self) -> int:
        return self._data.num_train

    def num_workers(self, num_processes: int = 1) -> int:
        return 0

    def train_batch(self, indices: Indices, **how: Any) -> Batch:
        return self._data.train_batch(indices, **how)

    def batch_of(self, settings: TrainSettings, step: int, world: World, part: int) -> Batch | None:
        """A part of the batch of a step: the one made ahead, or one made now if another was expected."""
        wanted = (step, part)
        if _drawn_by(settings, world) == self._key:
            if self._given is None or self._given[0] < wanted:
                self._given = next((pair for pair in self._made if pair[0] >= wanted), self._given)
            if self._given is not None and self._given[0] == wanted:
                return self._given[1]
        return _part(self._data, settings, step, world, part)


def _drawn_by(settings: TrainSettings, world: World) -> tuple[object, ...]:
    """All that the examples of a step depend on beside the data and the step's number."""
    return settings.batch_size, settings.num_parts, settings.seed, settings.augment, world.rank, world.size
