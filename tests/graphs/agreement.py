"""Masked module and rewritten graph side by side, for networks written for one test."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.masks.hard import mask
from halp_trt.models.reference import flatten
from halp_trt.models.trace import half_plan, uneven_plan
from halp_trt.specs import ChannelGraph, PruningPlan

TOLERANCE = 1e-4
PICTURE = (1, 3, 12, 12)
WIDTH = 8


class Trunk(nn.Module):
    """Two convolutions, then ``middle`` with the modules given, then ``tail``."""

    def __init__(
        self, middle: Callable[[Trunk, Tensor], object], tail: nn.Module | None = None, **parts: nn.Module
    ) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.middle, self.tail = middle, nn.Identity() if tail is None else tail
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> object:
        return self.tail(self.middle(self, torch.relu(self.second(torch.relu(self.first(x))))))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def traced(module: nn.Module, example: Tensor) -> tuple[onnx.ModelProto, ChannelGraph]:
    model = export(module, (example,))
    return model, channel_graph(model, list(module.state_dict()))


def random_plan(graph: ChannelGraph, seed: int = 5) -> PruningPlan:
    chance = random.Random(seed)
    kept = {}
    for group in graph.groups:
        count = chance.randint(1, group.num_channels) if group.prunable else group.num_channels
        kept[group.name] = tuple(sorted(chance.sample(range(group.num_channels), count)))
    return PruningPlan(graph=graph, kept=kept)


def agreeing_graph(module: nn.Module, example: Tensor | None = None) -> ChannelGraph:
    """The channel graph of a module, once its rewritten graphs were found to compute what the masked module does."""
    shown = torch.randn(PICTURE, generator=torch.Generator().manual_seed(1)) if example is None else example
    model, graph = traced(module, shown)
    name = model.graph.input[0].name
    for plan in (PruningPlan.dense(graph), half_plan(graph), uneven_plan(graph), random_plan(graph)):
        masked = copy.deepcopy(module)
        mask(masked, plan)
        with torch.no_grad():
            expected = [output.numpy() for output in flatten(masked(shown))]
        found = list(execute(rewrite(model, plan), {name: shown.numpy()}).values())
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            largest = max(1.0, float(np.abs(other).max())) if other.size else 1.0
            np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE * largest)
    return graph


def prunable(graph: ChannelGraph) -> dict[str, int]:
    return {group.name: group.num_channels for group in graph.prunable_groups}


def reason(graph: ChannelGraph, name: str) -> str:
    return graph.group(name).reason
