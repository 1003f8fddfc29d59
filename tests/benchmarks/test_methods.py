"""The benchmark of methods from end to end on few pictures: parts run alone, and what is there is not repeated."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from halp_trt.store import save_tensors
from halp_trt.workflows.refusals import request_of
from halp_trt.workflows.settings import Settings
from tests.cli.tiny import net

ROOT = Path(__file__).parents[2]


@pytest.fixture
def methods(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs benchmarks/methods.py with some options; its names afterwards."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))

    def run(*options: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["benchmarks/methods.py", *map(str, options)])
        return runpy.run_path("benchmarks/methods.py", run_name="__main__" if options else "methods")

    return run


def test_every_cell_is_a_request_that_makes_sense(methods: Callable[..., dict[str, Any]]) -> None:
    names = methods()
    for name, part in names["PARTS"].items():
        for option in part.options:
            for budget in part.budgets:
                cell = names["Cell"](part=name, option=option, budget=budget, seed=1)
                assert request_of(Settings.of(**cell.changes)).train.seed == 1


@pytest.mark.nightly
def test_a_part_runs_alone_and_is_not_repeated(methods: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result, dense = tmp_path / "methods.json", tmp_path / "dense.safetensors"
    save_tensors(dense, net()[0].state_dict())
    options = ("--network", "tests.cli.tiny:net", "--data", "tests.cli.tiny:pictures", "--dense", dense, "--work",
               tmp_path, "--result", result, "--quick", "--seeds", 1, "--seconds", 0.1, "--budget", "100%")  # fmt: skip
    methods(*options, "--part", "untrained", "--option", "none", "least-squares")
    first = json.loads(result.read_text())
    assert [name.partition(", 100%")[0] for name in first["cells"]] == ["untrained, none", "untrained, least-squares"]
    cell = first["cells"]["untrained, least-squares, 100%, seed 0"]
    assert cell["share"] > 0
    assert cell["steps"][0]["distance_after"] <= cell["steps"][0]["distance_before"]
    assert cell["score"]["num_examples"] == 32
    methods(*options, "--part", "untrained", "--option", "none")
    assert json.loads(result.read_text()) == first


@pytest.mark.slow
def test_candidates_are_ranked_against_what_they_learn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    result = tmp_path / "ranking.json"
    options = ("--network", "tests.cli.tiny:net", "--data", "tests.cli.tiny:pictures", "--runtime", "synthetic",
               "--work", tmp_path, "--result", result, "--candidates", 3, "--budget", "70%")  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["benchmarks/methods_ranking.py", *map(str, options)])
    runpy.run_path("benchmarks/methods_ranking.py", run_name="__main__")
    found = json.loads(result.read_text())
    assert 2 <= len(found["candidates"]) <= 3
    assert all(
        set(row) == {"saliency", "raw", "estimated", "tuned", "latency_us"} for row in found["candidates"].values()
    )
