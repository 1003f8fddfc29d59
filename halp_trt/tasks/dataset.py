"""A data set, and its batches.

Batches are made on demand: pixels are read, augmented from a seed, brought to the network's input shape and normalised.
No position is kept, so a training resumes from its step number alone. Pictures in memory are augmented as a batch, by
the seed of the step; files that are read on demand one by one, each by a seed of its own. In either way a picture has
the same bits whatever the number of workers, and of processes that share the batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from halp_trt.errors import DataError
from halp_trt.tasks import CLASSIFICATION, augment
from halp_trt.tasks.pictures import DrawnPictures, FilePictures, Pictures
from halp_trt.training.batches import Batch, Indices, seed_of

__all__ = ["DataSet", "InputShape"]

InputShape = tuple[int, int, int]
"""Channels, height and width."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Pictures with their targets, in two splits.

    Attributes:
        name: its source string.
        train, test: pictures of the two splits, with their targets.
        classes: names of the classes, in label order; empty if the task has no classes.
        input_shape: channels, height and width of the batches.
        mean, std: mean and standard deviation per channel, of pixels in 0..1; a single number serves all channels.
            Inputs that are floating-point numbers are left as they are.
        augmentation: random change of a training batch of uint8 pictures and their targets; pictures that change one
            by one (``DrawnPictures``) are left alone by it.
        task: its task, a name in ``halp_trt.tasks.TASKS``.
        fingerprint: SHA-256 of the pictures' source and their preparation, empty if unknown.
        is_labelled: False if there are no targets: for calibration, and for learning from a teacher.
        workers: number of processes that make batches ahead; None for all but one of the processor's cores if
            pictures are read from files on demand, else 0.
        head: the meaning of the raw outputs of the network that learns from these data, as it says itself; None if it
            says nothing, as classifiers do.
    """

    name: str
    train: Pictures
    test: Pictures
    classes: tuple[str, ...] = ()
    input_shape: InputShape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Callable[[Batch, torch.Generator], Batch] = augment.keep
    task: str = CLASSIFICATION
    fingerprint: str = ""
    is_labelled: bool = True
    workers: int | None = None
    head: Any = None

    def __post_init__(self) -> None:
        if len(self.train) == 0 or len(self.test) == 0:
            raise DataError(
                f"data set {self.name!r} needs training and test pictures, got {len(self.train)} and {len(self.test)}"
            )

    @property
    def num_train(self) -> int:
        """Number of training pictures."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Number of test pictures."""
        return len(self.test)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def reads_files(self) -> bool:
        """True if training pictures are decoded from files on demand."""
        return isinstance(self.train, FilePictures)

    def num_workers(self, num_processes: int = 1) -> int:
        """Number of workers that make training batches ahead, for each of so many processes on this machine."""
        return _num_workers(self.train, self.workers, num_processes)

    @property
    def num_test_workers(self) -> int:
        """Number of workers that make test batches ahead."""
        return _num_workers(self.test, self.workers, 1)

    def train_batch(
        self,
        indices: Indices,
        *,
        augment_seed: int | None = None,
        epoch_seed: int | None = None,
        part: Indices | None = None,
    ) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` of the training split, and their targets as tensors.

        Args:
            indices: numbers of the pictures in the split.
            augment_seed: seed of the random augmentation; None leaves the pictures as they are.
            epoch_seed: seed for pictures that change one by one; None takes ``augment_seed``.
            part: positions in the batch that are wanted, with the same bits as in the whole batch; None for all.

        Raises:
            DataError: a picture cannot be read.
        """
        whole = np.asarray(indices, dtype=np.int64)
        wanted = whole if part is None else whole[np.asarray(part)]
        if augment_seed is None:
            batch = _collated(*self.train.read(wanted))
        elif isinstance(self.train, DrawnPictures):
            seed = augment_seed if epoch_seed is None else epoch_seed
            batch = _collated(*self.train.draw(wanted, [seed_of(seed, int(number)) for number in wanted]))
        else:
            batch = self.augmentation(_collated(*self.train.read(whole)), torch.Generator().manual_seed(augment_seed))
            batch = batch if part is None else _taken(batch, np.asarray(part))
        return batch._replace(pictures=self._normalised(batch.pictures))

    def test_batch(self, indices: Indices) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` of the test split, and their targets as tensors.

        Raises:
            DataError: a picture cannot be read.
        """
        batch = _collated(*self.test.read(indices))
        return batch._replace(pictures=self._normalised(batch.pictures))

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels less the mean, over the standard deviation, at the channels and size of ``input_shape``.

        Floating-point numbers are the network's input already.
        """
        channels, height, width = self.input_shape
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        pictures = pixels.float() if pixels.is_floating_point() else (pixels.float() / 255 - mean) / std
        if pictures.shape[1] != channels:
            pictures = pictures.mean(dim=1, keepdim=True) if channels == 1 else pictures.expand(-1, channels, -1, -1)
        if pictures.shape[2:] != (height, width):
            pictures = torch.nn.functional.interpolate(
                pictures, size=(height, width), mode="bilinear", antialias=True, align_corners=False
            )
        return pictures.contiguous()


def _num_workers(pictures: Pictures, asked: int | None, num_processes: int) -> int:
    """The number of workers that is asked for; if it is left open, all cores but one for files, none for memory."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, cores // num_processes - 1) if isinstance(pictures, FilePictures) else 0


def _taken(batch: Batch, part: npt.NDArray[np.int64]) -> Batch:
    """These examples of a batch."""
    num = len(batch.pictures)

    def take(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value[torch.from_numpy(part)]
        if isinstance(value, Mapping):
            return {key: take(item) for key, item in value.items()}
        if isinstance(value, list) and len(value) == num:
            return [value[position] for position in part]
        return type(value)(take(item) for item in value) if isinstance(value, tuple | list) else value

    return Batch(take(batch.pictures), take(batch.targets))


def _collated(pixels: np.ndarray[Any, Any], targets: Any) -> Batch:
    """A batch of pixels and targets as tensors; a list of targets, one entry for each picture, stays a list."""
    return Batch(torch.from_numpy(pixels), _tensors(targets))


def _tensors(value: Any) -> Any:
    """The value with all arrays in nested tuples, lists and mappings as tensors; anything else as it is."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_tensors(item) for item in value)
    return value
