"""Times a candidate's engine against the dense one while a network is still being pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import onnx

from halp_trt.runtimes import Array, Runtime, Session
from halp_trt.specs import Target
from halp_trt.timing import pin_to_one_core, time_interleaved
from halp_trt.workflows.precision import Prepare, as_is

__all__ = ["Stopwatch", "calibrate", "make_stopwatch"]

Stopwatch = Callable[[onnx.ModelProto], tuple[float, float]]
"""Gives the latency of the dense engine and of the model's, microseconds, timed in turns."""

_SECONDS = 2.0


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
            samples = time_interleaved(runs, num_rounds=max(15, min(rounds, 300)), num_warmup=1)
        return median(samples["dense"]), median(samples["pruned"])

    return compare


def calibrate(rows: Sequence[Mapping[str, Any]], *, dense_us: float, slope: float) -> tuple[float, float]:
    """Slope and overhead from table sum to engine: the line through the dense engine and the last of some steps.

    Args:
        rows: log rows of the steps before the final one, whose engine is left out so that it is truly predicted.
        dense_us: the dense network by the table.
        slope: measured dense latency over ``dense_us``; it stays where no step was measured, or none saved 5 %.

    Returns:
        ``(slope, overhead_us)``: a sum stands for ``overhead_us + slope * sum`` microseconds.
    """
    measured = [row for row in rows if "measured_us" in row]
    if not measured:
        return slope, 0.0
    row, whole_us = measured[-1], slope * dense_us
    saved_us = dense_us - row["latency_us"]
    gained_us = whole_us * (1 - row["measured_us"] / row["measured_dense_us"])
    if saved_us < 0.05 * dense_us or gained_us <= 0:
        return slope, 0.0
    return gained_us / saved_us, whole_us - gained_us / saved_us * dense_us
