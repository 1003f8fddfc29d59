"""Slimming commutes with training, reloads from files without pickle, and leaves layers that know their own widths."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from halp_trt.models.masks.hard import freeze_removed_batchnorms, mask
from halp_trt.models.reference import flatten
from halp_trt.models.slim import slim
from halp_trt.models.trace import trace
from halp_trt.models.trial import half_plan, uneven_plan
from halp_trt.models.widen import unslim
from halp_trt.models.zoo import ResidualNet
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import load, load_tensors, save, save_tensors
from tests.models.pruned import OPTIMIZERS, PICTURES, graph_of, train_step
from tests.nets import make_net

NAMES = ("residual", "depthwise", "grouped", "dense-concat", "shared", "transposed")


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NAMES)
def test_masked_training_then_slimming_is_slimming_then_training(name: str, optimizer: str, training: bool) -> None:
    """In float64: Adam divides by gradients that are zero but for rounding, as of a bias before a batch norm."""
    plan, masked = uneven_plan(graph_of(name)), make_net(name).double()
    stepper = OPTIMIZERS[optimizer](masked)
    pictures = PICTURES.double()
    for step in range(2):
        run_step(masked, stepper, pictures, step, training=training)
    mask(masked, plan, stepper)
    slimmed = copy.deepcopy(masked)
    narrow = OPTIMIZERS[optimizer](slimmed)
    narrow.load_state_dict(copy.deepcopy(stepper.state_dict()))
    slim(slimmed, plan, narrow)
    for step in range(2, 5):
        run_step(masked, stepper, pictures, step, training=training)
        mask(masked, plan, stepper)
        run_step(slimmed, narrow, pictures, step, training=training)
    slim(masked, plan, stepper)
    for (key, one), other in zip(masked.state_dict().items(), slimmed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=key)
    for one, other in zip(stepper.state.values(), narrow.state.values(), strict=True):
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=1e-5, atol=1e-5, msg=key)


def run_step(net: nn.Module, stepper: torch.optim.Optimizer, pictures: torch.Tensor, step: int, *, training: bool):
    before = copy.deepcopy(net.state_dict())
    train_step(net, stepper, step, training=training, pictures=pictures)
    assert any(not torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["residual", "shared"])
def test_an_optimiser_goes_on_in_single_precision(name: str) -> None:
    plan, masked = half_plan(graph_of(name)), make_net(name)
    stepper = OPTIMIZERS["sgd"](masked)
    train_step(masked, stepper, 0, training=True)
    mask(masked, plan, stepper)
    slimmed = copy.deepcopy(masked)
    narrow = OPTIMIZERS["sgd"](slimmed)
    narrow.load_state_dict(copy.deepcopy(stepper.state_dict()))
    slim(slimmed, plan, narrow)
    held = {id(p) for group in narrow.param_groups for p in group["params"]}
    assert held == {id(p) for p in slimmed.parameters()} == {id(p) for p in narrow.state}
    for step in range(1, 4):
        train_step(masked, stepper, step, training=True)
        mask(masked, plan, stepper)
        train_step(slimmed, narrow, step, training=True)
    slim(masked, plan)
    for (key, one), other in zip(masked.state_dict().items(), slimmed.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=key)


def test_a_layer_used_twice_is_cut_once_and_stays_shared() -> None:
    plan, net = half_plan(graph_of("shared")), make_net("shared")
    net.twin = net.tower
    slim(net, plan)
    assert net.twin is net.tower
    assert net.tower.weight.shape == (6, 4, 3, 3)
    assert net.norm_a.num_features == net.norm_b.num_features == 6


def test_a_weight_of_two_layers_stays_one_weight() -> None:
    plan, net = half_plan(graph_of("residual")), make_net("residual")
    net.echo = nn.Conv2d(8, 8, 3)
    net.echo.weight = net.blocks[0].a[0].weight
    slim(net, plan)
    assert net.echo.weight is net.blocks[0].a[0].weight
    assert net.echo.weight.shape == (4, 4, 3, 3)


@pytest.mark.parametrize("name", NAMES)
def test_layers_know_their_new_widths(name: str) -> None:
    net = slim(make_net(name), uneven_plan(graph_of(name)))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.weight.shape[:2] == (layer.out_channels, layer.in_channels // layer.groups)
        elif isinstance(layer, nn.ConvTranspose2d):
            assert layer.weight.shape[:2] == (layer.in_channels, layer.out_channels // layer.groups)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean.shape == layer.weight.shape == (layer.num_features,)
        elif isinstance(layer, nn.Linear):
            assert layer.weight.shape == (layer.out_features, layer.in_features)


@pytest.mark.parametrize("name", NAMES)
def test_a_slimmed_network_comes_back_from_its_plan_and_weights(name: str, tmp_path: Path) -> None:
    plan, net = uneven_plan(graph_of(name)), make_net(name)
    slim(net, plan)
    save(plan, tmp_path / "plan.json")
    save_tensors(tmp_path / "weights.safetensors", net.state_dict())
    found = load(tmp_path / "plan.json")
    assert isinstance(found, PruningPlan)
    again = slim(make_net(name, seed=1), found)
    again.load_state_dict(load_tensors(tmp_path / "weights.safetensors"))
    wide = unslim(make_net(name, seed=2), found, load_tensors(tmp_path / "weights.safetensors"))
    with torch.no_grad():
        for one, other, third in zip(*(flatten(n.eval()(PICTURES)) for n in (net, again, wide)), strict=True):
            assert torch.equal(one, other)
            torch.testing.assert_close(one, third, rtol=1e-4, atol=1e-5)


class Tied(nn.Module):
    """Two layers with one weight: the export knows it under one of its two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(n, 8, 3, padding=1) for n in (3, 8, 8))
        self.two.weight = self.one.weight
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.one(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.two(y)))


