"""The score of a network or an engine on a data set."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from halp_trt.errors import DataError, EmptyBatchError, ModelError, NonFiniteError
from halp_trt.models.reference import named
from halp_trt.specs import Score
from halp_trt.tasks import Outputs, Task, task_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.texts import counted
from halp_trt.training.ahead import made_ahead
from halp_trt.training.batches import Batch

__all__ = ["Predict", "batch_of", "evaluate", "module_predict"]

Predict = Callable[[npt.NDArray[np.float32]], Outputs]
"""A function from float32 pictures ``[N, C, H, W]`` to raw outputs by name."""
_MOST_PICTURES, _MOST_NUMBERS = 256, 2**22
"""Most pictures per call, and most numbers in them: features of a detector's pictures are many times as large."""
_LEAST_READ = 64
"""Fewest pictures that are read at once: a batch of one is too small an order for a worker."""


def evaluate(predict: Predict, data: DataSet, *, batch_size: int | None = None) -> Score:
    """The score by the data set's task over all of its test examples, each counted once.

    All batches have exactly ``batch_size`` pictures, as engines with a fixed batch need: the last one is filled up by
    repeating its last picture, and answers to the repeats are not counted.

    Args:
        predict: function from float32 pictures ``[batch_size, C, H, W]`` to raw outputs by name; a network
            (:func:`module_predict`) or an engine.
        data: the data set.
        batch_size: number of pictures per call; None for :func:`batch_of`.

    Raises:
        ModelError: the outputs do not suit the task, or are not one answer per picture.
        NonFiniteError: an output holds NaN.
        DataError: a picture cannot be read; where bad ones are skipped, none can.
        UsageError: the data set is for an unknown task.
    """
    task = task_of(data)
    return task.metric(_answers(predict, data, task, batch_of(data) if batch_size is None else batch_size))


def batch_of(data: DataSet) -> int:
    """The number of test pictures that a network is given at once: 256 at most, and fewer large ones."""
    return min(_MOST_PICTURES, data.num_test, max(1, _MOST_NUMBERS // math.prod(data.input_shape)))


def _answers(predict: Predict, data: DataSet, task: Task, batch_size: int) -> Iterator[tuple[Any, Any]]:
    """Yields the answers and the targets of the test examples, some batches at a time.

    Raises:
        DataError: an example cannot be read; where bad ones are skipped, none can.
    """
    num_read = 0
    size = batch_size * -(-_LEAST_READ // batch_size)
    firsts = range(0, data.num_test, size)

    def read(first: int) -> Batch | None:
        with contextlib.suppress(EmptyBatchError):
            return data.test_batch(np.arange(first, min(first + size, data.num_test)))
        return None

    with made_ahead(read, firsts, num_workers=data.num_test_workers) as batches:
        for first, batch in zip(firsts, batches, strict=True):
            if batch is None:
                continue
            found = batch.pictures.numpy()
            num_read += len(found)
            starts = range(0, len(found), batch_size)
            answers = [_answered(predict, task, found[i : i + batch_size], batch_size, first + i) for i in starts]
            yield _joined(answers), batch.targets
    if not num_read:
        raise DataError(
            f"none of the {counted(data.num_test, 'test picture')} of {data.name} can be read; replace the files"
        )


def _answered(predict: Predict, task: Task, batch: npt.NDArray[np.float32], batch_size: int, first: int) -> Any:
    """The answers to pictures that are filled up to a batch."""
    num = len(batch)
    if num < batch_size:
        batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - num, axis=0)])
    outputs = predict(batch)
    if any(np.isnan(output).any() for output in outputs.values() if np.issubdtype(output.dtype, np.floating)):
        raise NonFiniteError(f"predictions for pictures {first} and after hold NaN; check the weights of the network")
    answers = task.predict(outputs)
    if len(answers) != batch_size:
        raise ModelError(
            f"{counted(len(answers), 'answer')} to {counted(batch_size, 'picture')}, expected one for each"
        )
    return answers[:num]


def _joined(answers: Sequence[Any]) -> Any:
    """The answers of several batches in a row: one array, or one list."""
    if all(isinstance(some, np.ndarray) for some in answers):
        return np.concatenate(answers)
    return [answer for some in answers for answer in some]


def module_predict(module: nn.Module) -> Predict:
    """A network as a function of arrays: eval mode, float32, no autocast; each call restores the training mode."""

    def predict(pictures: npt.NDArray[np.float32]) -> Mapping[str, npt.NDArray[Any]]:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        modes = {part: part.training for part in module.modules()}
        module.eval()
        try:
            with torch.no_grad():
                batch = torch.from_numpy(pictures).to(device).contiguous(memory_format=torch.channels_last)
                outputs = named(module(batch))
                return {name: np.asarray(tensor.float().cpu().numpy()) for name, tensor in outputs.items()}
        finally:
            for part, mode in modes.items():
                part.training = mode

    return predict
