"""A data set: what it holds, and batches of it.

Batches are made when asked for: pixels are read, augmented from a seed, brought to the network's input shape and
normalised. Nothing here keeps a position, so a training resumes from its step number alone.
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DataSet:
    """Pictures and what is to be told of them.

    Attributes:
        name: the source string it came from.
        train, test: the pictures of the two splits, with their targets.
        classes: names of the classes, in label order; none where the task has none.
        input_shape: channels, height and width of the batches.
        mean, std: per channel, of pixels in 0..1; a single number serves all channels.
        augmentation: random change of a training batch of uint8 pictures, targets moving with their pictures.
        task: what the targets are for, of ``halp_trt.tasks.TASKS``.
        fingerprint: SHA-256 of where the pictures came from, empty where unknown.
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
        """Training pictures."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Test pictures."""
        return len(self.test)

    @property
    def num_classes(self) -> int:
        """Classes."""
        return len(self.classes)

    def train_batch(self, indices: Indices, *, augment_seed: int | None = None) -> Batch:
        """Normalised float32 pictures ``[N, *input_shape]`` of the training split, and their targets as tensors.

        Args:
            indices: which pictures.
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
    """What was read as a batch; a list with something for each picture, however much, stays one."""
    return Batch(torch.from_numpy(pixels), _tensors(targets))


def _tensors(value: Any) -> Any:
    """Arrays as tensors, wherever they are in nested tuples, lists and mappings; anything else as it is."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {key: _tensors(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_tensors(item) for item in value)
    return value
