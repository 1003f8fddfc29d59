"""Candidates are timed against the dense engine, which stays loaded."""

from __future__ import annotations

import onnx
import pytest

from halp_trt.errors import RuntimeUnavailableError
from halp_trt.runtimes import Session, get_runtime
from halp_trt.workflows.compare import Certainty
from halp_trt.workflows.inputs import example_inputs
from halp_trt.workflows.stopwatch import make_stopwatch
from tests.workflows.pruning import subject

BRIEF = Certainty(max_parts=5, part_seconds=0.02)


def test_the_dense_engine_is_loaded_once_and_timed_beside_every_candidate() -> None:
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", 1)
    loaded: list[onnx.ModelProto] = []

    def load(model: onnx.ModelProto) -> Session:
        loaded.append(model)
        return runtime.load(runtime.build(model.SerializeToString(), target), target)

    model = subject().model
    dense = load(model)
    stopwatch = make_stopwatch(dense, load, example_inputs(dense, None), BRIEF)
    latencies = [us for _ in range(2) for us in stopwatch(model)]
    assert len(loaded) == 3, "one for each candidate"
    assert all(us > 0 for us in latencies)


def test_a_device_without_a_clock_has_no_stopwatch() -> None:
    runtime = get_runtime("synthetic")
    target, model = runtime.target("fp32", 1), subject().model
    dense = runtime.load(runtime.build(model.SerializeToString(), target), target)
    with pytest.raises(RuntimeUnavailableError, match="has no clock"):
        make_stopwatch(dense, lambda _: dense, example_inputs(dense, None), BRIEF)
