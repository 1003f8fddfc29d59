"""The detection benchmark in small: each part from end to end, its table, and that it goes on."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from halp_trt.models.detection.ssd import Ssd
from halp_trt.specs import Budget
from tests.benchmarks.test_duel import ROOT
from tests.tasks.detection.folders import Box, voc
from tools.figures import figures

WIDE = "tests.benchmarks.test_detection:wide"
BOXES: dict[str, list[Box]] = {
    name: [("a", 1, 1, 20, 15, False), ("b", 5, 5, 14, 20, False), ("c", 21, 11, 40, 30, False)]
    for name in ("one", "two")
}
Run = Callable[..., dict[str, Any]]


def wide(num_classes: int = 3) -> tuple[nn.Module, torch.Tensor]:
    """A detector of pictures of 64x64 pixels, wide enough to get faster when it is pruned."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 32), (32, 96), (96, 96)):
        layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU()]
    return Ssd(nn.Sequential(*layers), num_classes, (64, 64), extras=((32, 32),)), torch.zeros(1, 3, 64, 64)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a part of benchmarks/detection.py; its result."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT))

    def call(part: str, *options: object) -> dict[str, Any]:
        files = ("--work", tmp_path / "work", "--result", tmp_path / "detection.json")
        monkeypatch.setattr(sys, "argv", ["detection.py", part, *map(str, (*files, *options))])
        runpy.run_path(str(ROOT / "benchmarks/detection.py"), run_name="__main__")
        found: dict[str, Any] = json.loads((tmp_path / "detection.json").read_text())
        return found

    return call


@pytest.mark.nightly
@pytest.mark.usefixtures("timed_briefly")
def test_detectors_duel_on_their_own_metric(tmp_path: Path, run: Run) -> None:
    source = f"voc:{voc(tmp_path / 'cells', BOXES, BOXES)}"
    small = ("--side", 64, "--dense-epochs", 1, "--epochs", 1, "--batch", 2, "--minibatches", 1, "--steps", 1)
    brief = ("--grid", 16, "--bisections", 2, "--timing", 0.2, "--seconds", 0.1, "--pictures", 2, "--budget", 85)
    asked = ("--data", source, "--network", WIDE, *small, *brief)
    found = run("bccd", *asked)
    cells = found["bccd"]["networks"][WIDE]["cells"]
    assert [cell["method"] for cell in cells] == ["joint-blocks", "halp", "uniform", "torch-pruning"]
    chosen = [cell for cell in cells if "failed" not in cell["choice"]]
    assert {"joint-blocks", "torch-pruning"} <= {cell["method"] for cell in chosen}, cells
    for cell in chosen:
        assert cell["tuned"]["score"]["name"] == "mAP@50"
        assert cell["tuned"]["max_difference"] < 1e-3
        assert cell["share"] > 0
        assert cell["meets_goal"] in (True, False)
    table = (tmp_path / "detection.md").read_text()
    assert "85 %, joint-blocks, seed 0" in table
    assert "voc:PATH" in table
    assert str(tmp_path) not in table
    assert run("bccd", *asked)["bccd"]["networks"] == found["bccd"]["networks"], "nothing is done twice"


@pytest.mark.nightly
@pytest.mark.usefixtures("timed_briefly")
def test_a_detector_goes_through_the_whole_chain_and_into_the_table(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chains, networks = importlib.import_module("detection_chains"), importlib.import_module("chains_networks")
    small = networks.Chain(
        name="small", model=WIDE, data="none", side=None, width_step=16, max_probes=80, pruning_steps=1,
        timing_seconds=0.1,
    )  # fmt: skip
    chains.run_detector_chain(small, tmp_path, Budget.parse("85%"), 0.1)
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["difference"] <= 1e-4
    assert row["trained"].startswith("initial weights, no pictures")
    if "absent" not in row["plans"]:
        assert row["plans"]["int8"]["num_bytes"] > 0
        assert row["plans"]["fp16"]["types"]["fp16"] > 3
    result = tmp_path / "detection.json"
    part = {"command": "python", "networks": {"small": row}}
    result.write_text(json.dumps({"schema": "halp-trt/detection/1", "chains": part}))
    assert "| small, 3×64×64 |" in figures(result)


def test_only_known_networks_run(run: Run) -> None:
    with pytest.raises(SystemExit, match="no network is called vgg; choose from SSD512-ResNet50"):
        run("chains", "--only", "vgg")


def test_a_folder_of_other_rules_is_refused(tmp_path: Path, run: Run) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/rules.json").write_text('{"side": 64}')
    with pytest.raises(SystemExit, match="holds other rules"):
        run("bccd", "--data", "voc:x")


def test_fastestdets_settings_read_no_label(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    part = importlib.import_module("detection_fastestdet")
    arguments = Namespace(data="coco:/there/train2017,/there/train2017.json", weights=tmp_path / "x.pth", work=tmp_path)
    settings = part._settings(arguments, part.Distilling(), Budget(fraction=0.7))
    assert settings.data.data == "pictures:/there/train2017"
    assert settings.tune.distillation == 1.0
