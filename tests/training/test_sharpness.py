"""Sharpness-aware updates: the point they look at, the weights they leave, the places they end in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from halp_trt.errors import NonFiniteError
from halp_trt.training import sharpness
from halp_trt.training.updates import Update, get_update

RULES = ("sharpness", "adaptive-sharpness")


class Seen:
    """The gradients of a function of some weights, and where they were asked for."""

    def __init__(self, weights: list[nn.Parameter], loss: Callable[[], torch.Tensor]) -> None:
        self.weights, self.loss = weights, loss
        self.points: list[list[torch.Tensor]] = []

    def __call__(self) -> float:
        self.points.append([weight.detach().clone() for weight in self.weights])
        for weight in self.weights:
            weight.grad = None
        value = self.loss()
        value.backward()
        return float(value.detach())


@pytest.mark.parametrize("name", RULES)
def test_the_second_gradients_are_taken_uphill_and_the_step_from_where_the_weights_were(name: str) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3))
    seen = Seen([weight], lambda: (weight**4).sum())
    first = float((weight.detach() ** 4).sum())
    before = weight.detach().clone()
    optimizer = torch.optim.SGD([weight], 0.1)
    assert get_update(name)(optimizer, seen) == pytest.approx(first)
    (start, worse) = (points[0] for points in seen.points)
    assert torch.equal(start, before)
    assert float((worse**4).sum()) > first
    torch.testing.assert_close(weight.detach(), before - 0.1 * 4 * worse**3)


def test_the_uniform_rule_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[2.0, -1.0]]))
    seen = Seen([weight], lambda: (weight**2).sum() / 2)
    sharpness.uniform(torch.optim.SGD([weight], 0.0), seen)
    size = torch.tensor([[2.0, 1.0]]) + sharpness.ETA
    scaled = size * torch.tensor([[2.0, -1.0]])
    torch.testing.assert_close(
        seen.points[1][0] - seen.points[0][0], sharpness.RHO * size * scaled / scaled.norm(), rtol=1e-5, atol=1e-6
    )


def test_neurons_that_matter_less_are_moved_farther() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    radii = sharpness._radius(weight, 0.1, 1.0)
    assert radii.flatten().tolist() == pytest.approx([1.0, 0.55, 0.1])
    assert sharpness._radius(nn.Parameter(torch.ones(4, 2, 1, 1)), 0.1, 1.0).shape == (4, 1, 1, 1)
    assert float(sharpness._radius(nn.Parameter(torch.ones(5)), 0.2, 1.0)) == pytest.approx(0.6)


@pytest.mark.parametrize("name", RULES)
def test_a_fault_in_the_second_pass_leaves_the_weights_where_they_were(name: str) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer, calls = torch.optim.SGD([weight], 0.1), []

    def gradients() -> float:
        calls.append(weight.detach().clone())
        if len(calls) == 2:
            raise NonFiniteError("loss nan")
        weight.grad = torch.ones(2, 2)
        return 1.0

    with pytest.raises(NonFiniteError):
        get_update(name)(optimizer, gradients)
    assert not torch.equal(calls[1], calls[0])
    assert torch.equal(weight.detach(), calls[0])


@pytest.mark.parametrize("name", RULES)
def test_without_gradients_anywhere_it_is_a_plain_step(name: str) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    update: Update = get_update(name)
    assert update(torch.optim.SGD([weight], 0.1), lambda: 0.5) == 0.5
    assert torch.equal(weight.detach(), torch.ones(2, 2))


def test_it_leaves_a_sharp_valley_for_a_flat_one() -> None:
    """Two minima, a narrow one beside the start and a wide one: plain steps end in the first, these in the second."""

    def valleys(x: torch.Tensor) -> torch.Tensor:
        return (-torch.exp(-((x - 1.0) ** 2) / 0.002) - torch.exp(-((x - 2.0) ** 2) / 0.5)).sum()

    def ends(name: str) -> float:
        weight = nn.Parameter(torch.tensor([[1.02]]))
        seen = Seen([weight], lambda: valleys(weight))
        optimizer = torch.optim.SGD([weight], 0.002)
        for _ in range(2_000):
            get_update(name)(optimizer, seen)
        return float(weight.detach())

    assert ends("sgd") == pytest.approx(1.0, abs=0.02)
    assert ends("sharpness") > 1.5
