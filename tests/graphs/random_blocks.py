"""Blocks out of which random networks are put together: each takes (1, channels, side, side) and says what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

Draw = Callable[[Any], Any]
"""Draws from a sequence."""


class Block(nn.Module):
    """A function of a tensor, with the layers that it uses."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module | nn.Parameter | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, nn.Module | nn.Parameter):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(c: int, draw: Draw) -> tuple[nn.Module, int]:
    out, size = draw((4, 6, 8, 12)), draw((1, 3))
    divisors = [g for g in (1, 2, c) if c % g == 0 and out % g == 0]
    return nn.Conv2d(c, out, size, padding=size // 2, groups=draw(divisors), bias=draw((True, False))), out


def depthwise(c: int, draw: Draw) -> tuple[nn.Module, int]:
    out = c * draw((1, 2))
    return nn.Conv2d(c, out, 3, padding=draw((1, 2)), dilation=1, groups=c), out


def transposed(c: int, draw: Draw) -> tuple[nn.Module, int]:
    out = draw((4, 8))
    return nn.ConvTranspose2d(c, out, 2, stride=draw((1, 2))), out


def parametrized(c: int, draw: Draw) -> tuple[nn.Module, int]:
    out, wrap = draw((4, 8)), draw((parametrizations.weight_norm, parametrizations.spectral_norm))
    return wrap(nn.Conv2d(c, out, 3, padding=1)), out


def standardised(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        weight = self.layer.weight
        weight = weight - weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-3), self.layer.bias, padding=1)

    out = draw((4, 8))
    return Block(apply, layer=nn.Conv2d(c, out, 3)), out


def norm(c: int, draw: Draw) -> tuple[nn.Module, int]:
    kinds = [
        nn.BatchNorm2d(c),
        nn.InstanceNorm2d(c, affine=True),
        nn.InstanceNorm2d(c, affine=True, track_running_stats=True),
        *[nn.GroupNorm(groups, c) for groups in (1, 2, c) if c % groups == 0],
    ]
    return draw(kinds), c


def layer_norm(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    return Block(apply, layer=nn.LayerNorm(c)), c


def counted(c: int, draw: Draw) -> tuple[nn.Module, int]:
    kinds: list[Callable[[Tensor], Tensor]] = [
        lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
        lambda x: x * torch.sigmoid(x.amax(1, keepdim=True) - x.amin(1, keepdim=True)),
        lambda x: x - 0.1 * x.sum(1, keepdim=True),
        lambda x: x / (x.square().mean((1, 2), keepdim=True) + 0.1).sqrt(),
        functional.normalize,
    ]
    kind = draw(kinds)
    return Block(lambda self, x: kind(x)), c


def frozen_norm(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        scale = self.weight * (self.variance + 1e-5).rsqrt()
        return x * scale.reshape(1, -1, 1, 1) + (self.shift - self.mean * scale).reshape(1, -1, 1, 1)

    tensors = {name: torch.rand(c) + 0.5 for name in ("weight", "variance", "shift", "mean")}
    return Block(apply, **tensors), c


def scaled(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        return (self.first - self.second) * x * torch.sigmoid(self.first * x)

    first, second = (nn.Parameter(torch.randn(1, c, 1, 1)) for _ in range(2))
    return Block(apply, first=first, second=second), c


def activation(c: int, draw: Draw) -> tuple[nn.Module, int]:
    plain = [nn.ReLU(), nn.SiLU(), nn.GELU(), nn.Sigmoid(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.Softplus()]
    return draw([*plain, nn.PReLU(c)]), c


def pool(c: int, draw: Draw) -> tuple[nn.Module, int]:
    return draw([nn.MaxPool2d(2), nn.AvgPool2d(3, 1, 1), nn.AdaptiveAvgPool2d(3), nn.Upsample(scale_factor=2)]), c


def residual(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        return torch.relu(x + self.out(torch.relu(self.inner(x))))

    inner = draw((4, 8))
    return Block(apply, inner=nn.Conv2d(c, inner, 3, padding=1), out=nn.Conv2d(inner, c, 1)), c


def branches(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.other(x), x], 1)

    one, other = draw((4, 6)), draw((2, 4))
    return Block(apply, one=nn.Conv2d(c, one, 1), other=nn.Conv2d(c, other, 3, padding=1)), one + other + c


def gated(c: int, draw: Draw) -> tuple[nn.Module, int]:
    sides, width = draw(("chunk", "written", "sliced")), draw((4, 6))

    def apply(self: Any, x: Tensor) -> Tensor:
        x = self.both(x)
        if sides == "chunk":
            a, b = x.chunk(2, 1)
        elif sides == "written":
            a, b = torch.split(x, width, 1)
        else:
            a, b = x[:, :width], x[:, width:]
        return a * torch.sigmoid(b)

    return Block(apply, both=nn.Conv2d(c, 2 * width, 1)), width


def squeezed(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3)))))).view(-1, c, 1, 1)

    return Block(apply, down=nn.Linear(c, 4), up=nn.Linear(4, c)), c


