"""What ``run`` makes of a network it makes once: loading, export, trace and the dense engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch
from click.testing import Result

from halp_trt.graphs.rewrite import rewrite
from halp_trt.models import entry
from halp_trt.models import trace as trace_module
from halp_trt.runtimes import RUNTIMES, get_runtime
from halp_trt.specs import PruningPlan
from halp_trt.store import load_tensors
from halp_trt.workflows import network, prepared
from halp_trt.workflows.folder import RunFolder
from tests.borrowed import borrow_table
from tests.cli.tiny import TINY

Verb = Callable[..., Result]
NET = ("--model", "tiny:net", "--data", "tiny:pictures")
QUICK = ("--pruning-steps", 1, "--minibatches", 1, "--epochs", 1, "--train-batch", 32, "--width-step", 16)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of the functions that make something of a network was called."""
    calls: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(network, "load_model")
    count(entry, "export")
    count(trace_module, "export")
    count(prepared, "trace")
    return calls


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Counter[bytes]]:
    """Counts how often a runtime builds each model."""

    def watch(name: str) -> Counter[bytes]:
        runtime, models = get_runtime(name), Counter[bytes]()
        owner: Any = runtime if isinstance(runtime, ModuleType) else type(runtime)
        build = owner.build

        def counting(*args: Any) -> Any:
            models[args[-2]] += 1
            return build(*args)

        monkeypatch.setattr(owner, "build", counting)
        return models

    return watch


def _dense(run: RunFolder) -> bytes:
    plan = run.read_plan()
    return bytes(rewrite(onnx.load(run.dense_model), PruningPlan.dense(plan.graph)).SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime"])
@pytest.mark.parametrize("epochs", [0, 1])
def test_run_makes_everything_once(
    halp_trt: Verb,
    folder: Path,
    counted: Counter[str],
    built: Callable[[str], Counter[bytes]],
    runtime: str,
    epochs: int,
) -> None:
    models = built(runtime)
    table = borrow_table(folder / "table.jsonl", *NET, "--width-step", 16)
    counted.clear()
    asked = ("--runtime", runtime, "--lut", table, *QUICK, "--train-epochs", epochs, "--budget", "70%", "--out", "run")
    done = halp_trt("run", *NET, *asked)
    if runtime == "synthetic":
        assert (done.exit_code, "has no clock for whole networks" in done.stderr) == (2, True), "it got to verify"
    else:
        assert done.exit_code in (0, 1), done.stderr
    assert counted == {"load_model": 1, "export": 1, "trace": 1}
    assert models[_dense(RunFolder(path=folder / "run"))] == 1
    assert (folder / "run/dense.safetensors").exists() == bool(epochs)
    engines = [path for path in (folder / "engines").glob("*.json") if "tensorrt" not in path.name]
    assert len(engines) == 2


@pytest.mark.slow
def test_prune_makes_everything_once_too(
    halp_trt: Verb, folder: Path, counted: Counter[str], built: Callable[[str], Counter[bytes]]
) -> None:
    models = built("onnxruntime")
    table = borrow_table(folder / "table.jsonl", *NET, "--width-step", 16)
    counted.clear()
    asked = ("--runtime", "onnxruntime", "--lut", table, *QUICK, "--budget", "70%", "--out", "run")
    done = halp_trt("prune", *NET, *asked)
    assert done.exit_code == 0, done.stderr
    assert counted == {"load_model": 1, "export": 1, "trace": 1}
    assert models[_dense(RunFolder(path=folder / "run"))] == 1


@pytest.mark.slow
def test_a_network_that_was_trained_here_is_pruned_as_if_it_had_been_loaded(
    halp_trt: Verb, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = RUNTIMES["synthetic"]  # whose figures repeat; it has no clock, and the run goes as far as verifying
    monkeypatch.setitem(RUNTIMES, "synthetic", replace(row, traits=replace(row.traits, times_networks=True)))
    asked = (*TINY, *QUICK, "--budget", "80%")
    halp_trt("run", *asked, "--train-epochs", 2, "--out", "whole")
    pruned = halp_trt("prune", *asked, "--weights", "whole/dense.safetensors", "--out", "alone")
    assert pruned.exit_code == 0, pruned.stderr
    whole, alone = RunFolder(path=folder / "whole"), RunFolder(path=folder / "alone")
    assert whole.dense_model.read_bytes() == alone.dense_model.read_bytes()
    assert whole.read_plan() == alone.read_plan()
    found, expected = load_tensors(whole.weights), load_tensors(alone.weights)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    resumed = halp_trt("run", *asked, "--train-epochs", 2, "--out", "whole", "--resume")
    assert "train      " in resumed.stderr
    assert "weights as given" in resumed.stderr
    assert whole.read_plan() == alone.read_plan()
