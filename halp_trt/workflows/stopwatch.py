"""Times a candidate's engine against the dense one while a network is still being pruned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from halp_trt.runtimes import Array, Session
from halp_trt.workflows.compare import Certainty, compare_runs

__all__ = ["Stopwatch", "make_stopwatch"]

Stopwatch = Callable[[onnx.ModelProto], tuple[float, float]]
"""A function from a model to the latencies of the dense engine and the model's, microseconds, timed in turns."""

_DENSE = "dense"
"""Name of the dense engine in a comparison."""
_PRUNED = "pruned"
"""Name of the candidate's engine in a comparison."""


def make_stopwatch(
    dense: Session,
    load: Callable[[onnx.ModelProto], Session],
    inputs: Mapping[str, Array],
    until: Certainty | None = None,
) -> Stopwatch:
    """A stopwatch that keeps the dense engine loaded.

    Args:
        dense: the dense network's engine.
        load: builds and loads the engine of a model, for the same target.
        inputs: inputs of both engines.
        until: the precision at which timing stops; None for 0.3 % of the ratio, as budgets are to be met within 3 %.

    Raises:
        RuntimeUnavailableError: engines of this target cannot be timed on this machine.
    """
    run_dense, until = dense.bind(inputs), until or Certainty()

    def time_in_turns(model: onnx.ModelProto) -> tuple[float, float]:
        runs = {_DENSE: run_dense, _PRUNED: load(model).bind(inputs)}
        rows = compare_runs(runs, until=until).measurements
        return rows[_DENSE].latency_us, rows[_PRUNED].latency_us

    return time_in_turns