@pytest.mark.slow
def test_a_weight_under_two_names_comes_back() -> None:
    torch.manual_seed(0)
    net, example = Tied().eval(), torch.randn(1, 3, 6, 6)
    graph = trace(net, (example,))
    assert graph.prunable_groups
    plan = half_plan(graph)
    slimmed = slim(copy.deepcopy(net), plan)
    wide = unslim(copy.deepcopy(net), plan, slimmed.state_dict())
    assert slimmed.one.weight is slimmed.two.weight
    with torch.no_grad():
        torch.testing.assert_close(wide(example), slimmed(example), rtol=1e-5, atol=1e-6)


# ---- removed blocks -------------------------------------------------------------------------------------------------


@cache
def residual() -> tuple[nn.Module, ChannelGraph]:
    torch.manual_seed(0)
    net = ResidualNet(widths=(8, 16), num_blocks=2, in_channels=PICTURES.shape[1], num_classes=5)
    return net, trace(net.eval(), (PICTURES[:1],))


def without_blocks() -> tuple[nn.Module, PruningPlan]:
    """A residual network in float64 and a plan that removes two of its four blocks, and channels beside."""
    net, graph = residual()
    dead = {"stages.0.1.conv1", "stages.1.0.conv1"}
    kept = {group: () if group in dead else kept for group, kept in half_plan(graph).kept.items()}
    return copy.deepcopy(net).double(), PruningPlan(graph=graph, kept=kept)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "training"), [("sgd", True), ("adam", False)])
def test_removed_blocks_train_on_as_a_constant(optimizer: str, training: bool) -> None:
    """Slimmed training is masked training; what is dead stays zero, what the block adds goes on learning."""
    masked, plan = without_blocks()
    stepper = OPTIMIZERS[optimizer](masked)
    pictures = PICTURES.double()
    run_step(masked, stepper, pictures, 0, training=training)
    mask(masked, plan, stepper)
    slimmed = copy.deepcopy(masked)
    narrow = OPTIMIZERS[optimizer](slimmed)
    narrow.load_state_dict(copy.deepcopy(stepper.state_dict()))
    slim(slimmed, plan, narrow)
    shift = slimmed.stages[0][1].bn2.bias.clone()
    for step in range(1, 5):
        run_step(masked, stepper, pictures, step, training=training)
        mask(masked, plan, stepper)
        run_step(slimmed, narrow, pictures, step, training=training)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in slimmed.state_dict().values())
    for block in (slimmed.stages[0][1], slimmed.stages[1][0]):
        assert (block.conv1.out_channels, block.conv2.in_channels) == (1, 1)
        for name, tensor in block.named_parameters():
            is_inside = name in ("conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight")
            assert tensor.requires_grad != is_inside
            assert not (is_inside and tensor.any())
    assert not torch.equal(slimmed.stages[0][1].bn2.bias, shift)
    masked.eval(), slimmed.eval()
    with torch.no_grad():
        torch.testing.assert_close(slimmed(pictures), masked(pictures), rtol=1e-6, atol=1e-6)
    dense, _ = without_blocks()
    with torch.no_grad():
        torch.testing.assert_close(unslim(dense, plan, slimmed.state_dict())(pictures), slimmed(pictures))


def test_a_settled_block_answers_what_it_learns_with() -> None:
    net, plan = without_blocks()
    mask(net, plan)
    for block in (net.stages[0][1], net.stages[1][0]):
        block.bn2.running_mean.normal_()
        block.bn2.bias.data.normal_()
    freeze_removed_batchnorms(net, plan)
    before = copy.deepcopy(net.state_dict())
    freeze_removed_batchnorms(net, plan)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    block = net.stages[0][1]
    inside = torch.zeros(2, block.conv2.out_channels, 4, 4, dtype=torch.float64)
    expected = block.bn2.bias.reshape(1, -1, 1, 1).expand_as(inside)
    torch.testing.assert_close(block.bn2.eval()(inside), expected)
    torch.testing.assert_close(block.bn2.train()(inside), expected)
    alive = net.stages[0][0].bn2.running_mean
    assert torch.equal(alive, torch.zeros_like(alive)), "other batch norms keep their mean"
