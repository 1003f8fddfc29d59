"""The chains of benchmarks/contention.py: a small network alone and beside itself, and the table of both."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import pytest

from tests.benchmarks.test_duel import ROOT
from tools.figures import figures

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin threads")


@pytest.mark.nightly
def test_a_small_network_alone_and_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    contention = importlib.import_module("contention")
    small = ("--model", "demo", "--classes", "10", "--input", "1x8x8", "--data", "none", "--width-step", "32")
    monkeypatch.setattr(contention, "NETWORKS", {"small": small})
    out, situations = tmp_path / "contention.json", ("idle", "beside itself")
    words = ["--work", tmp_path, "--situations", *situations, "--max-probes", 300, "--seconds", 0.2, "--out", out]
    monkeypatch.setattr(sys, "argv", ["contention.py", *map(str, words)])
    contention.main()
    rows = json.loads(out.read_text())["rows"]
    assert [row["situation"] for row in rows] == ["idle", "beside itself", "beside itself"]
    for row in rows:
        assert [row["codes"][verb] for verb in ("build-lut", "prune", "deploy")] == [0, 0, 0]
        assert 0 < row["predicted_share"] <= 0.6
        assert row["measured_share"] > 0
    assert rows[0]["differs_fraction"] == 0.0
    assert "| small | beside itself |" in figures(out)
    before = out.with_suffix(".jsonl").read_text()
    sys.argv.append("--resume")
    contention.main()
    assert out.with_suffix(".jsonl").read_text() == before, "nothing is run twice"
    sys.argv.pop()
    with pytest.raises(SystemExit, match="go on with --resume"):
        contention.main()
