"""The library's face: its names, that it costs nothing to import, and that one's own loop needs nothing else."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import halp_trt
from halp_trt.errors import ArtefactError, UsageError
from halp_trt.models.saliency.weight_norms import magnitude
from halp_trt.workflows.verify import Tolerances
from tests.cli.tiny import net
from tests.strategies import TARGET, exact_measurement

FUNCTIONS = (
    "build", "export", "load", "lookup", "mask", "prune", "rewrite", "save", "scorer", "slim", "trace", "verify",
)  # fmt: skip
VALUES = (
    "Budget", "ChannelGraph", "EngineRecord", "LatencyTable", "LayerSpec", "Measurement", "PruningPlan", "Saliency",
    "Score", "Target", "Verification",
)  # fmt: skip
BRIEFLY = Tolerances(seconds=0.1, latency_fraction=1000.0)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_these_are_the_public_names() -> None:
    assert set(dir(halp_trt)) == {*FUNCTIONS, *VALUES, "errors", "specs", "__version__"}
    assert all(getattr(halp_trt, name) is not None for name in dir(halp_trt))


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune_all'"):
        halp_trt.prune_all  # noqa: B018 (looking it up is the test)


@pytest.mark.parametrize("name", [*FUNCTIONS, *VALUES])
def test_each_says_what_the_caller_gets(name: str) -> None:
    text = inspect.getdoc(getattr(halp_trt, name)) or ""
    assert re.match(r"(?!Of |That |In which|What |How |Whether )[A-Z][\w`']* .*\.", text.replace("\n", " ")), text
    if name in FUNCTIONS:
        assert "Raises:" in text


def test_importing_it_imports_no_framework() -> None:
    heavy = "torch", "onnx", "scipy", "click", "onnxruntime", "tensorrt"
    code = f"import sys, halp_trt; dir(halp_trt); assert not {{*{heavy!r}}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys, halp_trt; halp_trt.prune, halp_trt.load; assert not {'torch', 'onnx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- one's own loop -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, torch.Tensor, halp_trt.ChannelGraph, onnx.ModelProto]:
    torch.manual_seed(1)
    module, example = net()
    model = halp_trt.export(module, example)
    return module, example, halp_trt.trace(module, (example,), model=model), model


Network = tuple[nn.Module, torch.Tensor, halp_trt.ChannelGraph, onnx.ModelProto]


def _pruned(network: Network, folder: Path) -> tuple[halp_trt.PruningPlan, halp_trt.LatencyTable]:
    module, _, graph, _ = network
    table = halp_trt.lookup(graph, folder / "table.jsonl", runtime="synthetic")
    *_, last = halp_trt.prune(graph, table, budget="70%", score=lambda plan: magnitude(module, graph), num_steps=2)
    return last.plan, table.table


@pytest.mark.slow
def test_engines_of_a_masked_network_are_verified(network: Network, tmp_path: Path) -> None:
    module, _, graph, model = network
    plan, _ = _pruned(network, tmp_path)
    halp_trt.mask(module, plan)
    engines = [
        halp_trt.build(halp_trt.rewrite(model, kept, module=module), runtime="onnxruntime")
        for kept in (halp_trt.PruningPlan.dense(graph), plan)
    ]
    score = halp_trt.Score(name="made up", value=1.0, unit="", num_examples=1, higher_is_better=True)
    (name,) = engines[0].session.input_shapes
    ways: tuple[dict[str, Any], ...] = ({"module": module}, {}, {"inputs": {name: np.ones((1, 1, 8, 8), np.float32)}})
    module.train()
    for way in ways:
        found = halp_trt.verify(*engines, plan, score=lambda session: score, tolerances=BRIEFLY, **way)
        assert found.passed, "masked, the dense-sized engine answers the same; any time is in its budget"
        assert found.max_difference < 1e-5
        assert found.pruned.num_parameters < found.dense.num_parameters
        assert found.pruned.score == score
    assert module.training, "the network is left as it was"
    with pytest.raises(UsageError, match="different targets"):
        halp_trt.verify(engines[0], halp_trt.build(model, runtime="synthetic"), plan)


def test_an_engine_of_another_network_is_found_out(network: Network, tmp_path: Path) -> None:
    module, _, graph, model = network
    plan, _ = _pruned(network, tmp_path)
    dense = halp_trt.build(halp_trt.rewrite(model, halp_trt.PruningPlan.dense(graph)), runtime="onnxruntime")
    other = net()[0]
    pruned = halp_trt.build(halp_trt.rewrite(model, plan, module=other), runtime="onnxruntime")
    halp_trt.mask(module, plan)
    assert not halp_trt.verify(dense, pruned, plan, module=module, tolerances=BRIEFLY).is_faithful


def test_gradients_are_scored(network: Network) -> None:
    module, example, graph, _ = network
    scorer = halp_trt.scorer(module, graph)
    with pytest.raises(UsageError, match="no minibatch was scored"):
        scorer.finish()
    module(example + 1).sum().backward()
    scorer.after_backward()
    assert scorer.finish().scores.keys() == {group.name for group in graph.prunable_groups}
    with pytest.raises(UsageError, match="saliency 'luck' is none of"):
        halp_trt.scorer(module, graph, "luck")


def test_a_slim_network_is_narrow(network: Network, tmp_path: Path) -> None:
    plan, _ = _pruned(network, tmp_path)
    module = net()[0]
    before = sum(p.numel() for p in module.parameters())
    halp_trt.mask(module, plan)
    assert sum(p.numel() for p in halp_trt.slim(module, plan).parameters()) < before


# ---- files ----------------------------------------------------------------------------------------------------------


Maker = Callable[[Network, Path], Any]
ARTEFACTS: dict[str, tuple[str, Maker]] = {
    "a table": ("copy.jsonl", lambda network, folder: _pruned(network, folder)[1]),
    "a plan": ("plan.json", lambda network, folder: _pruned(network, folder)[0]),
    "a graph": ("graph.json", lambda network, folder: network[2]),
    "a saliency": ("saliency.json", lambda network, folder: magnitude(network[0], network[2])),
    "a table without rows": ("empty.jsonl", lambda network, folder: halp_trt.LatencyTable(target=TARGET, rows={})),
    "a table of one row": (
        "one.jsonl",
        lambda network, folder: halp_trt.LatencyTable(
            target=TARGET,
            rows={halp_trt.LayerSpec(operator="Gemm", in_channels=8, out_channels=4, bias=True): exact_measurement(3)},
        ),
    ),
}


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_what_is_saved_is_loaded(kind: str, network: Network, tmp_path: Path) -> None:
    name, make = ARTEFACTS[kind]
    value = make(network, tmp_path)
    halp_trt.save(value, tmp_path / name)
    assert halp_trt.load(tmp_path / name) == value


@pytest.mark.parametrize("runtime", ["onnxruntime", "synthetic", "torch"])
def test_an_engine_that_is_saved_is_loaded(runtime: str, network: Network, tmp_path: Path) -> None:
    _, _, graph, model = network
    built = halp_trt.build(halp_trt.rewrite(model, halp_trt.PruningPlan.dense(graph)), runtime=runtime)
    path = tmp_path / f"mine{Path(built.record.file).suffix}"
    halp_trt.save(built, path)
    again = halp_trt.load(str(path))
    assert (again.engine, again.model, again.record.sha256) == (built.engine, built.model, built.record.sha256)
    assert halp_trt.load(tmp_path / "mine.json") == again.record
    assert again.record.file == path.name
    inputs = {name: np.ones(shape, np.float32) for name, shape in built.session.input_shapes.items()}
    for name, found in again.session.run(inputs).items():
        np.testing.assert_array_equal(found, built.session.run(inputs)[name])


def test_an_engine_without_its_source_needs_the_network_to_be_verified(network: Network, tmp_path: Path) -> None:
    module, _, graph, model = network
    dense = halp_trt.PruningPlan.dense(graph)
    built = halp_trt.build(halp_trt.rewrite(model, dense, module=module), runtime="onnxruntime")
    halp_trt.save(built, tmp_path / "mine.onnx")
    (tmp_path / "mine.source.onnx").unlink()
    alone = halp_trt.load(tmp_path / "mine.onnx")
    with pytest.raises(UsageError, match="name the masked one as module"):
        halp_trt.verify(built, alone, dense)
    assert halp_trt.verify(built, alone, dense, module=module, tolerances=BRIEFLY).is_faithful
    halp_trt.save(alone, tmp_path / "again.onnx")
    assert not (tmp_path / "again.source.onnx").exists()


def test_engines_that_are_not_their_record_s_are_refused(network: Network, tmp_path: Path) -> None:
    built = halp_trt.build(network[3], runtime="synthetic")
    path = tmp_path / "mine.onnx"
    halp_trt.save(built, path)
    with pytest.raises(ArtefactError, match="where an engine's record goes"):
        halp_trt.save(built, tmp_path / "mine.json")
    (tmp_path / "mine.source.onnx").write_bytes(b"")
    with pytest.raises(ArtefactError, match="not the network that"):
        halp_trt.load(path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtefactError, match="not the engine that its record names"):
        halp_trt.load(path)
    path.unlink()
    with pytest.raises(ArtefactError, match=r"mine\.onnx"):
        halp_trt.load(path)
    for strange in (3, network[0]):
        with pytest.raises(ArtefactError, match="is not an artefact"):
            halp_trt.save(strange, tmp_path / "strange.json")


def test_what_a_runtime_cannot_measure_is_refused(network: Network, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measures layers in fp32"):
        halp_trt.lookup(network[2], tmp_path / "t.jsonl", runtime="onnxruntime", precision="int8")
    with pytest.raises(UsageError, match="has no input"):
        halp_trt.build(onnx.ModelProto())
