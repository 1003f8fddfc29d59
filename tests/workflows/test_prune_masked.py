"""A network whose forward() writes widths down is pruned all the same: trained masked, and cut in the ONNX graph."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.models.trace import trace
from halp_trt.models.trial import can_slim
from halp_trt.models.widen import unslim
from halp_trt.store import load_tensors
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import Subject
from tests.workflows.pruning import REQUEST, SHAPE, lookup, pictures

ASKED = replace(
    REQUEST,
    train=TrainSettings(num_epochs=2, batch_size=32, learning_rate=0.02, precision="fp32"),
    method="joint-blocks",
    num_steps=2,
)


class Maxout(nn.Module):
    """The larger of two halves, whose width is an attribute (LightCNN)."""

    def __init__(self) -> None:
        super().__init__()
        self.half, self.a, self.norm = 48, nn.Conv2d(1, 96, 3, padding=1, bias=False), nn.BatchNorm2d(96)
        self.b, self.head = nn.Conv2d(48, 64, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        one, other = torch.split(self.norm(self.a(x)), self.half, 1)
        return self.head(torch.relu(self.b(torch.max(one, other))).mean((2, 3)))


def _subject() -> Subject:
    torch.manual_seed(0)
    module, example = Maxout().eval(), (torch.zeros(1, *SHAPE),)
    model = export(module, example)
    graph = trace(module, example, model=model)
    return Subject(module=module, example=example, graph=graph, model=model, data=pictures())


class Killed(Exception):
    """Ends a run from within its progress report."""


@pytest.mark.slow
def test_it_is_trained_masked_and_a_killed_run_is_the_same(tmp_path: Path) -> None:
    dense = copy.deepcopy(_subject().module)
    whole, broken = RunFolder(path=tmp_path / "whole"), RunFolder(path=tmp_path / "broken")
    with pytest.warns(UserWarning, match=r"forward\(\) does not run with fewer channels"):
        plan = prune(_subject(), ASKED, whole, lookup=lookup(tmp_path / "table.jsonl"))
    assert plan.graph.group("a").num_channels == 48, "each channel of a half goes with that of the other"
    assert plan.counts()["a"] < 48
    assert not can_slim(dense, _subject().example, plan)

    weights = load_tensors(whole.weights)
    assert weights["a.weight"].shape == (96, 1, 3, 3), "the weights are those of the masked network"
    assert int((weights["a.weight"].abs().sum((1, 2, 3)) > 0).sum()) == 2 * plan.counts()["a"]
    assert not torch.equal(weights["head.weight"], dense.state_dict()["head.weight"]), "it was trained"
    masked = unslim(copy.deepcopy(dense), plan, weights)
    value = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    model = onnx.load(whole.pruned_model)
    (found,) = execute(model, {model.graph.input[0].name: value.numpy()}).values()
    with torch.no_grad():
        np.testing.assert_allclose(found, masked(value).numpy(), atol=1e-5)

    def kill(done: int, total: int, note: str = "") -> None:
        if "fine-tuning" in note and done == 6:
            raise Killed

    with pytest.warns(UserWarning, match="masked"), pytest.raises(Killed):
        prune(_subject(), ASKED, broken, lookup=lookup(tmp_path / "other.jsonl"), progress=kill)
    assert prune(_subject(), ASKED, broken, lookup=lookup(tmp_path / "other.jsonl"), resume=True).kept == plan.kept
    resumed = load_tensors(broken.weights)
    assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())
