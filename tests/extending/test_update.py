"""A weight update registered from outside: a sharpness-aware step, two passes a step."""

from __future__ import annotations

import inspect

import pytest
import torch

from halp_trt.tasks import lesson_of
from halp_trt.tasks.data import load_data
from halp_trt.training.loop import train
from halp_trt.training.settings import TrainSettings
from halp_trt.training.updates import UPDATES
from tests.training.small import small_net


def sharpness_aware(optimizer, gradients):
    """Steps by the gradients at the worst point nearby (arXiv 2010.01412, algorithm 1, rho = 0.05)."""
    loss = gradients()
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    before = [weight.detach().clone() for weight in weights]
    norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
    with torch.no_grad():
        for weight in weights:
            weight += 0.05 * weight.grad / norm
    gradients()
    with torch.no_grad():
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    optimizer.step()
    return loss


def test_the_toy_is_small() -> None:
    assert len(inspect.getsource(sharpness_aware).splitlines()) <= 30


def test_an_update_of_two_passes_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPDATES, "sam", sharpness_aware)
    data, losses, weights = load_data("digits"), {}, {}
    for update in ("sgd", "sam"):
        seen: list[float] = []
        reads: list[int] = []
        module = small_net()
        how = TrainSettings(num_epochs=1, precision="fp32", update=update)
        train(
            module,
            lesson_of(data, how),
            after_backward=lambda reads=reads: reads.append(1),
            after_step=lambda _, loss, seen=seen: seen.append(loss),
        )
        assert len(reads) == len(seen) == 11, "gradients are read once a step, those at the weights as they are"
        losses[update], weights[update] = seen, module[6].weight.detach().clone()
    assert losses["sam"][0] == losses["sgd"][0], "the same batch, the same weights"
    assert losses["sam"][-1] < losses["sam"][0]
    assert not torch.equal(weights["sam"], weights["sgd"])
