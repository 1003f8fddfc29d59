"""Checkpoints: words decoded by their type, tensors of the right kind, and a seal over all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from halp_trt.errors import ArtefactError
from halp_trt.planning import Step, Timed
from halp_trt.specs import ChannelGraph
from halp_trt.store import load_tensor_metadata, load_tensors, save_tensors
from halp_trt.workflows.checkpoint import (
    Progress,
    PruneWords,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    seal_of,
)
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.ledger import checkpoint_path, read_progress
from tests.report.values import GRAPH, PLAN

STEP = Step(
    index=2, plan=PLAN, dense_us=100.0, slope=1.25,
    engines=(
        Timed(step=1, sum_us=80.0, dense_us=120.0, engine_us=99.0),
        Timed(step=2, sum_us=60.0, dense_us=121.0, engine_us=77.0),
    ),
)  # fmt: skip
Words = dict[str, Any]


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network after one step of its optimiser, which has state by then."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found, (module, optimizer) = RunFolder(path=tmp_path), network()
    words = PruneWords.of(Progress(step=STEP, num_tuned=3, is_pruned=True), fingerprint="f", num_rows=7)
    save_checkpoint(checkpoint_path(found), words, module, optimizer)
    return found


def rewritten(
    run: RunFolder,
    words: Callable[[Words], object] = lambda words: None,
    tensors: Callable[[dict[str, torch.Tensor]], object] = lambda tensors: None,
) -> None:
    """Changes a checkpoint and seals it again."""
    path = checkpoint_path(run)
    said, held = json.loads(load_tensor_metadata(path)["checkpoint"]), load_tensors(path)
    words(said)
    tensors(held)
    text = json.dumps(said)
    save_tensors(path, held, {"checkpoint": text, "sha256": seal_of(text, held)})


def test_a_checkpoint_comes_back(run: RunFolder) -> None:
    progress, num_rows = read_progress(run, GRAPH, fingerprint="f")
    assert (progress.step, progress.num_tuned, progress.is_pruned, progress.is_slim) == (STEP, 3, True, False)
    assert num_rows == 7
    (module, optimizer), (fresh, others) = network(), network()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    load_checkpoint(checkpoint_path(run), fresh, others)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), fresh.state_dict().values(), strict=True)
    )
    for one, other in zip(optimizer.state.values(), others.state.values(), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])


def put(key: str, value: object) -> Callable[[Words], object]:
    return lambda words: words.update({key: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("slope", float("nan")), "NaN is no number"),
        (put("slope", -1.0), r"PruneWords\.slope: expected float of at least 0"),
        (put("slope", 0.0), "latencies above 0"),
        (put("dense_us", 0), "latencies above 0"),
        (put("dense_us", 1e30), r"PruneWords\.dense_us: expected float of at least 0 and at most"),
        (put("engines", [[1, 80.0, 0.0, 99.0, True]]), "latencies above 0"),
        (put("engines", [[1, 80.0, 120.0, 99.0]]), r"PruneWords\.engines\[0\]: expected 5 entries, found 4"),
        (put("engines", [[3, 80.0, 120.0, 99.0, True]]), "no engine was timed after step 2"),
        (put("index", True), r"PruneWords\.index: expected int"),
        (put("index", 2.0), r"PruneWords\.index: expected int"),
        (put("num_rows", -1), r"PruneWords\.num_rows: expected int of at least 0"),
        (put("num_rows", None), r"PruneWords\.num_rows: expected int"),
        (put("kept", {"stem": [1, 0]}), "a plan must name every channel group"),
        (put("kept", []), r"PruneWords\.kept: expected mapping"),
        (put("is_pruned", 1), r"PruneWords\.is_pruned: expected bool"),
        (put("is_pruned", False), "once it is pruned"),
        (lambda words: words["numbers"].update(bound="x"), r"PruneWords\.numbers\.bound: expected float"),
        (lambda words: words.pop("numbers"), "PruneWords lacks its field 'numbers'"),
        (put("colour", 1), "PruneWords has no field 'colour'"),
    ],
)
def test_words_that_no_run_writes_are_refused(run: RunFolder, change: Callable[[Words], object], words: str) -> None:
    rewritten(run, words=change)
    with pytest.raises(ArtefactError, match=rf"is not a checkpoint of this version \(.*{words}"):
        read_progress(run, GRAPH, fingerprint="f")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("module.0.weight"), r"0\.weight differs"),
        (lambda tensors: tensors.update({"module.9.weight": torch.ones(1)}), r"9\.weight differs"),
        (lambda tensors: tensors.update({"module.0.weight": torch.ones(4, 4)}), r"0\.weight differs"),
        (lambda tensors: tensors.update({"module.0.weight": torch.ones(4, 3).half()}), r"0\.weight differs"),
        (lambda tensors: tensors.update({"optimizer.momentum_buffer:9": torch.ones(1)}), "momentum_buffer:9 differs"),
        (lambda tensors: tensors.update({"optimizer.momentum_buffer:0.bias": torch.ones(9)}), "0.bias differs"),
    ],
)
def test_tensors_of_another_network_are_refused(
    run: RunFolder, change: Callable[[dict[str, torch.Tensor]], object], words: str
) -> None:
    rewritten(run, tensors=change)
    with pytest.raises(ArtefactError, match=rf"is of another network \(.*{words}"):
        load_checkpoint(checkpoint_path(run), *network())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, [1.0], 1, 1j])
def test_a_loss_scale_that_no_training_comes_to_is_refused(run: RunFolder, value: Any) -> None:
    number = torch.tensor(value, dtype=torch.float64 if isinstance(value, float | list) else None)
    rewritten(run, tensors=lambda tensors: tensors.update({"passes.scale": number}))
    with pytest.raises(ArtefactError, match="has no loss scale that a training comes to; start without --resume"):
        load_checkpoint(checkpoint_path(run), *network())


@pytest.mark.parametrize("place", ["on cuda:0", None])
def test_a_changed_device_is_found(run: RunFolder, place: str | None) -> None:
    path = checkpoint_path(run)
    said = load_tensor_metadata(path)
    said["place"] = place or ""
    save_tensors(path, load_tensors(path), said if place else {key: said[key] for key in ("checkpoint", "sha256")})
    with pytest.raises(ArtefactError, match="was changed since it was written"):
        load_checkpoint(path, *network())


def _read(run: RunFolder) -> None:
    read_progress(run, GRAPH, fingerprint="f")
    load_checkpoint(checkpoint_path(run), *network())


def test_any_changed_bit_is_found(run: RunFolder) -> None:
    path = checkpoint_path(run)
    whole = path.read_bytes()
    for at in range(0, len(whole), 41):
        changed = bytearray(whole)
        changed[at] ^= 4
        path.write_bytes(changed)
        with pytest.raises(ArtefactError):
            _read(run)


def test_a_checkpoint_without_words_is_refused(run: RunFolder) -> None:
    save_tensors(checkpoint_path(run), {"module.0.weight": torch.ones(1)}, {"checkpoint": "{}"})
    with pytest.raises(ArtefactError, match="it lacks its progress"):
        read_checkpoint(checkpoint_path(run), PruneWords)


def test_a_checkpoint_of_another_graph_is_refused(run: RunFolder) -> None:
    other: ChannelGraph = replace(GRAPH, groups=tuple(replace(group, num_channels=8) for group in GRAPH.groups))
    with pytest.raises(ArtefactError, match="not a checkpoint of this version"):
        read_progress(run, other, fingerprint="f")
