"""Times a candidate's engine against the dense one while a network is still being pruned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
import onnx

from halp_trt.runtimes import Array, Session
from halp_trt.timing import MOST_ROUNDS, pin_to_one_core, time_interleaved

__all__ = ["Stopwatch", "make_stopwatch"]

Stopwatch = Callable[[onnx.ModelProto], tuple[float, float]]
"""Gives the latency of the dense engine and of the model's, microseconds, timed in turns."""

_SECONDS_A_PART, _FEWEST_ROUNDS, _MOST_ROUNDS = 1.2, 3, MOST_ROUNDS // 2
_LEAST_PARTS, _MOST_PARTS, _MOST_SECONDS = 5, 15, 30.0
"""Engines are timed in parts, as many as it takes until their ratio is known well enough, or that there is time for."""
_CLOSE_ENOUGH = 0.003
"""Standard error of the ratio, as a share of it: budgets are to be met within three per cent."""


def make_stopwatch(
    dense: Session,
    load: Callable[[onnx.ModelProto], Session],
    inputs: Mapping[str, Array],
    *,
    most_seconds: float = _MOST_SECONDS,
) -> Stopwatch:
    """A stopwatch that keeps the dense engine loaded.

    Args:
        dense: the dense network's engine.
        load: builds and loads the engine of a model, for the same target.
        inputs: of both.
        most_seconds: for a comparison whose ratio is not known well enough before.
    """
    run_dense = dense.bind(inputs)

    def compare(model: onnx.ModelProto) -> tuple[float, float]:
        runs = {"dense": run_dense, "pruned": load(model).bind(inputs)}
        with pin_to_one_core():
            trial = time_interleaved(runs, num_rounds=3, num_warmup=2)
            rounds = int(_SECONDS_A_PART * 1e6 / sum(map(median, trial.values())))
            rounds = max(_FEWEST_ROUNDS, min(rounds, _MOST_ROUNDS))
            return _compared(lambda: time_interleaved(runs, num_rounds=rounds), most_seconds)

    return compare


def _compared(
    take_part: Callable[[], Mapping[str, list[float]]], most_seconds: float = _MOST_SECONDS
) -> tuple[float, float]:
    """Medians of two engines from parts of their samples; the parts' ratios tell how well theirs is known.

    Samples that follow each other are alike, so that their own spread would promise too much.
    """
    started = time.monotonic()
    samples: dict[str, list[float]] = {"dense": [], "pruned": []}
    ratios: list[float] = []
    while not ratios or (
        len(ratios) < _MOST_PARTS
        and time.monotonic() - started < most_seconds
        and (len(ratios) < _LEAST_PARTS or _error(ratios) > _CLOSE_ENOUGH)
    ):
        part = take_part()
        for name, taken in part.items():
            samples[name] += taken
        ratios.append(median(part["pruned"]) / median(part["dense"]))
    return median(samples["dense"]), median(samples["pruned"])


def _error(ratios: list[float]) -> float:
    """Standard error of the mean of some ratios, as a share of it."""
    return float(np.std(ratios, ddof=1)) / math.sqrt(len(ratios)) / float(np.mean(ratios))
