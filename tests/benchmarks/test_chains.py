"""The chains of benchmarks/chains.py: one in small from end to end, its table, and what is not started."""

from __future__ import annotations

import importlib
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from halp_trt.specs import Budget
from halp_trt.store import write_json
from tests.benchmarks.test_duel import ROOT
from tools.figures import figures


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.mark.nightly
def test_a_small_network_goes_through_the_whole_chain_and_into_the_table(tmp_path: Path) -> None:
    chains, networks = importlib.import_module("chains"), importlib.import_module("chains_networks")
    small = networks.Chain(
        name="small", model="tests.cli.tiny:net", data="tests.cli.tiny:pictures", side=None, width_step=16,
        max_probes=30, pruning_steps=1, minibatches=1, train_batch=8, timing_seconds=0.1,
    )  # fmt: skip
    row = chains.run_chain(small, tmp_path, Budget.parse("70%"), 0.1)
    assert row["difference"] <= row["difference_limit"]
    assert row["channels"]["left"] < row["channels"]["dense"] == row["channels"]["prunable"] + 4
    assert row["parameters"]["pruned"] < row["parameters"]["dense"]
    assert row["share"] > row["share_error"] > 0
    assert list(row["seconds"]) == ["trace", "table", "prune", "compile", "verify"]
    write_json(tmp_path / "chains.json", {"schema": chains.SCHEMA, "command": "python", "chains": {"small": row}})
    assert "| small, 1×8×8 |" in figures(tmp_path / "chains.json")


def test_a_stage_that_goes_on_keeps_the_seconds_that_it_took_at_first(tmp_path: Path) -> None:
    chains = importlib.import_module("chains")
    write_json(tmp_path / "seconds.json", {"trace": 12.5})
    clock = chains.Clock(tmp_path / "seconds.json")
    assert [clock.timed(stage, lambda: 7) for stage in ("trace", "table")] == [7, 7]
    again = chains.Clock(tmp_path / "seconds.json").seconds
    assert again["trace"] == 12.5
    assert again["table"] < 12.5


@pytest.mark.slow
def test_a_network_with_frozen_norms_can_be_trained() -> None:
    networks = importlib.import_module("chains_networks")
    torch.manual_seed(0)
    network, example = networks.frozen_resnet50()
    assert sum(type(part).__name__ == "FrozenBatchNorm2d" for part in network.modules()) == 53
    outputs = network(torch.randn(2, *example.shape[1:]))
    outputs.square().mean().backward()
    gradients = [float(parameter.grad.norm()) for parameter in network.parameters() if parameter.grad is not None]
    assert outputs.abs().max() < 100
    assert max(gradients) < 100


def run(monkeypatch: pytest.MonkeyPatch, *options: object) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/chains.py", *map(str, options)])
    runpy.run_path(str(ROOT / "benchmarks/chains.py"), run_name="__main__")


def test_what_is_there_is_not_run_again_and_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {chain.name: {"seconds": {}} for chain in importlib.import_module("chains_networks").CHAINS}
    result = tmp_path / "chains.json"
    write_json(result, {"chains": known})
    asked = ("--work", tmp_path / "work", "--result", result)
    with pytest.raises(SystemExit, match="is there already; go on with --resume"):
        run(monkeypatch, *asked)
    run(monkeypatch, *asked, "--resume")
    assert json.loads(result.read_text()) == {"chains": known}
    assert not (tmp_path / "work").exists()


def test_only_known_networks_run_and_only_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--work", tmp_path, "--result", tmp_path / "chains.json")
    with pytest.raises(SystemExit, match="no network is called vgg; choose from ResNet-50"):
        run(monkeypatch, *asked, "--only", "vgg")
    (tmp_path / "convnext-atto").mkdir()
    with pytest.raises(SystemExit, match="holds an earlier run; go on with --resume"):
        run(monkeypatch, *asked, "--only", "convnext")
