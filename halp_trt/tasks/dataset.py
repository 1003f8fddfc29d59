"""A data set, and its batches.

Batches are made on demand: pixels are read, augmented from a seed, brought to the network's input shape and normalised.
No position is kept, so a training resumes from its step number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from halp_trt.errors import DataError
from halp_trt.tasks import CLASSIFICATION, augment
from halp_trt.tasks.pictures import Pictures
from halp_trt.training.batches import Batch, Indices

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
        augmentation: random change of a training batch of uint8 pictures and their targets.
        task: its task, a name in ``halp_trt.tasks.TASKS``.
        fingerprint: SHA-256 of the pictures' source, empty if unknown.
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

    def train_batch(self, indices: Indices, *, augment_seed: int | None = None) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` of the training split, and their targets as tensors.

        Args:
            indices: numbers of the pictures in the split.
            augment_seed: seed of the random augmentation; None leaves the pictures as they are.

        Raises:
            DataError: a picture cannot be read.
        """
        batch = _collated(*self.train.read(indices))
        if augment_seed is not None:
            batch = self.augmentation(batch, torch.Generator().manual_seed(augment_seed))
        return batch._replace(pictures=self._normalised(batch.pictures))

    def test_batch(self, indices: Indices) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` of the test split, and their targets as tensors.

        Raises:
            DataError: a picture cannot be read.
        """
        batch = _collated(*self.test.read(indices))
        return batch._replace(pictures=self._normalised(batch.pictures))

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels less the mean, over the standard deviation, at the channels and size of ``input_shape``."""
        channels, height, width = self.input_shape
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        pictures = (pixels.float() / 255 - mean) / std
        if pictures.shape[1] != channels:
            pictures = pictures.mean(dim=1, keepdim=True) if channels == 1 else pictures.expand(-1, channels, -1, -1)
        if pictures.shape[2:] != (height, width):
            pictures = torch.nn.functional.interpolate(
                pictures, size=(height, width), mode="bilinear", antialias=True, align_corners=False
            )
        return pictures.contiguous()


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
