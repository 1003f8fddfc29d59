"""What can be pruned is said where networks are measured, pruned and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.tiny import TINY

QUICK = ("--pruning-steps", 1, "--minibatches", 1, "--epochs", 0, "--train-batch", 32, "--saliency", "magnitude")


@pytest.mark.slow
def test_tables_runs_and_graphs_say_what_can_be_pruned(halp_trt, folder: Path) -> None:
    built = halp_trt("build-lut", *TINY, "--out", "lut.jsonl", "--width-step", 16)
    assert built.exit_code == 0, built.stderr
    assert "prunable: 64 of 67 channels (95.5 %), in layers that take" in built.stdout
    assert "not prunable: 3 of 8 (it is the network's output)" in built.stdout
    pruned = halp_trt("prune", *TINY, *QUICK, "--budget", "90%", "--lut", "lut.jsonl", "--out", "run")
    assert pruned.exit_code == 0, pruned.stderr
    shown = halp_trt("show", "run")
    for text in (pruned.stdout, shown.stdout):
        assert "prunable: 64 of 67 channels (95.5 %), in layers that take" in text
    alone = "prunable: 64 of 67 channels (95.5 %); their share of the latency is unknown without a latency table\n"
    assert alone in halp_trt("show", "run/graph.json").stdout
    (folder / "lut.jsonl").unlink()
    assert alone in halp_trt("show", "run").stdout
    for arguments in (("show", "run"), ("show", "run/graph.json")):
        found = json.loads(halp_trt(*arguments, "--json").stdout)["prunability"]
        assert (found["num_prunable"], found["num_channels"]) == (64, 67)
    assert halp_trt("show", "run", "--html", "page.html").exit_code == 0
    assert "64 of 67 channels" in (folder / "page.html").read_text()


@pytest.mark.slow
def test_a_network_without_prunable_channels_is_refused_by_the_reason(halp_trt) -> None:
    frozen = [word for name in ("0", "3") for word in ("--frozen", name)]
    built = halp_trt("build-lut", *TINY, *frozen, "--out", "lut.jsonl", "--json")
    assert built.exit_code == 0, built.stderr
    assert json.loads(built.stdout)["prunability"]["num_prunable"] == 0
    pruned = halp_trt("prune", *TINY, *QUICK, *frozen, "--out", "run")
    assert pruned.exit_code == 2
    assert "none of the network's 67 channels can be pruned: 64 of 0, 3 (it was frozen by the user)" in pruned.stderr
    assert "raise the budget" not in pruned.stderr


@pytest.mark.slow
def test_a_missing_table_is_named(halp_trt) -> None:
    pruned = halp_trt("prune", *TINY, "--lut", "nowhere.jsonl", "--out", "run")
    assert pruned.exit_code == 2
    assert "there is no latency table nowhere.jsonl" in pruned.stderr
