"""A saliency registered from outside scores channels, in a whole run, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from halp_trt.models.saliency import choose_scoring
from halp_trt.models.trace import trace
from halp_trt.specs import Saliency
from halp_trt.store import load
from tests.extending.conftest import HalpTrt, Toy, pruned


@pytest.mark.slow
def test_a_group_s_score_is_the_scale_of_its_norms(toy: Toy) -> None:
    toy("saliency")
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    scales = torch.tensor([-3.0, 0.5, 2.0, 0.0])
    net[1].weight.data.copy_(scales)
    graph = trace(net, (torch.zeros(1, 1, 4, 4),))
    scorer = choose_scoring("scale", has_data=False).scorer(net, graph)
    (scores,) = scorer.finish().scores.values()
    assert scores == pytest.approx(scales.abs().tolist())


@pytest.mark.slow
def test_the_command_line_takes_it(toy: Toy, halp_trt: HalpTrt, folder: Path) -> None:
    toy("saliency")
    plan = pruned(halp_trt, folder, "--saliency", "scale", "--data", "none", "--classes", "3")
    scores = load(folder / "run" / "saliency.json")
    assert isinstance(scores, Saliency)
    assert all(np.allclose(scores.scores[group.name], 1.0) for group in plan.graph.prunable_groups), "as initialised"
