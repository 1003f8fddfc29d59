"""Slimming commutes with training, reloads from files without pickle, and leaves layers that know their own widths."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from halp_trt.errors import GraphMismatchError
from halp_trt.models.mask import mask
from halp_trt.models.reference import flatten
from halp_trt.models.slim import slim, slim_like
from halp_trt.models.trace import half_plan, trace, uneven_plan
from halp_trt.models.widen import widen
from halp_trt.specs import PruningPlan
from halp_trt.store import load, load_tensors, save, save_tensors
from tests.models.pruned import OPTIMIZERS, PICTURES, graph_of, train_step
from tests.nets import make_net

NAMES = ("residual", "depthwise", "grouped", "dense-concat", "shared", "transposed")


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
    wide = widen(make_net(name, seed=2), found, load_tensors(tmp_path / "weights.safetensors"))
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


def test_a_weight_under_two_names_comes_back() -> None:
    torch.manual_seed(0)
    net, example = Tied().eval(), torch.randn(1, 3, 6, 6)
    graph = trace(net, (example,))
    assert graph.prunable_groups
    plan = half_plan(graph)
    slimmed = slim(copy.deepcopy(net), plan)
    wide = widen(copy.deepcopy(net), plan, slimmed.state_dict())
    assert slimmed.one.weight is slimmed.two.weight
    with torch.no_grad():
        torch.testing.assert_close(wide(example), slimmed(example), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_dense_network_takes_on_what_another_one_was_slimmed_to(name: str) -> None:
    plan = uneven_plan(graph_of(name))
    slimmed = slim(make_net(name), plan).eval()
    with torch.no_grad():
        for parameter in slimmed.parameters():
            parameter.add_(0.01)
        alike = slim_like(make_net(name), slimmed.state_dict()).eval()
        for found, expected in zip(flatten(alike(PICTURES)), flatten(slimmed(PICTURES)), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert [str(layer) for layer in alike.modules()] == [str(layer) for layer in slimmed.modules()]


def test_weights_of_another_network_are_no_narrow_ones() -> None:
    with pytest.raises(GraphMismatchError, match="another network"):
        slim_like(make_net("residual"), make_net("depthwise").state_dict())
