"""The synthetic device is the same everywhere and has the staircase it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from halp_trt import store
from halp_trt.errors import BuildError, MeasurementError, RuntimeUnavailableError
from halp_trt.graphs.probe import make_probe
from halp_trt.runtimes import synthetic
from halp_trt.specs import LayerSpec

SPEC = LayerSpec(
    operator="Conv", in_channels=64, out_channels=64, in_size=(56, 56), kernel_size=(3, 3), stride=(1, 1),
    padding=(1, 1, 1, 1),
)  # fmt: skip
TARGET = synthetic.Synthetic().target("fp32", 2)


def test_the_formula_is_the_measurement() -> None:
    with synthetic.Synthetic().prober(TARGET) as prober:
        measurement = prober.measure(make_probe(SPEC, 2))
    assert measurement.latency_us == synthetic.latency_us(SPEC, 2)
    work = 5 + 2 * 64 * 64 * 9 * 56 * 56 / 20000 + 2 * 2 * 64 * 56 * 56 / 4000
    assert measurement.latency_us == pytest.approx(work, rel=0.005)


def test_it_is_a_staircase_with_a_little_noise() -> None:
    latency = {n: synthetic.latency_us(SPEC.with_widths(64, n), 1) for n in range(1, 65)}
    for first in (1, 17, 33, 49):
        step = [latency[n] for n in range(first, first + synthetic.TILE)]
        assert max(step) / min(step) < 1.011
        assert len(set(step)) == synthetic.TILE
    assert latency[17] > 1.2 * latency[16]


def test_other_processes_agree() -> None:
    code = (
        "from halp_trt.runtimes import synthetic; from halp_trt.specs import LayerSpec;"
        "print(repr(synthetic.latency_us(LayerSpec(operator='Gemm', in_channels=9, out_channels=7), 1)))"
    )
    here = synthetic.latency_us(LayerSpec(operator="Gemm", in_channels=9, out_channels=7), 1)
    assert float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) == here


def test_it_computes_but_has_no_clock(tmp_path: Path) -> None:
    session = synthetic.Synthetic().load(synthetic.Synthetic().build(make_probe(SPEC, 1), TARGET), TARGET)
    inputs = {name: np.ones(shape, np.float32) for name, shape in session.input_shapes.items()}
    assert set(session.run(inputs)) == set(session.output_names)
    with pytest.raises(RuntimeUnavailableError, match="no clock"):
        session.bind(inputs)
    with pytest.raises(RuntimeUnavailableError, match="no clock"):
        session.profile(inputs, 1)
    store.save(TARGET, tmp_path / "t.json")
    assert store.load(tmp_path / "t.json") == TARGET


def test_what_is_no_probe_is_refused() -> None:
    model = onnx.load_from_string(make_probe(SPEC, 1))
    del model.metadata_props[:]
    with synthetic.Synthetic().prober(TARGET) as prober, pytest.raises(MeasurementError, match="no metadata"):
        prober.measure(model.SerializeToString())
    with pytest.raises(BuildError, match="not valid ONNX"):
        synthetic.Synthetic().build(b"no model", TARGET)
