"""Norms and reductions over channels count removed ones as zeros: the cut network equals the masked one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from halp_trt.graphs.norms import COUNT
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trace import half_plan
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import Layer
from tests.graphs.masked import assert_cut_equals_masked, lively, prunable, reasons, traced
from tests.graphs.test_norms import ByHand, Conv, example, normed

slow = pytest.mark.slow


class Call(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class ChannelsLast(nn.Module):
    """Layers on ``[N, H, W, C]``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Inverted(nn.Module):
    """A block as ConvNeXt's: depthwise convolution, norm, two products, a learned scale, a bypass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.scale = Conv(width, width, 3, padding=1, groups=width), nn.Parameter(torch.rand(width))
        self.rest = ChannelsLast(nn.LayerNorm(width), nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.rest(self.depthwise(x)) * self.scale[:, None, None]


class Responses(nn.Module):
    """A block as ConvNeXt V2's: norms of channels over positions, divided by their mean over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        energy = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + torch.addcmul(self.beta, self.gamma, x * (energy / (energy.mean(-1, keepdim=True) + 1e-6)))


class Encoder(nn.Module):
    """A vision transformer of one layer, with a class token and learned positions."""

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.patches = Conv(3, 16, 4, 4)
        token = torch.rand(1, 1, 16) + 0.5
        self.token = nn.Parameter(token) if learned else token
        self.positions = nn.Parameter(torch.rand(1, 10, 16))
        self.first, self.last = nn.LayerNorm(16), nn.LayerNorm(16)
        self.query, self.value, self.out = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))
        self.classes = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        y = self.first(x)
        x = x + self.out(torch.softmax(self.query(y) @ self.query(y).mT, -1) @ self.value(y))
        return torch.as_tensor(self.classes(self.last(x + self.mlp(x))[:, 0]))


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "last axis": (lambda: normed(ChannelsLast(nn.LayerNorm(12))), 12),
    "without scales": (lambda: normed(ChannelsLast(nn.LayerNorm(12, elementwise_affine=False)), nn.Sigmoid), 12),
    "without bias": (lambda: normed(ChannelsLast(nn.LayerNorm(12, bias=False))), 12),
    "after a batch norm": (lambda: normed(nn.Sequential(nn.BatchNorm2d(12), ChannelsLast(nn.LayerNorm(12)))), 12),
    "picture": (lambda: normed(nn.LayerNorm([12, 10, 10])), 12),
    "two in a row": (lambda: normed(ChannelsLast(nn.LayerNorm(12), nn.LayerNorm(12))), 12),
    "one group": (lambda: normed(nn.GroupNorm(1, 12)), 12),
    "one group without scales": (lambda: normed(nn.GroupNorm(1, 12, affine=False), nn.GELU), 12),
    "root mean square": (lambda: normed(ChannelsLast(nn.RMSNorm(12))), 12),
    "direction": (lambda: normed(Call(functional.normalize)), 12),
    "mean": (lambda: normed(Call(lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)))), 12),
    "mean of all": (lambda: normed(Call(lambda x: x * x.mean((1, 2, 3), keepdim=True))), 12),
    "sum": (lambda: normed(Call(lambda x: x - x.sum(1, keepdim=True) * 0.1)), 12),
    "sum of amounts": (lambda: normed(Call(lambda x: x / (1 + x.abs().sum(1, keepdim=True)))), 12),
    "most and least": (
        lambda: normed(Call(lambda x: x * torch.sigmoid(x.amax(1, keepdim=True) - 2 * x.amin(1, keepdim=True)))), 12,
    ),
    "tokens": (lambda: nn.Sequential(Conv(3, 12, 3), nn.Flatten(2), Call(lambda x: x.mT), nn.LayerNorm(12),
                                     nn.Linear(12, 4)), 12),
    "inverted": (lambda: nn.Sequential(Conv(3, 12, 3), Inverted(12), Inverted(12), Conv(12, 4, 1)), 12 + 20 + 20),
    "responses": (
        lambda: nn.Sequential(Conv(3, 12, 3), ChannelsLast(nn.Linear(12, 16), nn.GELU(), Responses(16),
                                                           nn.Linear(16, 4))), 12 + 16,
    ),
    "encoder": (Encoder, 16 + 8 + 8 + 24),
}  # fmt: skip
QUICK = ("last axis", "mean of all", "encoder")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in NETS])
def test_channels_behind_norms_are_removed_exactly(name: str) -> None:
    torch.manual_seed(0)
    make, channels = NETS[name]
    graph = assert_cut_equals_masked(lively(make()), example())
    assert sum(prunable(graph).values()) == channels


