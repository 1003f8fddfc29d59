"""Training pictures, as they are, by which a pruned network is repaired and judged without training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from halp_trt.models.repair import Batches, Sample
from halp_trt.tasks.dataset import DataSet

__all__ = ["batches_of", "order_of", "sample_of"]

_BATCH = 32
"""Pictures in a batch, about."""
_CHECK_SHARE = 0.2
"""Share of a sample's pictures that choose among several fits."""
_DRAW = 0x5EED
"""Told apart from the draws of training, whose seeds are a seed and a small number."""


def order_of(data: DataSet, seed: int) -> npt.NDArray[np.int64]:
    """The numbers of all training pictures in an order drawn by a seed."""
    return np.random.default_rng((seed, _DRAW)).permutation(data.num_train).astype(np.int64)


def sample_of(data: DataSet, num_pictures: int, *, seed: int, device: torch.device | str) -> Sample:
    """A sample of so many training pictures, or of all; without augmentation, without labels.

    A single picture makes both parts.
    """
    chosen = order_of(data, seed)[:num_pictures]
    num_check = max(1, round(_CHECK_SHARE * len(chosen)))
    fit = chosen[:-num_check] if len(chosen) > 1 else chosen
    return Sample(fit=batches_of(data, fit, device), check=batches_of(data, chosen[-num_check:], device))


def batches_of(data: DataSet, numbers: npt.NDArray[np.int64], device: torch.device | str) -> Batches:
    """The pictures of these numbers in batches of about the same size, read whenever they are asked for."""
    parts = np.array_split(numbers, max(1, round(len(numbers) / _BATCH)))

    def batches() -> Iterator[torch.Tensor]:
        for part in parts:
            yield data.train_batch(part).pictures.to(device)

    return batches
