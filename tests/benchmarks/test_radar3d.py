"""benchmarks/radar3d.py in small: a row from training to the table, and a second call that repeats nothing."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from tests.benchmarks.test_duel import ROOT
from tests.borrowed import borrow_table
from tests.cli.conftest import exports_kept  # noqa: F401 (a network is exported once, here, too)
from tests.tasks.centers3d.scenes import scenes
from tools.figures import figures

MODEL = ("--model", "tests.tasks.centers3d.scenes:network", "--input", "9x32x16")


@pytest.mark.nightly
def test_a_small_detector_comes_into_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    radar3d = importlib.import_module("radar3d")
    work, result = tmp_path / "work", tmp_path / "radar3d.json"
    work.mkdir()
    borrow_table(work / "table.jsonl", *MODEL, "--data", "none", "--width-step", "16")
    asked = (
        "--data", f"radar3d:{scenes(tmp_path / 'data')},points=2", "--work", str(work), "--result", str(result), *MODEL,
        "--epochs", "1", "--tune-epochs", "1", "--batch", "4", "--seed", "0", "--budget", "80%", "--width-step", "16",
        "--pruning-steps", "1", "--minibatches", "1", "--seconds", "0.1",
    )  # fmt: skip
    radar3d.main(asked)
    (row,) = json.loads(result.read_bytes())["rows"]
    assert row["max_difference"] < 1e-4
    assert row["pruned"]["num_parameters"] < row["dense"]["num_parameters"]
    assert {"Car", "Cyclist at 2 m"} <= set(row["dense"]["parts"])
    assert "| pruned to 80% |" in figures(result)
    capsys.readouterr()
    before = result.stat().st_mtime_ns
    radar3d.main(asked)
    assert result.stat().st_mtime_ns == before, "nothing is repeated"
    assert "<!-- figures: benchmarks/results/radar3d.json -->\n| engine |" in capsys.readouterr().out
