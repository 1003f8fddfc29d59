"""Soft masks: removed channels are trained on and come back where they are needed; the network runs as without them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from halp_trt.models.masks import get_masking
from halp_trt.models.masks.hard import HARD
from halp_trt.models.masks.soft import SOFT, SoftMask, soft_groups
from halp_trt.models.slim import slim
from halp_trt.models.trace import trace
from halp_trt.models.zoo import ResidualNet
from halp_trt.specs import ChannelGraph, PruningPlan
from tests.nets import EXAMPLE_SHAPE, NETS, traced


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))


def plan_without(graph: ChannelGraph, removed: int, first: int = 0) -> PruningPlan:
    """A plan that removes some channels from ``first`` on of every prunable group that is wide enough."""
    kept = {}
    for group in graph.groups:
        gone = range(first, first + removed) if group.prunable and group.num_channels > first + removed else ()
        kept[group.name] = tuple(channel for channel in range(group.num_channels) if channel not in gone)
    return PruningPlan(graph=graph, kept=kept)


def update(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer, masking: SoftMask) -> None:
    """One minibatch, as between two pruning steps: learn to be the identity."""
    x = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(len(optimizer.state)))
    optimizer.zero_grad()
    (module(x) - x).square().mean().backward()
    masking.after_backward(module, plan, optimizer)
    optimizer.step()
    masking.after_update(module, plan, optimizer)


def test_the_row_is_there() -> None:
    assert get_masking("soft") is SOFT
    assert SOFT.returns_channels


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=0.1, momentum=0.9), partial(torch.optim.AdamW, lr=0.01)])
def test_a_removed_channel_is_trained_on_and_has_its_weights_again_when_it_returns(
    make: Callable[..., torch.optim.Optimizer],
) -> None:
    module = small().train()
    graph = trace(module.eval(), (torch.zeros(1, 2, 4, 4),))
    module.train()
    optimizer = make(module.parameters())
    dense, narrow = plan_without(graph, 0), plan_without(graph, 4)
    update(module, dense, optimizer, SOFT)
    before = module[3].weight.detach().clone()
    SOFT.apply(module, narrow, optimizer)
    assert not module[3].weight[:, :4].any()
    assert torch.equal(module[3].weight[:, 4:], before[:, 4:])
    assert module[0].weight[:4].any(), "who writes it goes on"
    for _ in range(5):
        update(module, narrow, optimizer, SOFT)
        assert not module[3].weight[:, :4].any()
    SOFT.apply(module, dense, optimizer)
    moved = module[3].weight[:, :4] - before[:, :4]
    assert float(moved.detach().abs().max()) > 1e-3, "it was trained on behind the mask"


def test_behind_a_hard_mask_nothing_moves() -> None:
    module = small()
    graph = trace(module.eval(), (torch.zeros(1, 2, 4, 4),))
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    narrow = plan_without(graph, 4)
    HARD.apply(module, narrow, optimizer)
    for _ in range(3):
        update(module, narrow, optimizer, HARD)
    HARD.apply(module, plan_without(graph, 0), optimizer)
    assert not module[3].weight[:, :4].any()


def test_a_channel_whose_removal_hurts_outgrows_the_others() -> None:
    """Channels 0 and 1 carry the inputs; what is left cannot, as its writers are fixed at zero."""
    module = small()
    graph = trace(module.eval(), (torch.zeros(1, 2, 4, 4),))
    module.train()
    with torch.no_grad():
        module[0].weight[4:] = 0
        module[0].bias[4:] = 0
    optimizer = torch.optim.SGD(module[3].parameters(), 0.1)
    narrow = plan_without(graph, 4)
    SOFT.apply(module, narrow, optimizer)
    for _ in range(20):
        update(module, narrow, optimizer, SOFT)
    dense = optimizer.state[module[3].weight]["dense"].abs().sum(dim=(0, 2, 3))
    assert float(dense[:4].min()) > 0
    assert float(dense[:4].max()) > float(dense[4:].max()), "a plan by the weights that read takes it back"


def test_weights_behind_the_mask_decay() -> None:
    module = small()
    graph = trace(module.eval(), (torch.zeros(1, 2, 4, 4),))
    optimizer = torch.optim.SGD(module.parameters(), 0.5)
    masking, narrow = SoftMask(decay=0.1), plan_without(graph, 4)
    masking.apply(module, narrow, optimizer)
    before = optimizer.state[module[3].weight]["dense"].clone()
    masking.after_backward(module, narrow, optimizer)
    masking.after_update(module, narrow, optimizer)  # without an update between them
    after = optimizer.state[module[3].weight]["dense"]
    torch.testing.assert_close(after[:, :4], 0.95 * before[:, :4])
    assert torch.equal(after[:, 4:], before[:, 4:])


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETS))
def test_the_masked_network_is_the_narrow_one(name: str) -> None:
    net, _, graph = traced(name)
    plan, example = plan_without(graph, 2, first=1), torch.randn(EXAMPLE_SHAPE)
    soft, hard = copy.deepcopy(net), copy.deepcopy(net)
    HARD.apply(hard, plan)
    SOFT.apply(soft, plan, torch.optim.SGD(soft.parameters(), 0.1))
    with torch.no_grad():
        torch.testing.assert_close(soft(example), hard(example), rtol=1e-4, atol=1e-4)


def test_softly_masked_is_slimmed_alike() -> None:
    torch.manual_seed(1)
    module = ResidualNet(widths=(16, 32), num_blocks=1, in_channels=1, num_classes=4).eval()
    example = torch.randn(2, 1, 16, 16)
    graph = trace(module, (example[:1],))
    plan = plan_without(graph, 4, first=2)
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    assert soft_groups(module, graph), "some are"
    SOFT.apply(module, plan, optimizer)
    with torch.no_grad():
        expected = module(example)
        slim(module, plan, optimizer)
        torch.testing.assert_close(module(example), expected, rtol=1e-5, atol=1e-5)


def test_channels_that_a_norm_sees_together_are_masked_hard() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 8, 1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    graph = trace(module.eval(), (torch.zeros(1, 2, 4, 4),))
    soft = soft_groups(module, graph)
    first, last = (
        next(axis.runs[0].group for axis in graph.parameters if (axis.parameter, axis.axis) == (name, 1))
        for name in ("3.weight", "4.weight")
    )
    assert first not in soft
    assert last in soft
