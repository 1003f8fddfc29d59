"""The gate's experiment in small: a runtime that spins, a run that is killed and goes on, and counts."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from halp_trt.runtimes import RUNTIMES
from tests.benchmarks.test_duel import ROOT

Load = Callable[[str], ModuleType]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports a module of benchmarks/, which fresh processes find, too."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    before = dict(RUNTIMES)
    yield importlib.import_module
    RUNTIMES.clear()
    RUNTIMES.update(before)


def record(wanted: float, verdict: str, rival: str = "green") -> dict[str, Any]:
    rivals = dict.fromkeys(("single run", "Mann-Whitney", "pyperf"), rival)
    row = {"load": "idle", "kind": "spin", "wanted": wanted, "true": wanted, "verdict": verdict, "ratio": wanted}
    return {**row, "seconds": 2.0, "processes": 4, "rivals": rivals}


def test_the_summary_counts_each_verdict_and_each_rivals(module: Load) -> None:
    result = module("gate_result")
    records = [record(1.0, "green", "red"), record(1.0, "cannot tell"), record(1.05, "red"), record(1.1, "red")]
    rows = result.summary(records)
    assert [(row["wanted"], row["red"], row["green"], row["cannot_tell"]) for row in rows] == [
        (1.0, 0, 1, 1),
        (1.05, 1, 0, 0),
        (1.1, 1, 0, 0),
    ]
    assert rows[0]["rivals"]["pyperf"] == {"red": 1, "green": 1}
    assert result.markdown(rows).count("\n") == 5


@pytest.mark.parametrize(("reds", "is_met"), [(28, True), (27, False)])
def test_the_bar_at_five_percent_is_28_of_30(module: Load, reds: int, is_met: bool) -> None:
    result = module("gate_result")
    records = [record(1.05, "red" if number < reds else "cannot tell") for number in range(30)]
    met = {one["bar"]: one["met"] for one in result.bars(result.summary(records))}
    assert list(met.values()) == [False, is_met, False]  # no bar is met without its gates


def test_rivals_judge_as_their_rules_say(module: Load) -> None:
    rivals = module("gate_rivals")
    low, high = [100.0 + number for number in range(20)], [130.0 + number for number in range(20)]
    assert rivals.single_run(100.0, 103.1) == "red"
    assert rivals.single_run(100.0, 102.9) == "green"
    assert rivals.mann_whitney(low, high) == "red"
    assert rivals.mann_whitney(high, low) == "green"
    assert rivals.mann_whitney(low, low) == "green"
    assert rivals.mann_whitney([], low) == "cannot tell"


def test_pyperfs_own_test_judges_values(module: Load) -> None:
    pytest.importorskip("pyperf")
    rivals = module("gate_rivals")
    assert rivals.pyperf_rule([100.0, 101.0, 99.0], [110.0, 111.0, 109.0]) == "red"
    assert rivals.pyperf_rule([100.0, 101.0, 99.0], [100.0, 101.0, 99.5]) == "green"


@pytest.mark.slow
def test_an_engine_spins_in_a_fresh_process(module: Load, tmp_path: Path) -> None:
    spin, rivals, reference = module("gate_spin"), module("gate_rivals"), module("halp_trt.runtimes.reference")
    medians = []
    for share in (0.0, 4.0):
        path = tmp_path / f"{share}.onnx"
        path.write_bytes(spin.with_spin(reference.processor_reference(), share))
        values = sorted(rivals.samples_of(path, spin.NAME, 40))
        medians.append(values[20])
    assert medians[1] > 2 * medians[0]  # five times, but for a machine that is shared


@pytest.mark.nightly
def test_an_experiment_that_was_cut_off_goes_on(module: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out, lines = tmp_path / "gate.json", tmp_path / "gate.jsonl"
    brief = [
        "--model",
        "demo",
        "--layers",
        "--spin",
        "1.0",
        "3.0",
        "--process-seconds",
        "0.05",
        "--samples",
        "20",
        "--gate-seconds",
        "0.1",
    ]

    def run(*more: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["benchmarks/gate.py", "--load", "idle", "--out", str(out), *brief, *more])
        runpy.run_path("benchmarks/gate.py", run_name="__main__")
        found: dict[str, Any] = json.loads(out.read_text())
        return found

    run("--gates", "1")
    first = lines.read_text().splitlines()
    lines.write_text(first[0] + "\n" + first[1][:30])  # as a kill leaves it
    found = run("--gates", "1", "--resume")
    again = lines.read_text().splitlines()
    assert again[0] == first[0]
    assert len(again) == 2
    assert [row["gates"] for row in found["rows"]] == [1, 1]
    assert {json.loads(line)["wanted"] for line in again} == {1.0, 3.0}
