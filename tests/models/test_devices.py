"""Masking, slimming and widening work on other devices than the processor: no index stays behind on it.

There is no such device here: fake tensors on ``cuda:0`` check every operation's devices without computing anything, and
the ``lazy`` device, which is in every build of torch, computes.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._lazy import ts_backend
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from halp_trt.models.masks.hard import HARD
from halp_trt.models.slim import slim, slim_like
from halp_trt.models.trace import trace
from halp_trt.models.trial import half_plan
from halp_trt.models.widen import unslim
from halp_trt.models.zoo import ResidualNet
from halp_trt.specs import PruningPlan


@pytest.fixture(scope="module")
def plan() -> PruningPlan:
    return half_plan(trace(dense(), (torch.zeros(1, 1, 16, 16),)))


def dense() -> nn.Module:
    torch.manual_seed(0)
    return ResidualNet(widths=(8, 16), num_blocks=1, in_channels=1, num_classes=10).eval()


def fake(module: nn.Module, device: str) -> nn.Module:
    """The module with tensors of nothing, on another device."""
    for child in module.modules():
        for name, parameter in child._parameters.items():
            if parameter is not None:
                child._parameters[name] = nn.Parameter(torch.empty(parameter.shape, device=device))
        for name, buffer in child._buffers.items():
            child._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
    return module


def trained(module: nn.Module) -> torch.optim.Optimizer:
    """An optimiser with momentum for every parameter."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.fixture
def lazy() -> str:
    try:
        ts_backend.init()
    except RuntimeError as error:  # it may be there once in a process
        if "already" not in str(error):
            raise
    return "lazy"


@pytest.mark.slow
def test_every_index_lies_beside_its_tensor(plan: PruningPlan) -> None:
    """Of masking and slimming; fake tensors cannot be copied into, as widening does."""
    with FakeTensorMode(allow_non_fake_inputs=False):
        module = fake(dense(), "cuda:0")
        optimizer = trained(module)
        HARD.apply(module, plan, optimizer)
        HARD.after_update(module, plan, optimizer)
        slim(module, plan, optimizer)
        assert all(isinstance(p, FakeTensor) and p.device.type == "cuda" for p in module.parameters())
        whole = slim_like(fake(dense(), "cuda:0"), dict(module.state_dict()))
        assert {tensor.device.type for tensor in whole.state_dict().values()} == {"cuda"}


def test_another_device_computes_the_same(plan: PruningPlan, lazy: str) -> None:
    found = []
    for device in ("cpu", lazy):
        module = dense().to(device)
        whole, optimizer = copy.deepcopy(module), trained(module)
        HARD.apply(module, plan, optimizer)
        slim(module, plan, optimizer)
        unslim(whole, plan, dict(module.state_dict()))
        found.append(({name: t.cpu() for name, t in whole.state_dict().items()}, module))
    (here, _), (there, narrow) = found
    assert next(narrow.parameters()).device.type == "lazy"
    assert all(torch.equal(here[name], there[name]) for name in here)
