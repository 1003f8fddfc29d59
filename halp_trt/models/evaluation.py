"""Accuracy of anything that predicts, and batch-norm statistics for networks whose channels changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from halp_trt.errors import ModelError, NonFiniteError
from halp_trt.models.data import DataSet, batch_indices
from halp_trt.models.training import logits_of

__all__ = ["Accuracy", "Predict", "evaluate", "module_predict", "recalibrate_batchnorm"]

Predict = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """How many pictures were put into their class.

    Attributes:
        num_correct: right answers.
        num_examples: pictures that were shown.
    """

    num_correct: int
    num_examples: int

    @property
    def fraction(self) -> float:
        """Right answers in 0..1."""
        return self.num_correct / self.num_examples


def evaluate(
    predict: Predict, data: DataSet, *, split: Literal["train", "test"] = "test", batch_size: int = 256
) -> Accuracy:
    """Top-1 accuracy over a whole split, every picture counted once.

    All batches have exactly ``batch_size`` pictures, as engines with a fixed batch need: the last one is filled up by
    repeating its last picture, and the answers to the repeats are not counted.

    Args:
        predict: float32 pictures ``[batch_size, C, H, W]`` to logits ``[batch_size, classes]``; a network
            (:func:`module_predict`) or an engine.
        data: the pictures.
        split: which of them.
        batch_size: pictures per call.

    Raises:
        ModelError: the answer is not one row of logits per picture.
        NonFiniteError: an answer holds NaN.
        DataError: a picture cannot be read.
    """
    num, read = (data.num_test, data.test_batch) if split == "test" else (data.num_train, data.train_batch)
    num_correct = num_examples = 0
    for first in range(0, num, batch_size):
        pictures, labels = read(np.arange(first, min(first + batch_size, num)))
        batch = pictures.numpy()
        if len(batch) < batch_size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - len(batch), axis=0)])
        logits = np.asarray(predict(batch))
        if logits.ndim != 2 or len(logits) != batch_size or logits.shape[1] < data.num_classes:
            raise ModelError(f"predictions are {logits.shape}, expected ({batch_size}, at least {data.num_classes})")
        if np.isnan(logits).any():
            raise NonFiniteError(
                f"predictions for pictures {first} and after hold NaN; check the weights of the network"
            )
        num_correct += int((logits[: len(labels)].argmax(axis=1) == labels.numpy()).sum())
        num_examples += len(labels)
    return Accuracy(num_correct=num_correct, num_examples=num_examples)


def module_predict(module: nn.Module) -> Predict:
    """A network as a function of arrays: evaluation mode, float32, no autocast; each call restores its mode."""

    def predict(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        modes = {part: part.training for part in module.modules()}
        module.eval()
        try:
            with torch.inference_mode():
                batch = torch.from_numpy(pictures).to(device).contiguous(memory_format=torch.channels_last)
                logits = logits_of(module(batch)).float().cpu().numpy()
        finally:
            for part, mode in modes.items():
                part.training = mode
        return np.asarray(logits, dtype=np.float32)

    return predict


def recalibrate_batchnorm(
    module: nn.Module, data: DataSet, *, num_batches: int = 16, batch_size: int = 128, seed: int = 0
) -> None:
    """Re-estimates all running means and variances in place as the plain average over training batches.

    Adaptive batch norm of EagleEye (arXiv 2007.02491): after channels were removed, the old statistics describe another
    network. Pictures are not augmented; everything but batch norm runs in evaluation mode.

    Raises:
        DataError: a picture cannot be read.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.track_running_stats]
    if not norms:
        return
    device = next(module.parameters()).device
    modes = {part: part.training for part in module.modules()}
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then keeps the cumulative average
        norm.training = True
    try:
        with torch.no_grad():
            for indices in batch_indices(data.num_train, batch_size, seed=seed, epoch=0)[:num_batches]:
                pictures, _ = data.train_batch(indices)
                module(pictures.to(device).contiguous(memory_format=torch.channels_last))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, mode in modes.items():
            part.training = mode
