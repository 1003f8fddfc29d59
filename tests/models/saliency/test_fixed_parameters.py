"""Taylor scores where parameters are fixed: nothing is refused that could not, or should not, be pruned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from halp_trt.models.saliency.taylor import SaliencySums, Taylor, accumulate
from halp_trt.models.trace import trace
from halp_trt.specs import ChannelGraph


class Distribution(nn.Module):
    """A detector's head: a fixed convolution with one output takes the mean of a distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.box = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 1)
        self.mean = nn.Conv2d(4, 1, 1, bias=False).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bins = self.box(torch.relu(self.first(x))).flatten(2)
        y: torch.Tensor = self.mean(bins.view(1, 3, 4, -1).transpose(2, 1).softmax(1)).flatten(1)
        return y


class Backbone(nn.Module):
    """Two layers and a head; tests fix some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1)
        self.unread = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(torch.relu(self.b(torch.relu(self.norm(self.a(x)))))).mean(dim=(2, 3))
        return y


def traced(module: nn.Module) -> tuple[torch.Tensor, ChannelGraph]:
    x = torch.randn(1, 3, 8, 8)
    return x, trace(module.eval(), (x,))


def test_a_fixed_convolution_of_one_channel_is_no_reason_to_refuse() -> None:
    torch.manual_seed(0)
    module = Distribution()
    x, graph = traced(module)
    module(x).square().mean().backward()
    totals = accumulate(SaliencySums(), module, graph).totals
    assert set(totals) == {group.name for group in graph.prunable_groups}
    assert (totals["first"] > 0).any()


@pytest.mark.parametrize("fixed", [["a", "norm"], ["a", "norm", "b"], ["head"], ["a", "b"]])
def test_fixed_layers_score_as_if_they_were_trained_and_stay_fixed(fixed: list[str]) -> None:
    torch.manual_seed(0)
    module = Backbone()
    x, graph = traced(module)
    module(x).square().mean().backward()
    expected = accumulate(SaliencySums(), module, graph).totals
    module.zero_grad()
    for name in fixed:
        module.get_submodule(name).requires_grad_(False)
    scorer = Taylor(module, graph)
    module(x).square().mean().backward()
    scorer.after_backward()
    scores = scorer.finish().scores
    assert set(scores) == set(expected)
    for group, values in expected.items():
        assert np.allclose(scores[group], values)
    for name in fixed:
        for parameter in module.get_submodule(name).parameters():
            assert parameter.grad is None
            assert not parameter.requires_grad


def test_a_layer_is_scored_by_its_readers_where_nothing_else_has_gradients() -> None:
    torch.manual_seed(0)
    module = Backbone()
    x, graph = traced(module)
    for name in ("a", "norm"):
        module.get_submodule(name).requires_grad_(False)
    module(x).square().mean().backward()
    totals = accumulate(SaliencySums(), module, graph).totals
    weight, gradient = module.b.weight.detach(), module.b.weight.grad
    assert gradient is not None
    assert np.allclose(totals["a"], (weight * gradient).sum(dim=(0, 2, 3)).abs().numpy())


def test_channels_that_nothing_can_score_count_as_the_most_salient() -> None:
    torch.manual_seed(0)
    module = Backbone()
    x, graph = traced(module)
    for name in ("a", "norm", "b"):
        module.get_submodule(name).requires_grad_(False)
    module(x).square().mean().backward()
    totals = accumulate(SaliencySums(), module, graph).totals
    assert (totals["a"] == totals["b"].max()).all()


def test_a_layer_that_the_loss_does_not_depend_on_is_worth_nothing() -> None:
    torch.manual_seed(0)
    module = Distribution()
    x, graph = traced(module)
    module.first(x).square().mean().backward()
    totals = accumulate(SaliencySums(), module, graph).totals
    assert (totals["first"] > 0).all()
    assert all((total == totals["first"].max()).all() for name, total in totals.items() if name == "mean")
