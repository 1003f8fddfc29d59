"""Nets with their graphs and plans, exported once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from halp_trt.models.reference import flatten
from halp_trt.specs import ChannelGraph
from tests.nets import EXAMPLE_SHAPE, traced

PICTURES = torch.randn((4, *EXAMPLE_SHAPE[1:]), generator=torch.Generator().manual_seed(3))
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adam": lambda net: torch.optim.Adam(net.parameters(), lr=1e-3),
}


def graph_of(name: str) -> ChannelGraph:
    """Its graph, traced once for all tests."""
    return traced(name)[2]


def train_step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    *,
    training: bool,
    pictures: torch.Tensor = PICTURES,
) -> None:
    """One step towards targets that follow from the step's number."""
    net.train(training)
    optimizer.zero_grad()
    for place, output in enumerate(flatten(net(pictures))):
        target = torch.randn(output.shape, generator=torch.Generator().manual_seed(100 * step + place))
        functional.mse_loss(output, target.to(output.dtype)).backward(retain_graph=True)
    optimizer.step()
