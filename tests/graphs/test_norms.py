"""Norms over groups of channels: whole norm groups can be removed, and the cut network equals the masked one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from halp_trt.graphs.probe import make_probe
from halp_trt.models.slim import slim
from halp_trt.models.trace import half_plan
from tests.graphs.masked import assert_cut_equals_masked, lively, prunable, traced

slow = pytest.mark.slow
Conv = nn.Conv2d


class ByHand(nn.Module):
    """A group norm written with a view, a mean and a variance."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), self.groups, -1)
        centred = rows - rows.mean(-1, keepdim=True)
        found = (centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
        return found * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class Block(nn.Module):
    """A residual block whose norms have six, four and three groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.start = Conv(3, 12, 3, padding=1), nn.GroupNorm(6, 12)
        self.a, self.norm_a = Conv(12, 8, 3, padding=1), nn.GroupNorm(4, 8)
        self.b, self.norm_b = Conv(8, 12, 3, padding=1), nn.GroupNorm(3, 12)
        self.out = Conv(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.start(self.stem(x)))
        y = x + self.norm_b(self.b(torch.sigmoid(self.norm_a(self.a(x)))))
        return torch.as_tensor(self.out(torch.relu(y)))


class Tower(nn.Module):
    """A detector's head: convolutions with group norms, shared by two scales, with a learned scale a level."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = Conv(3, 8, 3, 2, 1), Conv(8, 8, 3, 2, 1)
        self.tower = nn.Sequential(Conv(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(),
                                   Conv(16, 16, 3, padding=1), nn.GroupNorm(8, 16), nn.ReLU())  # fmt: skip
        self.boxes, self.scales = Conv(16, 4, 3, padding=1), nn.Parameter(torch.rand(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = torch.relu(self.fine(x))
        levels = [fine, torch.relu(self.coarse(fine))]
        return [self.boxes(self.tower(level)) * self.scales[i] for i, level in enumerate(levels)]


class Joined(nn.Module):
    """A group norm over two layers' channels: one of its groups has channels of both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm, self.out = Conv(3, 6, 3), Conv(3, 10, 3), nn.GroupNorm(4, 16), Conv(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.out(torch.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1)))))


def normed(norm: nn.Module, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(Conv(3, 12, 3), norm, act(), Conv(12, 4, 1))


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "group norm": (lambda: normed(nn.GroupNorm(4, 12), nn.Sigmoid), 4),
    "group norm without scales": (lambda: normed(nn.GroupNorm(4, 12, affine=False)), 4),
    "one channel a group": (lambda: normed(nn.GroupNorm(12, 12)), 12),
    "by hand": (lambda: normed(ByHand(4, 12)), 4),
    "instance norm": (lambda: normed(nn.InstanceNorm2d(12)), 12),
    "instance norm with scales": (lambda: normed(nn.InstanceNorm2d(12, affine=True), nn.Sigmoid), 12),
    "instance norm with statistics": (
        lambda: normed(nn.InstanceNorm2d(12, affine=True, track_running_stats=True), nn.Hardswish), 12,
    ),
    "instance norm with statistics alone": (lambda: normed(nn.InstanceNorm2d(12, track_running_stats=True)), 12),
    "tokens": (
        lambda: nn.Sequential(Conv(3, 12, 3), nn.Flatten(2), nn.GroupNorm(4, 12), nn.Conv1d(12, 3, 1)), 4,
    ),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 12), nn.GroupNorm(4, 12), nn.Linear(12, 3)), 4),
    "depthwise between": (
        lambda: nn.Sequential(Conv(3, 12, 3), nn.GroupNorm(6, 12), Conv(12, 12, 3, groups=12), nn.GroupNorm(3, 12),
                              Conv(12, 3, 1)), 3,
    ),
    "residual": (Block, 7),
    "tower": (Tower, 8 + 4 + 8),
    "joined": (Joined, 4),
}  # fmt: skip
QUICK = ("group norm", "instance norm with statistics")


def example() -> Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in NETS])
def test_whole_norm_groups_are_removed_exactly(name: str) -> None:
    torch.manual_seed(0)
    make, channels = NETS[name]
    graph = assert_cut_equals_masked(lively(make()), example())
    assert sum(prunable(graph).values()) == channels


@slow
def test_slimmed_modules_have_fewer_norm_groups() -> None:
    torch.manual_seed(0)
    net = lively(Block())
    _, graph = traced(net, example())
    slimmed: Any = slim(net, half_plan(graph))
    assert [(n.num_groups, n.num_channels) for n in (slimmed.start, slimmed.norm_a, slimmed.norm_b)] == [
        (4, 8), (2, 4), (2, 8),
    ]  # fmt: skip
    assert slimmed(example()).shape == (2, 4, 12, 12)


def test_layers_of_norms_can_be_probed_at_every_width() -> None:
    torch.manual_seed(0)
    _, graph = traced(normed(nn.GroupNorm(4, 12)).eval(), example())
    (layer,) = [layer for layer in graph.layers if layer.spec.operator == "InstanceNormalization"]
    for count in (4, 3, 1):
        probe = onnx.load_from_string(make_probe(layer.spec.with_widths(count, count), 2))
        (node,) = [n for n in probe.graph.node if n.op_type == "InstanceNormalization"]
        sizes = {tensor.name: list(tensor.dims) for tensor in probe.graph.initializer}
        assert [sizes[name] for name in node.input[1:]] == [[count], [count]]
