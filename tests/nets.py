"""The table of small networks that every graph test runs over: a new net is one line in ``NETS``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from halp_trt.graphs.export import export
from halp_trt.models.trace import trace
from halp_trt.specs import ChannelGraph
from halp_trt.store import load, save, write_bytes


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class Head(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(3, 12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.LeakyReLU(0.1), conv_bn(16, 8)
        )
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs)
        self.skip = conv_bn(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.b(torch.relu(self.a(x))) + self.skip(x))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.blocks = nn.Sequential(BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), BasicBlock(16, 16, 1))
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(torch.relu(self.stem(x))))


class BottleneckBlock(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(width, inner, 1), conv_bn(inner, inner), conv_bn(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.c(torch.relu(self.b(torch.relu(self.a(x))))), inplace=True)


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pool = conv_bn(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(BottleneckBlock(16, 6), BottleneckBlock(16, 10))
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.pool(torch.relu(self.stem(x)))))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.add = inputs == outputs and stride == 1
        self.body = nn.Sequential(
            conv_bn(inputs, hidden, 1), nn.ReLU6(), conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(),
            conv_bn(hidden, outputs, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.add else self.body(x)


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, 2)
        self.blocks = nn.Sequential(InvertedResidual(8, 16, 8, 1), InvertedResidual(8, 24, 12, 2))
        self.multiply = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.head = Head(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.multiply(self.blocks(self.stem(x)))))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.a, self.b, self.c = conv_bn(16, 24, 1), conv_bn(24, 12, 3, 1, 4), conv_bn(12, 16, 1)
        self.head = Head(16)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.stem(x))
        return self.head(torch.relu(x + self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], 1)


class DenseConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.Sequential(DenseLayer(8, 4), DenseLayer(12, 4), DenseLayer(16, 6))
        self.transition = nn.Sequential(nn.BatchNorm2d(22), nn.ReLU(), nn.Conv2d(22, 10, 1), nn.AvgPool2d(2))
        self.last, self.head = nn.Sequential(DenseLayer(10, 6), nn.BatchNorm2d(16)), Head(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.last(self.transition(self.layers(self.stem(x))))))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.one, self.three = conv_bn(8, 6, 1), nn.Sequential(conv_bn(8, 4, 1), nn.ReLU(), conv_bn(4, 8))
        self.five = nn.Sequential(conv_bn(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, (1, 5), padding=(0, 2)))
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(8, 4, 1))
        self.mix, self.residual, self.head = conv_bn(24, 12, 1), nn.Conv2d(8, 24, 1), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        joined = torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1) + self.residual(x)
        return self.head(torch.relu(self.mix(torch.relu(joined))))


class Split(nn.Module):
    """The C2f pattern of YOLOv8: halves of one convolution go different ways and are concatenated again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.mix, self.head = conv_bn(3, 16), conv_bn(8, 8), nn.Conv2d(24, 10, 1), Head(10)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.stem(x)).chunk(2, 1)
        return self.head(torch.relu(self.mix(torch.cat([left, right, torch.relu(self.inner(right))], 1))))


class SplitSizes(nn.Module):
    """A split with sizes written into ``forward``: those channels cannot be slimmed, the others can."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = (
            conv_bn(3, 12),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
            Head(8),
        )

    def forward(self, x: Tensor) -> Tensor:
        small, large = torch.split(torch.relu(self.stem(x)), [4, 8], dim=1)
        return self.head(torch.relu(self.a(small)) + self.b(large))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = conv_bn(3, 8), conv_bn(8, 16, 1)
        self.reduce, self.gate = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
        self.project, self.head = conv_bn(16, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardswish(self.stem(x))
        y = functional.silu(self.expand(x))
        scale = torch.sigmoid(self.gate(torch.relu(self.reduce(functional.adaptive_avg_pool2d(y, 1)))))
        return self.head(x + self.project(y * scale))


class LinearSqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 16)
        self.gate = nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 16), nn.Hardsigmoid())
        self.out, self.head = conv_bn(16, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.stem(x))
        n, c, _, _ = x.shape
        scale = self.gate(functional.adaptive_avg_pool2d(x, 1).view(n, c)).view(n, c, 1, 1)
        return self.head(self.out(x * scale.expand_as(x)))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(conv_bn(3, 8, 3, 2), nn.ReLU(), conv_bn(8, 16, 3, 2), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 12, 4, 2, 1), nn.BatchNorm2d(12), nn.PReLU(12))
        self.grouped = nn.ConvTranspose2d(12, 8, 2, 2, groups=2)
        self.out = nn.Conv2d(16, 2, 3, padding=1)
        self.side = conv_bn(3, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(self.up(self.down(x)))
        return self.out(torch.cat([functional.interpolate(y, scale_factor=1.0), self.side(x)], 1))


class FlattenHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(2), conv_bn(8, 12), nn.ELU())
        self.fc1, self.fc2 = nn.Linear(12 * 4 * 4, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(
            functional.dropout(torch.relu(self.fc1(torch.flatten(self.body(x), 1))), training=self.training)
        )


class WrittenFlatten(nn.Module):
    """The textbook LeNet habit ``view(-1, 8 * 8 * 8)``: that width is written into ``forward``."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = conv_bn(3, 10, 3, 2), nn.Conv2d(10, 8, 3, padding=1), nn.Linear(8 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.b(torch.relu(self.a(x)))).view(-1, 8 * 8 * 8))


class MultiOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = conv_bn(3, 8), conv_bn(8, 12, 3, 2)
        self.boxes, self.classes, self.features = nn.Conv2d(12, 4, 1), Head(12), nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.relu(self.stem(x))
        y = torch.relu(self.deep(x))
        return self.boxes(y).flatten(2).transpose(1, 2), self.classes(y), self.features(x)


class Shared(nn.Module):
    """One convolution used on two scales (RetinaNet's heads), each with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv_bn(3, 8, 3, 2), conv_bn(8, 8, 3, 2)
        self.tower, self.norm_a, self.norm_b = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.BatchNorm2d(12)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x))
        large, small = torch.relu(self.norm_a(self.tower(x))), torch.relu(self.norm_b(self.tower(y)))
        return self.head(large), self.head(small)


class Shuffle(nn.Module):
    """ShuffleNet's channel shuffle: reshape, transpose, reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = conv_bn(3, 12), conv_bn(12, 12, 1, 1, 3), conv_bn(12, 8, 3), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(torch.relu(self.stem(x))))
        n, c, h, w = x.shape
        return self.head(torch.relu(self.b(x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w))))


class LayerScale(nn.Module):
    """A per-channel parameter, group norm and channel arithmetic: what modern nets add around convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.norm, self.b = (
            nn.Conv2d(3, 8, 4, 4),
            nn.Conv2d(8, 16, 1),
            nn.GroupNorm(2, 16),
            nn.Conv2d(16, 8, 1),
        )
        self.gamma, self.c, self.head = nn.Parameter(torch.rand(8, 1, 1)), nn.Conv2d(8, 12, 3, padding=1), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = x + self.gamma * self.b(functional.gelu(self.norm(self.a(x))))
        return self.head(torch.relu(self.c(0.5 * y - 1.0)))


class ComputedSlices(nn.Module):
    """Halves by ``shape[1] // 2``, a repeated map, a reversed one: slices whose bounds move with the width."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = conv_bn(3, 12), nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.a, self.b, self.head = nn.Conv2d(8, 6, 1), nn.Conv2d(12, 8, 3), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        half = x.shape[1] // 2
        x = torch.relu(self.left(x[:, :half]) + self.right(x[:, half:]))
        return self.head(torch.relu(self.b(torch.sigmoid(self.a(x.flip(1))).repeat(1, 2, 1, 1))))


class UNet(nn.Module):
    """Bilinear upsampling, a skip that is concatenated, a map shifted round in space."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.up = conv_bn(3, 8), conv_bn(8, 16, 3, 2), nn.Conv2d(16, 6, 1)
        self.mix, self.out = conv_bn(14, 10), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        y = functional.interpolate(self.up(torch.relu(self.b(x))), scale_factor=2, mode="bilinear", align_corners=False)
        return self.out(torch.roll(torch.relu(self.mix(torch.cat([y, x], 1))), (1, 2), (2, 3)))


class Attention(nn.Module):
    """A transformer block with a relative position bias: its inner width can be pruned, its heads and norms not."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm, self.qkv, self.out = (
            nn.Conv2d(3, 16, 4, 4),
            nn.LayerNorm(16),
            nn.Linear(16, 48),
            nn.Linear(16, 16),
        )
        self.bias = nn.Parameter(torch.randn(7, 4))
        self.register_buffer("places", torch.randint(0, 7, (16, 16)))
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) * 0.5 + self.bias[self.places].permute(2, 0, 1)).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(n, t, c))
        return self.head((x + self.down(functional.gelu(self.up(x)))).mean(1))


Net = Callable[[], nn.Module]
NETS: dict[str, Net] = {
    "chain": Chain,
    "residual": Residual,
    "bottleneck": Bottleneck,
    "depthwise": Depthwise,
    "grouped": Grouped,
    "dense-concat": DenseConcat,
    "inception": Inception,
    "split": Split,
    "split-sizes": SplitSizes,
    "squeeze-excite": SqueezeExcite,
    "linear-squeeze-excite": LinearSqueezeExcite,
    "transposed": Transposed,
    "flatten-head": FlattenHead,
    "written-flatten": WrittenFlatten,
    "multi-output": MultiOutput,
    "shared": Shared,
    "shuffle": Shuffle,
    "layer-scale": LayerScale,
    "computed-slices": ComputedSlices,
    "u-net": UNet,
    "attention": Attention,
}
EXAMPLE_SHAPE = (1, 3, 16, 16)


def make_net(name: str, seed: int = 0) -> nn.Module:
    """The net with seeded weights and lively batch-norm statistics, in eval mode."""
    torch.manual_seed(seed)
    net = NETS[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


@cache
def traced(name: str) -> tuple[nn.Module, onnx.ModelProto, ChannelGraph]:
    """The net, its dense export and its graph, made once for all tests: not to be changed.

    One worker of a run exports it and the others read what it wrote.
    """
    net, shared = make_net(name), os.environ.get("HALP_TESTS_SHARED")
    if shared is None:
        return net, *_exported(net, name)
    model_path, graph_path = Path(shared, f"{name}.onnx"), Path(shared, f"{name}.json")
    with open(Path(shared, f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not graph_path.exists():
            model, graph = _exported(net, name)
            write_bytes(model_path, model.SerializeToString())
            save(graph, graph_path)
    graph = load(graph_path)
    assert isinstance(graph, ChannelGraph)
    return net, onnx.load(model_path), graph


def _exported(net: nn.Module, name: str) -> tuple[onnx.ModelProto, ChannelGraph]:
    example = (torch.zeros(EXAMPLE_SHAPE),)
    model = export(net, example)
    return model, trace(net, example, model=model, source=name)