def shuffled(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    return (Block(apply), c) if c % 2 == 0 else (nn.Identity(), c)


def picked(c: int, draw: Draw) -> tuple[nn.Module, int]:
    kind, order = draw(("list", "reversed", "half")), [*range(1, c), 0]

    def apply(self: Any, x: Tensor) -> Tensor:
        return {"list": x[:, order], "reversed": x.flip(1), "half": x[:, : max(1, c // 2)]}[kind]

    return Block(apply), c if kind != "half" else max(1, c // 2)


def attention(c: int, draw: Draw) -> tuple[nn.Module, int]:
    def apply(self: Any, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).chunk(3, -1)
        mixed = torch.softmax(q @ k.transpose(1, 2) / 2.0, -1) @ v
        return self.out(mixed).transpose(1, 2).reshape(x.shape[0], c, *x.shape[2:])

    return Block(apply, qkv=nn.Linear(c, 24), out=nn.Linear(8, c)), c


def fenced(c: int, draw: Draw) -> tuple[nn.Module, int]:
    kind = draw(("cumsum", "einsum", "lstm", "sort", "grid", "gather"))

    def apply(self: Any, x: Tensor) -> Tensor:
        if kind == "cumsum":
            return torch.cumsum(x, 1)
        if kind == "einsum":
            return torch.einsum("nchw,cd->ndhw", x, self.matrix)
        if kind == "lstm":
            return x * self.rnn(x.mean(2).transpose(1, 2))[0].transpose(1, 2).unsqueeze(2)
        if kind == "sort":
            return torch.topk(x, c, 1)[0]
        if kind == "grid":
            return functional.grid_sample(x, self.grid, align_corners=False)
        return torch.gather(x, 1, self.index.expand(x.shape[0], -1, *x.shape[2:]))

    grid, index = torch.rand(1, 4, 4, 2) * 2 - 1, torch.arange(c).flip(0).reshape(1, c, 1, 1)
    return Block(apply, rnn=nn.LSTM(c, c, batch_first=True), matrix=torch.randn(c, c), grid=grid, index=index), c


BLOCKS = (
    conv, depthwise, transposed, parametrized, standardised, norm, layer_norm, counted, frozen_norm, scaled, activation,
    pool, residual, branches, gated, squeezed, shuffled, picked, attention, fenced,
)  # fmt: skip
"""Makers of blocks: each takes the channels that it reads and a way to draw, and gives a block and what it writes."""


class Bundle(nn.Module):
    """Networks side by side: one export of all takes a fraction of the time of as many exports."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(network(x) for network in self.networks)


class Network(nn.Module):
    """A stem, blocks, and a linear head behind a mean over positions."""

    def __init__(self, blocks: list[nn.Module], width: int, num_channels: int) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, width, 3, padding=1), nn.ModuleList(blocks)
        self.head = nn.Linear(num_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))
