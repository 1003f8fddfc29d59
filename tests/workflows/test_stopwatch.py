"""How long a candidate's engine is timed against the dense one: as long as it takes to know their ratio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

import numpy as np
import onnx
import pytest

from halp_trt.runtimes import Session, get_runtime
from halp_trt.workflows import stopwatch
from halp_trt.workflows.inputs import example_inputs
from tests.workflows.pruning import subject

Part = Mapping[str, list[float]]


def machine(wavering: float, *, share: float = 0.5) -> tuple[Callable[[], Part], list[Part]]:
    """Parts of ten rounds; the pruned engine's speed wavers between parts by so much, and never within one."""
    random, taken = np.random.default_rng(1), list[Part]()

    def part() -> Part:
        dense = 100.0 + random.normal(0, 1, 10)
        pruned = share * 100.0 * (1 + wavering * random.normal()) + random.normal(0, 0.1, 10)
        taken.append({"dense": dense.tolist(), "pruned": pruned.tolist()})
        return taken[-1]

    return part, taken


def test_a_steady_machine_is_asked_for_few_parts() -> None:
    part, taken = machine(wavering=0.0)
    dense_us, pruned_us = stopwatch._compared(part)
    assert len(taken) == stopwatch._LEAST_PARTS
    assert pruned_us / dense_us == pytest.approx(0.5, rel=0.01)


def test_a_wavering_one_for_more_and_all_of_them_count() -> None:
    part, taken = machine(wavering=0.01)
    dense_us, pruned_us = stopwatch._compared(part)
    assert stopwatch._LEAST_PARTS < len(taken) < stopwatch._MOST_PARTS
    assert dense_us == median(value for one in taken for value in one["dense"])
    assert pruned_us == median(value for one in taken for value in one["pruned"])


def test_and_one_that_never_settles_for_no_end_of_them() -> None:
    part, taken = machine(wavering=0.3)
    stopwatch._compared(part)
    assert len(taken) == stopwatch._MOST_PARTS


def test_nor_is_a_slow_one_asked_for_longer_than_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    part, taken = machine(wavering=0.3)
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(stopwatch.time, "monotonic", lambda: next(clock))
    stopwatch._compared(part)
    assert len(taken) == 3, "12, 24 and 36 seconds after the start"
    taken.clear()
    stopwatch._compared(part, most_seconds=20)
    assert len(taken) == 2, "or than a caller gives"


def test_an_engine_takes_as_long_as_itself() -> None:
    pytest.importorskip("onnxruntime")
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", 1)
    model = subject().model

    def load(model: onnx.ModelProto) -> Session:
        return runtime.load(runtime.build(model.SerializeToString(), target), target)

    dense = load(model)
    dense_us, pruned_us = stopwatch.make_stopwatch(dense, load, example_inputs(dense, None))(model)
    assert pruned_us == pytest.approx(dense_us, rel=0.2)
