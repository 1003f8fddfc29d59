"""The papers' experiments: public weights in our form, and the whole on a few pictures."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from halp_trt.models.sources import load_model
from halp_trt.models.weights import load_weights
from halp_trt.tasks.data import load_data

ROOT = Path(__file__).parents[2]
SOURCE = "tests.benchmarks.colours:pictures"


class Block(nn.Module):
    """A block whose shortcut takes every other pixel and fills up with channels of zeros."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
        self.conv2, self.bn2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
        self.stride, self.more = stride, (outside - inside) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more)))


class Public(nn.Module):
    """ResNet-20 as it is public."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        widths = ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        for number, (inside, outside, stride) in enumerate(widths):
            blocks = [Block(inside, outside, stride), Block(outside, outside, 1), Block(outside, outside, 1)]
            setattr(self, f"layer{number + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        logits: torch.Tensor = self.linear(x.mean((2, 3)))
        return logits


def public(path: Path) -> nn.Module:
    torch.manual_seed(4)
    module = Public()
    module.train()(torch.randn(64, 3, 32, 32))  # batch norms that do something
    module.eval()
    torch.save({"state_dict": {f"module.{name}": value for name, value in module.state_dict().items()}}, path)
    return module


def test_public_weights_compute_the_same_with_our_shortcuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    networks, theirs = importlib.import_module("papers_networks"), public(tmp_path / "public.th")
    data = load_data(SOURCE)
    networks.save_public_resnet("resnet20", tmp_path / "public.th", data, tmp_path / "ours.safetensors")
    ours = load_model("resnet20", input_shape=data.input_shape, num_classes=data.num_classes).module.eval()
    load_weights(ours, tmp_path / "ours.safetensors")
    pixels = data.test.read(np.arange(16))[0]
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (networks._MEAN, networks._STD))
    with torch.inference_mode():
        expected = theirs((torch.from_numpy(pixels).float() / 255 - mean) / std)
        found = ours(data.test_batch(np.arange(16)).pictures)
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.02, "pixels at the border differ"
    with torch.inference_mode():
        black = theirs(torch.zeros(1, 3, 32, 32))
    assert float((found - black).abs().max() / expected.abs().max()) > 0.02, "the pictures matter"


Papers = Callable[..., dict[str, Any]]


@pytest.fixture
def papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Papers:
    """Runs benchmarks/papers.py on a few pictures; its result."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT))
    for name in ("resnet20-12fca82f.th", "resnet56-4bfd9763.th"):
        public(tmp_path / name)

    def run(*options: str) -> dict[str, Any]:
        files = ("--work", str(tmp_path / "work"), "--result", str(tmp_path / "papers.json"))
        given = ("--quick", "--seconds", "0.1", "--cifar", SOURCE, "--weights", str(tmp_path))
        monkeypatch.setattr(sys, "argv", ["benchmarks/papers.py", *files, *given, *options])
        runpy.run_path("benchmarks/papers.py", run_name="__main__")
        found: dict[str, Any] = json.loads((tmp_path / "papers.json").read_text())
        return found

    return run


def test_a_part_alone_says_what_it_needs(papers: Papers, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="needs resnet20/adapt, which is not done; do it first, or leave --only out"):
        papers("--only", "resnet20/joint-blocks-70-0/choose")
    with pytest.raises(SystemExit, match="no part is named 'resnet21'; --list names them"):
        papers("--only", "resnet21")
    with pytest.raises(SystemExit, match=r"begins with resnet56-4bfd9763\.th, which is not there"):
        papers("--weights", str(tmp_path / "work"))


@pytest.mark.nightly
@pytest.mark.usefixtures("timed_briefly")
def test_the_papers_experiments_run_from_public_weights_to_a_section(papers: Papers, tmp_path: Path) -> None:
    some = ("resnet20/public", "resnet20/adapt", *(f"resnet20/{m}-50-0/*" for m in ("joint-blocks", "torch-pruning")))
    partial = papers("--only", *some)
    assert not partial["complete"]
    whole = papers("--only", "resnet20/*")
    rows = {(row["method"], row["budget"], row["seed"]): row for row in whole["networks"]["resnet20"]["rows"]}
    assert len(rows) == 11
    for (method, budget, _), row in rows.items():
        if "failed" not in row["choice"]:
            assert row["tuned"]["max_difference"] < 1e-4
            assert 0 <= row["tuned"]["agreement_fraction"] <= 1
            assert (row["share"] < 1) == (method != "dense"), budget
    text = (tmp_path / "papers.md").read_text()
    assert "| 50 % | joint-blocks | 3 |" in text
    assert "lose about 10 points" in text
