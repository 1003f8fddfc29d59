"""Masks are exact, repeatable, and reach the optimiser's memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from halp_trt.errors import GraphMismatchError
from halp_trt.models.masks.hard import mask
from halp_trt.models.positions import dead_positions, named_tensors
from halp_trt.models.trial import uneven_plan
from halp_trt.specs import PruningPlan
from tests.models.pruned import OPTIMIZERS, PICTURES, graph_of, train_step
from tests.nets import make_net

names = pytest.mark.parametrize("name", ["residual", "depthwise", "shared"])


def dead_values(net: nn.Module, plan: PruningPlan) -> list[torch.Tensor]:
    tensors = named_tensors(net)
    places = [(tensors[a.parameter], a.axis, dead_positions(tensors, a, plan)) for a in plan.graph.parameters]
    return [tensor.index_select(axis, dead) for tensor, axis, dead in places if len(dead)]


@names
def test_masking_twice_is_masking_once_and_touches_nothing_that_lives(name: str) -> None:
    plan, net = uneven_plan(graph_of(name)), make_net(name)
    dense = copy.deepcopy(net.state_dict())
    mask(net, plan)
    once = copy.deepcopy(net.state_dict())
    mask(net, plan)
    assert all(torch.equal(value, once[key]) for key, value in net.state_dict().items())
    found = dead_values(net, plan)
    assert found
    assert not any(values.any() for values in found)
    assert all(torch.equal(value[value != 0], dense[key][value != 0]) for key, value in once.items())
    assert sum(int((value == 0).sum()) for value in once.values()) > sum(int((v == 0).sum()) for v in dense.values())


def test_the_dense_plan_masks_nothing() -> None:
    net = make_net("residual")
    before = copy.deepcopy(net.state_dict())
    mask(net, PruningPlan.dense(graph_of("residual")))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@names
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_channels_stay_dead_while_training(name: str, optimizer: str) -> None:
    plan, net = uneven_plan(graph_of(name)), make_net(name)
    stepper = OPTIMIZERS[optimizer](net)
    for step in range(2):  # dense steps fill the optimiser's memory
        train_step(net, stepper, step, training=True)
    mask(net, plan, stepper)
    tensors = named_tensors(net)
    for axis in plan.graph.parameters:
        dead = dead_positions(tensors, axis, plan)
        for state in stepper.state.get(tensors[axis.parameter], {}).values():
            if state.shape == tensors[axis.parameter].shape:
                assert not state.index_select(axis.axis, dead).any()
    for step in range(2, 5):
        train_step(net, stepper, step, training=True)
        mask(net, plan, stepper)
        assert not any(values.any() for values in dead_values(net, plan))
    with torch.no_grad():
        assert all(torch.isfinite(out).all() for out in [*net.eval()(PICTURES)])


def test_a_missing_parameter_is_named() -> None:
    plan = uneven_plan(graph_of("residual"))
    with pytest.raises(GraphMismatchError, match=r"'stem\.0\.weight' is missing, expected 3 channels on axis 1"):
        mask(nn.Linear(3, 3), plan)
