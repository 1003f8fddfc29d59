"""A mask registered from outside lets channels fade and return, in a whole run, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from halp_trt.models.masks import get_masking
from halp_trt.models.trace import trace
from halp_trt.planning import prune
from halp_trt.runtimes.synthetic import latency_us
from halp_trt.specs import PruningPlan, Saliency
from tests.extending.conftest import HalpTrt, Toy, pruned
from tests.strategies import formula_lookup


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2),
    )  # fmt: skip


@pytest.mark.slow
def test_what_was_removed_fades_and_may_come_back(toy: Toy) -> None:
    toy("mask")
    module, fading = net(), get_masking("fading")
    graph = trace(module, (torch.zeros(1, 1, 8, 8),))
    lookup = formula_lookup(lambda spec: latency_us(spec, 1))
    kept: list[dict[str, tuple[int, ...]]] = []

    def score(plan: PruningPlan) -> Saliency:
        """Channels that mattered least before matter most after the first step."""
        up = bool(kept)
        return Saliency(
            scores={
                g.name: tuple(float(c if up else g.num_channels - c) for c in range(g.num_channels))
                for g in graph.prunable_groups
            }
        )

    for step in prune(graph, lookup, budget="50%", score=score, num_steps=2, returns_channels=fading.returns_channels):
        before = module[0].weight.detach().clone()
        fading.apply(module, step.plan)
        fading.after_update(module, step.plan)
        first = next(axis for axis in graph.parameters if (axis.parameter, axis.axis) == ("0.weight", 0))
        alive = list(step.plan.kept_positions(first))
        dead = sorted(set(range(64)) - set(alive))
        assert torch.equal(module[0].weight[alive], before[alive])
        torch.testing.assert_close(module[0].weight[dead], 0.8 * before[dead])
        kept.append(dict(step.plan.kept))
    assert any(set(kept[-1][name]) - set(kept[0][name]) for name in kept[0]), "some came back"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["joint-blocks", "halp"])
def test_the_command_line_takes_it(toy: Toy, halp_trt: HalpTrt, folder: Path, method: str) -> None:
    refused = halp_trt("prune", "--mask", "fading")
    assert (refused.exit_code, "'fading' is not one of" in refused.stderr) == (2, True)
    toy("mask")
    plan = pruned(halp_trt, folder, "--mask", "fading", "--method", method)
    assert plan.counts() != plan.graph.dense_counts()
    assert '"mask": "fading"' in (folder / "run" / "run.json").read_text()
