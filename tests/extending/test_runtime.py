"""A runtime of one's own is one row: it measures layers, builds and times engines, and no file of the package knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from halp_trt.errors import UsageError
from halp_trt.latency import LatencyTable
from halp_trt.runtimes import RUNTIMES, Choice, Runtime, Traits, available_runtimes, choose_runtime, get_runtime
from halp_trt.specs import LayerSpec
from halp_trt.store import load
from halp_trt.timing import time_interleaved
from halp_trt.workflows.deploy import DeployOptions, build_engine
from halp_trt.workflows.folder import Origin
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.precision import check_measurable
from tests.extending.conftest import HalpTrt, Toy, pruned
from tests.graphs.drawing import draw, numbers


@pytest.fixture
def mine(toy: Toy) -> Runtime:
    made = toy("runtime")["Interpreter"]
    assert "interpreter" in available_runtimes()
    runtime = get_runtime("interpreter")
    assert isinstance(runtime, made)
    return runtime


def test_it_measures_layers_into_a_table(mine: Runtime, tmp_path: Path) -> None:
    spec = LayerSpec(operator="Gemm", in_channels=8, out_channels=4, bias=True)
    rows = Measurer(tmp_path / "table.jsonl", mine, mine.target("fp32", 1))([spec])
    assert (rows[spec].num_samples, rows[spec].latency_us > 0) == (3, True)


def test_it_builds_runs_and_times_engines(mine: Runtime, tmp_path: Path) -> None:
    layer = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    model = draw([layer], {"w": numbers(4, 3, 1, 1)}, inputs={"x": (1, 3, 8, 8)}, outputs=["y"])
    path, target = tmp_path / "it.onnx", mine.target("fp32", 1)
    record = build_engine(model, path, mine, target, Origin(), DeployOptions(engines=tmp_path))
    assert (record.target.runtime, record.runnable) == ("interpreter", True)
    session = mine.load(path.read_bytes(), target)
    picture = np.ones((1, 3, 8, 8), np.float32)
    expected = np.einsum("oc,nchw->nohw", numbers(4, 3, 1, 1)[:, :, 0, 0], picture)
    np.testing.assert_allclose(session.run({"x": picture})["y"], expected, rtol=1e-5)
    assert min(time_interleaved({"it": session.bind({"x": picture})}, num_rounds=5)["it"]) > 0


def test_what_it_cannot_is_refused_by_its_traits(mine: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="interpreter measures layers in fp32, not fp16: prune with --precision fp32"):
        check_measurable(mine, mine.target("fp16", 1))
    row = RUNTIMES["interpreter"]
    monkeypatch.setitem(RUNTIMES, "interpreter", replace(row, traits=Traits(measures=("fp32", "fp16"))))
    check_measurable(mine, mine.target("fp16", 1))


def test_it_is_chosen_where_its_row_says_so(mine: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUNTIMES, "interpreter", replace(RUNTIMES["interpreter"], preference=9))
    assert choose_runtime() == Choice(name="interpreter", reason="interpreter is installed")


@pytest.mark.slow
def test_a_network_is_pruned_for_it(mine: Runtime, halp_trt: HalpTrt, folder: Path) -> None:
    """The budget is one that every machine meets: what it measures is the machine's business."""
    plan = pruned(halp_trt, folder, "--runtime", "interpreter", "--timing-seconds", "0.1", "--budget", "1000ms")
    table = load(next((folder / "luts").glob("*.jsonl")))
    assert isinstance(table, LatencyTable)
    assert (table.target.runtime, plan.counts()) == ("interpreter", plan.graph.dense_counts())
