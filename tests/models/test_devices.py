"""Masking, slimming and widening work on other devices than the processor: no index stays behind on it.

There is no such device here: fake tensors on ``cuda:0`` check every operation's devices without computing anything, and
the ``lazy`` device, which is in every build of torch, computes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from halp_trt.errors import ModelError
from halp_trt.models.masks.hard import HARD, freeze_removed_batchnorms
from halp_trt.models.moving import check_runs, device_of, move
from halp_trt.models.slim import slim, slim_like
from halp_trt.models.trace import trace
from halp_trt.models.trial import can_slim, half_plan
from halp_trt.models.widen import unslim
from halp_trt.models.zoo import ResidualNet
from halp_trt.specs import PruningPlan
from tests.lazy import lazy_device

EXAMPLE = (torch.zeros(1, 1, 16, 16),)
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=0.1),
}


@pytest.fixture(scope="module")
def plan() -> PruningPlan:
    return half_plan(trace(dense(), EXAMPLE))


@pytest.fixture(scope="module")
def without_block(plan: PruningPlan) -> PruningPlan:
    """The plan without a residual block, whose inner channels are all gone."""
    cut = replace(plan, kept={**plan.kept, "stages.0.1.conv1": ()})
    assert cut.removed_blocks
    return cut


@pytest.fixture
def lazy() -> str:
    return lazy_device()


def dense() -> nn.Module:
    torch.manual_seed(0)
    return ResidualNet(widths=(8, 16), num_blocks=2, in_channels=1, num_classes=10).eval()


def fake(module: nn.Module, device: str) -> nn.Module:
    """The module with tensors of nothing, on another device."""
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                child._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=device))
        for name, buffer in child._buffers.items():
            child._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return module


def trained(module: nn.Module, kind: str = "sgd") -> torch.optim.Optimizer:
    """An optimiser with state for every parameter."""
    optimizer = OPTIMIZERS[kind](module)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def copied_beside(tensor: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Copying as far as a build without CUDA lets fake tensors do it."""
    assert (tensor.device, tensor.shape) == (source.device, source.shape)
    return tensor


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plan", "without_block"])
def test_every_index_lies_beside_its_tensor(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of masking, settling batch norms behind removed blocks, slimming and widening."""
    monkeypatch.setattr(torch.Tensor, "copy_", copied_beside)
    plan: PruningPlan = request.getfixturevalue(kind)
    with FakeTensorMode(allow_non_fake_inputs=False):
        module = fake(dense(), "cuda:0")
        optimizer = trained(module)
        HARD.apply(module, plan, optimizer)
        HARD.after_update(module, plan, optimizer)
        freeze_removed_batchnorms(module, plan)
        slim(module, plan, optimizer)
        assert all(isinstance(p, FakeTensor) and p.device.type == "cuda" for p in module.parameters())
        narrow = dict(module.state_dict())
        like = slim_like(fake(dense(), "cuda:0"), narrow)
        whole = unslim(fake(dense(), "cuda:0"), plan, narrow)
        for one in (like, whole):
            assert {tensor.device.type for tensor in one.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["plan", "without_block"])
def test_another_device_computes_the_same(kind: str, optimizer: str, lazy: str, request: pytest.FixtureRequest) -> None:
    plan: PruningPlan = request.getfixturevalue(kind)
    found = []
    for device in ("cpu", lazy):
        module = move(dense(), device)
        whole, steps = copy.deepcopy(module), trained(module, optimizer)
        HARD.apply(module, plan, steps)
        slim(module, plan, steps)
        unslim(whole, plan, dict(module.state_dict()))
        found.append(({name: t.cpu() for name, t in whole.state_dict().items()}, module, steps))
    (here, _, _), (there, narrow, held) = found
    assert device_of(narrow).type == "lazy"
    assert all(torch.equal(here[name], there[name]) for name in here)
    for parameter, state in held.state.items():
        assert {value.device.type for value in state.values() if value.shape == parameter.shape} == {"lazy"}


def test_weights_of_a_file_go_to_where_the_network_lies(plan: PruningPlan, lazy: str) -> None:
    narrow = slim(dense(), plan).state_dict()
    for filled in (unslim(move(dense(), lazy), plan, narrow), slim_like(move(dense(), lazy), narrow)):
        assert {tensor.device.type for tensor in filled.state_dict().values()} == {"lazy"}
    for name, tensor in filled.state_dict().items():
        assert torch.equal(tensor.cpu(), narrow[name]), name
    there = slim(move(dense(), lazy), plan).state_dict()
    for filled in (unslim(dense(), plan, there), slim_like(dense(), there)):
        assert {tensor.device.type for tensor in filled.state_dict().values()} == {"cpu"}


def test_whether_a_network_can_be_slimmed_is_found_beside_its_example(plan: PruningPlan, lazy: str) -> None:
    module = move(dense(), lazy)
    assert can_slim(module, EXAMPLE, plan)
    assert device_of(module).type == "lazy"


def test_tensors_that_layers_share_stay_shared_on_another_device(lazy: str) -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4))
    net[1].weight = net[0].weight
    net[3].running_mean = net[2].running_mean
    for device in (lazy, "cpu"):
        assert move(net, device) is net
        assert device_of(net) == net[1].weight.device
        assert net[1].weight.device.type == device
        assert net[1].weight is net[0].weight
        assert net[3].running_mean is net[2].running_mean
        assert net[1].bias is not net[0].bias


class Rigid(nn.Module):
    """Keeps a tensor that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shift = nn.Conv2d(1, 4, 3), torch.ones(1, 4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) + self.shift


def test_a_network_that_leaves_tensors_behind_is_refused_in_a_sentence(lazy: str) -> None:
    check_runs(move(dense(), lazy), EXAMPLE)
    check_runs(Rigid(), EXAMPLE)
    with pytest.raises(ModelError, match=r"does not run on lazy:0 \(.*\); register its tensors as parameters"):
        check_runs(move(Rigid(), lazy), EXAMPLE)
    assert device_of(nn.Flatten()) == torch.device("cpu")
