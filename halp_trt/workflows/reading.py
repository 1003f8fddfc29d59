"""An engine's raw outputs by the network's own names, and the time that the host takes to read answers from them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from halp_trt.runtimes import Array, Session
from halp_trt.specs import HostStep
from halp_trt.tasks import Reads, task_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import Predict

__all__ = ["predict_of", "reading_step"]

_BATCHES, _REPEATS = 8, 2
"""Batches of test pictures whose outputs are read, and how often each."""


def predict_of(session: Session, output_names: Sequence[str]) -> Predict:
    """An engine with one input as a function from pictures to raw outputs by the network's own names.

    Args:
        session: session of the engine.
        output_names: the network's names of its outputs, in the engine's order.
    """
    (name,) = session.input_shapes

    def predict(pictures: Array) -> dict[str, Array]:
        found = session.run({name: pictures})
        return {own: found[given] for own, given in zip(output_names, session.output_names, strict=True)}

    return predict


def reading_step(session: Session, data: DataSet | None, output_names: Sequence[str]) -> HostStep | None:
    """The step that reads answers from an engine's outputs, timed; None without data, or where the task names none.

    Raises:
        ModelError, NonFiniteError: the outputs do not suit the task.
        DataError: a picture cannot be read.
    """
    if data is None or not data.is_labelled:
        return None
    task = task_of(data)
    if not isinstance(task, Reads):
        return None
    (shape,) = session.input_shapes.values()
    predict, samples = predict_of(session, output_names), []
    pictures, _ = data.test_batch(np.arange(_BATCHES * shape[0]) % data.num_test)
    for first in range(0, len(pictures), shape[0]):
        outputs = predict(np.resize(pictures[first : first + shape[0]].numpy(), shape))
        for _ in range(_REPEATS):
            started = time.perf_counter()
            task.predict(outputs)
            samples.append(1e6 * (time.perf_counter() - started))
    return HostStep(name=task.reads, latency_us=float(np.median(samples)), num_samples=len(samples) // _REPEATS)
