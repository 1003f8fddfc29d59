"""The duel from end to end on a few pictures: real exporter, ONNX Runtime and Torch-Pruning; killed, it goes on."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from halp_trt.models.slim import slim
from halp_trt.models.sources import load_model
from halp_trt.specs import PruningPlan
from halp_trt.store import save_tensors

ROOT = Path(__file__).parents[2]
METHODS = ("torch-pruning", "joint-once")
Duel = Callable[..., dict[str, Any]]


@pytest.fixture
def duel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Duel:
    """Runs benchmarks/duel.py with more options; its result."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT))
    small = ("--network", "demo", "--budget", "60", "--seeds", "1", "--grid", "32")
    brief = ("--seconds", "0.1", "--timing", "0.3")
    files = ("--work", str(tmp_path), "--result", str(tmp_path / "duel.json"))

    def run(*options: str) -> dict[str, Any]:
        source = ("--quick", "--data", "tests.benchmarks.colours:pictures")
        monkeypatch.setattr(sys, "argv", ["benchmarks/duel.py", *source, *files, *small, *brief, *options])
        runpy.run_path("benchmarks/duel.py", run_name="__main__")
        found: dict[str, Any] = json.loads((tmp_path / "duel.json").read_text())
        return found

    return run


@pytest.mark.nightly
def test_what_is_timed_while_a_peer_chooses_is_its_engine_with_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    contests, rules = importlib.import_module("duel_contest"), importlib.import_module("duel_rules")
    dense = load_model("demo", input_shape=(3, 32, 32), num_classes=10).module
    save_tensors(rules.weights_path(tmp_path, "demo"), dense.state_dict())
    contest = rules.contest_of(tmp_path, "tests.benchmarks.colours:pictures", rules.QUICK, "demo")
    kept = {g.name: tuple(range(g.num_channels))[:: 3 if g.prunable else 1] for g in contest.graph.groups}
    narrow = slim(dense, PruningPlan(graph=contest.graph, kept=kept))
    engine, timed = contests.engine_model(narrow, contest.example()), contests.model_for_timing(contest, narrow)
    assert kernels(timed) == kernels(engine)
    assert kernels(timed) != kernels(contest.model)


def kernels(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    """Operators, attributes and shapes of weights, in order."""
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    return [
        (node.op_type, sorted(map(str, node.attribute)), [shapes.get(name) for name in node.input])
        for node in model.graph.node
    ]


@pytest.mark.nightly
@pytest.mark.usefixtures("timed_briefly")
def test_a_duel_runs_from_choosing_to_timing_and_keeps_what_is_finished(tmp_path: Path, duel: Duel) -> None:
    first = duel("--method", *METHODS)
    cells = {cell["method"]: cell for cell in first["cells"]}
    assert set(cells) == set(METHODS)
    assert not first["complete"]  # other methods are missing
    for method, cell in cells.items():
        assert "failed" not in cell, cell
        assert cell["measurements"]["engines"] >= 1
        assert (cell["measurements"]["layers"] > 0) == (method == "joint-once")
        assert 0 < cell["choice"]["share"] <= 0.6
        assert cell["of_budget"] == pytest.approx(cell["share"] / 0.6)
        assert cell["tuned"]["num_pictures"] == 16
        assert cell["tuned"]["max_difference"] < 1e-4
        assert cell["tuned"]["num_parameters"] < first["dense"]["demo"]["num_parameters"]
    assert all(width % 8 == 0 for width in cells["torch-pruning"]["choice"]["widths"].values())
    assert {line["method"] for line in first["summary"]} == set(METHODS)

    (tmp_path / "demo" / "torch-pruning-60-0" / "tuned.json").unlink()
    again = duel("--method", "torch-pruning", "--phase", "tune")
    chosen = {cell["method"]: cell["choice"] for cell in again["cells"]}
    assert chosen == {method: cell["choice"] for method, cell in cells.items()}
    assert all("tuned" in cell for cell in again["cells"])