FROZEN: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "not zero before the norm": (lambda: normed(nn.Sequential(nn.Sigmoid(), ChannelsLast(nn.LayerNorm(12)))), 12),
    "one group by hand": (lambda: normed(ByHand(1, 12)), 12),
    "a token that no parameter holds": (lambda: Encoder(learned=False), 16),
    "shifted by a constant": (lambda: normed(nn.Sequential(Call(lambda x: x + 1), nn.GroupNorm(1, 12))), 12),
}


@pytest.mark.parametrize("name", [name if "zero" in name else pytest.param(name, marks=slow) for name in FROZEN])
def test_what_is_not_zero_before_a_sum_stays_and_says_so(name: str) -> None:
    torch.manual_seed(0)
    make, width = FROZEN[name]
    graph = assert_cut_equals_masked(lively(make()), example())
    assert width not in prunable(graph).values()
    assert "goes over it, and it is not zero there when it is removed" in reasons(graph)


def norm_layer(net: nn.Module, operator: str) -> Layer:
    _, graph = traced(net, example())
    (layer,) = [layer for layer in graph.layers if layer.spec.operator == operator]
    return layer


@pytest.mark.parametrize(
    ("make", "operator", "dense"),
    [
        (lambda: normed(ChannelsLast(nn.LayerNorm(12))), "LayerNormalization", 12),
        pytest.param(lambda: normed(nn.LayerNorm([12, 10, 10])), "LayerNormalization", 12, marks=slow),
        pytest.param(lambda: normed(nn.GroupNorm(1, 12)), "InstanceNormalization", 1200, marks=slow),
    ],
    ids=["last axis", "picture", "one group"],
)
def test_a_narrow_norm_is_probed_as_the_rewritten_graph_has_it(
    make: Callable[[], nn.Module], operator: str, dense: int
) -> None:
    torch.manual_seed(0)
    layer = norm_layer(make().eval(), operator)
    assert dict(layer.spec.attributes)[COUNT] == dense
    for share, wanted in ((1, [operator]), (3, ["Pad", operator, "Slice"])):
        width = dense // share
        probe = onnx.load_from_string(make_probe(layer.spec.with_widths(width, width), 2))
        assert [node.op_type for node in probe.graph.node if not node.name.startswith("halp_")] == wanted
        session = onnxruntime.InferenceSession(probe.SerializeToString())
        shapes = {one.name: one.shape for one in session.get_inputs()}
        outputs = session.run(None, random_inputs(shapes))
        assert outputs[0].size == 2 * width * (1 if dense == 1200 else 100)


def test_the_rewritten_norm_has_its_zeros_under_the_norms_own_name() -> None:
    torch.manual_seed(0)
    model, graph = traced(normed(ChannelsLast(nn.LayerNorm(12))).eval(), example())
    (layer,) = [layer for layer in graph.layers if layer.spec.operator == "LayerNormalization"]
    cut = rewrite(model, half_plan(graph))
    names = [node.name for node in cut.graph.node if node.name.startswith(layer.name)]
    assert names == [f"{layer.name}/padded", layer.name, f"{layer.name}/kept"]


def test_elementwise_layers_on_other_axes_are_priced_by_their_channels() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Conv(3, 8, 3), ChannelsLast(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 4)))
    _, graph = traced(net.eval(), example())
    (layer,) = [layer for layer in graph.layers if layer.spec.operator == "Gelu" or "Erf" in layer.spec.operator][:1]
    assert layer.in_groups == layer.out_groups != ()
    assert (layer.spec.in_channels, layer.spec.in_size) == (12, (10, 10))
    probe = onnx.load_from_string(make_probe(layer.spec.with_widths(5, 5), 2))
    (given,) = [value for value in probe.graph.input if "marker" not in value.name]
    assert [n.dim_value for n in given.type.tensor_type.shape.dim] == [2, 10, 10, 5]
    assert np.prod(layer.spec.with_widths(5, 5).in_size) == 100
