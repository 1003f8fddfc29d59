"""Times a candidate's engine against the dense one while a network is still being pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

import onnx

from halp_trt.runtimes import Array, Runtime, Session
from halp_trt.specs import Target
from halp_trt.timing import MOST_ROUNDS, pin_to_one_core, time_interleaved
from halp_trt.workflows.precision import Prepare, as_is

__all__ = ["Stopwatch", "make_stopwatch"]

Stopwatch = Callable[[onnx.ModelProto], tuple[float, float]]
"""Gives the latency of the dense engine and of the model's, microseconds, timed in turns."""

_SECONDS = 6.0


def make_stopwatch(
    dense: onnx.ModelProto,
    runtime: Runtime,
    target: Target,
    inputs: Mapping[str, Array],
    prepare: Prepare = as_is,
) -> Stopwatch:
    """A stopwatch that keeps the dense engine loaded.

    Args:
        dense: the dense network, folded.
        runtime: builds and runs both.
        target: of both.
        inputs: what both are run on.
        prepare: gives both the types of the target.

    Raises:
        RuntimeUnavailableError: the runtime cannot run engines on this machine.
    """

    def load(model: onnx.ModelProto) -> Session:
        return runtime.load(runtime.build(prepare(model).model.SerializeToString(), target), target)

    run_dense = load(dense).bind(inputs)

    def compare(model: onnx.ModelProto) -> tuple[float, float]:
        run = load(model).bind(inputs)
        runs = {"dense": run_dense, "pruned": run}
        with pin_to_one_core():
            trial = time_interleaved(runs, num_rounds=3, num_warmup=2)
            rounds = int(_SECONDS * 1e6 / sum(median(samples) for samples in trial.values()))
            samples = time_interleaved(runs, num_rounds=max(15, min(rounds, MOST_ROUNDS)), num_warmup=1)
        return median(samples["dense"]), median(samples["pruned"])

    return compare
