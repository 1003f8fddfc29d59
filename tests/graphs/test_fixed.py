"""Expressions of parameters: their channels can be pruned, and the cut network equals the masked one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from halp_trt.graphs.execute import execute
from halp_trt.graphs.fixed import settle
from halp_trt.graphs.labels import Labels
from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.saliency.weight_norms import magnitude
from halp_trt.specs import PruningPlan
from tests.graphs.drawing import draw, numbers
from tests.graphs.masked import assert_cut_equals_masked, assert_cut_equals_masked_for, prunable, reasons, traced

slow = pytest.mark.slow
Conv = nn.Conv2d


def parameter(*sizes: int, low: float = -1.0) -> nn.Parameter:
    return nn.Parameter(torch.empty(*sizes).uniform_(low, 1.5))


class Written(nn.Module):
    """A network whose ``forward`` is given, with its modules, parameters and buffers."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **parts: object) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Frozen(nn.Module):
    """A batch norm that is never trained: all four of its tensors are buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        scale = self.weight.reshape(shape) * (self.running_var.reshape(shape) + 1e-5).rsqrt()
        return x * scale + (self.bias.reshape(shape) - self.running_mean.reshape(shape) * scale)


class Standardised(Conv):
    """Weight standardisation by the deviation of each filter."""

    def forward(self, x: Tensor) -> Tensor:
        filters = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        filters = filters / (filters.std((1, 2, 3), keepdim=True) + 1e-5)
        return functional.conv2d(x, filters, self.bias, self.stride, self.padding, self.dilation, self.groups)


class HandNormalised(Conv):
    """Filters divided by a root written by hand, whose gradient at zero is NaN."""

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight.pow(2).sum((1, 2, 3), keepdim=True).sqrt() + 1e-4
        return functional.conv2d(x, self.weight / norm, self.bias)


class Residual(nn.Module):
    def __init__(self, wrap: Callable[[Any], nn.Module]) -> None:
        super().__init__()
        self.stem, self.a = Conv(3, 12, 3, padding=1), wrap(Conv(12, 8, 3, padding=1))
        self.b, self.out = wrap(Conv(8, 12, 3, padding=1)), Conv(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return torch.as_tensor(self.out(torch.relu(x + self.b(torch.relu(self.a(x))))))


def chain(wrap: Callable[[Any], nn.Module], act: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(wrap(Conv(3, 12, 3)), act(), wrap(Conv(12, 10, 3)), act(), Conv(10, 4, 1))


def acon(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    scaled = (net.p - net.q) * y
    return net.b(scaled * torch.sigmoid(net.beta * scaled) + net.q * y)


def generalised_mean(net: Any, x: Tensor) -> Any:
    powers = net.a(x).clamp(min=1e-6).pow(net.p)
    return net.out(functional.avg_pool2d(powers, 10).pow(1 / net.p).flatten(1))


def left(net: Any, x: Tensor) -> Any:
    return net.out((net.w @ torch.relu(net.a(x)).flatten(2)).unflatten(2, (10, 10)))


def tokens(net: Any, x: Tensor) -> Any:
    found = net.patch(x).flatten(2).transpose(1, 2)
    found = torch.cat([net.start.expand(len(x), -1, -1), found], 1) + net.places[:, 1:]
    return net.out(functional.gelu(net.up(found)))


def joined_bias(net: Any, x: Tensor) -> Any:
    bias = torch.cat([net.q, net.zeros, net.v])
    return net.out(torch.relu(functional.linear(net.a(x).mean((2, 3)), net.w, bias)))


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "frozen batch norm": (
        lambda: nn.Sequential(Conv(3, 12, 3, bias=False), Frozen(12), nn.ReLU(), Conv(12, 4, 1), Frozen(4)), 12,
    ),
    "weight norm": (lambda: chain(parametrizations.weight_norm), 22),
    "old weight norm": (lambda: chain(nn.utils.weight_norm), 22),
    "weight norm in a residual block": (lambda: Residual(parametrizations.weight_norm), 20),
    "weight norm over inputs": (
        lambda: chain(lambda conv: parametrizations.weight_norm(conv, dim=1)), 20,
    ),
    "weight norm, grouped": (
        lambda: nn.Sequential(Conv(3, 8, 3), nn.ReLU(), parametrizations.weight_norm(Conv(8, 12, 3, groups=2)),
                              parametrizations.weight_norm(Conv(12, 12, 3, groups=12)), Conv(12, 2, 1)), 10,
    ),
    "spectral norm": (lambda: chain(parametrizations.spectral_norm), 20),
    "old spectral norm": (lambda: chain(nn.utils.spectral_norm, nn.Tanh), 20),
    "standardised": (lambda: nn.Sequential(Standardised(3, 12, 3), nn.ReLU(), Standardised(12, 10, 3), nn.GELU(),
                                           Standardised(10, 10, 3, groups=10), nn.SiLU(), Conv(10, 4, 1)), 22),
    "acon": (
        lambda: Written(acon, a=Conv(3, 8, 3), b=Conv(8, 4, 1), p=parameter(1, 8, 1, 1), q=parameter(1, 8, 1, 1),
                        beta=parameter(1, 8, 1, 1)), 8,
    ),
    "generalised mean": (
        lambda: Written(generalised_mean, a=Conv(3, 8, 3), p=nn.Parameter(torch.full((1,), 3.0)), out=nn.Linear(8, 3)),
        8,
    ),
    "generalised mean a channel": (
        lambda: Written(generalised_mean, a=Conv(3, 8, 3), p=parameter(8, 1, 1, low=0.5), out=nn.Linear(8, 3)), 8,
    ),
    "normalised hidden layer": (
        lambda: Written(lambda net, x: functional.linear(functional.relu(functional.linear(
            functional.relu(net.a(x)).mean((2, 3)), functional.normalize(net.w))), net.v),
            a=Conv(3, 8, 3), w=parameter(6, 8), v=parameter(3, 6)), 14,
    ),
    "weight on the left": (lambda: Written(left, a=Conv(3, 8, 3), w=parameter(6, 8), out=Conv(6, 3, 1)), 14),
    "stack on the left": (lambda: Written(left, a=Conv(3, 8, 3), w=parameter(1, 6, 8), out=Conv(6, 3, 1)), 14),
    "vector": (lambda: Written(lambda net, x: torch.relu(net.a(x)).mean((2, 3)) @ net.w, a=Conv(3, 8, 3),
                               w=parameter(8)), 8),
    "tokens and places": (
        lambda: Written(tokens, patch=Conv(3, 8, 4, 4), start=parameter(1, 1, 8), places=parameter(1, 11, 8),
                        up=nn.Linear(8, 10), out=nn.Linear(10, 3)), 18,
    ),
    "joined bias": (
        lambda: Written(joined_bias, a=Conv(3, 8, 3), w=parameter(12, 8), q=parameter(4), zeros=torch.zeros(4),
                        v=parameter(4), out=nn.Linear(12, 3)), 20,
    ),
    "slices of one weight": (
        lambda: Written(lambda net, x: net.a(torch.relu(functional.conv2d(x, net.w[:10])))
                        + net.b(torch.relu(functional.conv2d(x, net.w[6:]))),
                        w=parameter(16, 3, 3, 3), a=Conv(10, 3, 1), b=Conv(10, 3, 1)), 16,
    ),
    "joined weights": (
        lambda: Written(lambda net, x: net.out(torch.relu(functional.conv2d(x, torch.cat([net.v, net.w])))),
                        w=parameter(6, 3, 3, 3), v=parameter(4, 3, 3, 3), out=Conv(10, 3, 1)), 10,
    ),
    "product of two weights": (
        lambda: Written(lambda net, x: net.out(torch.relu(functional.linear(net.a(x).mean((2, 3)), net.u @ net.v))),
                        a=Conv(3, 8, 3), u=parameter(12, 2), v=parameter(2, 8), out=nn.Linear(12, 3)), 20,
    ),
    "divided by a parameter": (
        lambda: Written(lambda net, x: net.b(net.a(x) / net.g), a=Conv(3, 8, 3), g=parameter(8, 1, 1, low=1.0),
                        b=Conv(8, 3, 1)), 8,
    ),
    "one more than a parameter": (
        lambda: Written(lambda net, x: net.b(torch.sigmoid(net.a(x) * (1 + net.g))), a=Conv(3, 8, 3),
                        g=parameter(8, 1, 1), b=Conv(8, 3, 1)), 8,
    ),
    "one filter for all": (
        lambda: Written(lambda net, x: net.b(functional.conv2d(net.a(x), net.k.expand(8, 1, 3, 3), groups=8)),
                        a=Conv(3, 8, 3), k=torch.rand(1, 1, 3, 3), b=Conv(8, 3, 1)), 8,
    ),
    "filters that sum to one": (
        lambda: Written(lambda net, x: net.b(functional.conv2d(torch.relu(net.a(x)), net.w.softmax(1))),
                        a=Conv(3, 8, 3), w=parameter(6, 8, 1, 1), b=Conv(6, 3, 1)), 14,
    ),
    "a shared layer with weight norm": (
        lambda: Written(lambda net, x: (net.out(torch.relu(net.t(net.a(x)))), net.out(torch.relu(net.t(net.b(x))))),
                        a=Conv(3, 8, 3), b=Conv(3, 8, 3), t=parametrizations.weight_norm(Conv(8, 10, 3)),
                        out=Conv(10, 2, 1)), 18,
    ),
}  # fmt: skip
QUICK = ("frozen batch norm", "weight norm", "acon", "weight on the left")


def example() -> Tensor:
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=slow) for name in NETS])
def test_expressions_of_parameters_are_pruned_exactly(name: str) -> None:
    torch.manual_seed(0)
    make, channels = NETS[name]
    net = make().eval()
    graph = assert_cut_equals_masked(net, example())
    assert sum(prunable(graph).values()) == channels
    assert all(min(scores) >= 0 < max(scores) for scores in magnitude(net, graph).scores.values())


@slow
@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, lambda conv: Standardised(conv.in_channels, conv.out_channels, 3)]
)
def test_a_channel_that_is_not_zero_before_a_weight_of_all_channels_stays(
    wrap: Callable[[Any], nn.Module],
) -> None:
    torch.manual_seed(0)
    graph = assert_cut_equals_masked(chain(wrap, nn.Sigmoid).eval(), example())
    assert list(prunable(graph).values()) == [10], "the plain convolution's weights are masked themselves"
    assert "computes its weights from all channels, and this one is never zero before it" in reasons(graph)


@slow
def test_a_root_without_a_finite_gradient_keeps_its_weights() -> None:
    torch.manual_seed(0)
    graph = assert_cut_equals_masked(
        chain(lambda conv: HandNormalised(conv.in_channels, conv.out_channels, 3)).eval(), example()
    )
    written = {axis.parameter for axis in graph.parameters if axis.axis == 0 and axis.parameter.endswith("weight")}
    assert written == {"4.weight"}
    assert list(prunable(graph).values()) == [10]


@slow
def test_a_whole_block_of_weight_norms_can_go() -> None:
    torch.manual_seed(0)
    net = Residual(parametrizations.weight_norm).eval()
    model, graph = traced(net, example())
    inner = next(name for name, count in prunable(graph).items() if count == 8)
    kept = {**PruningPlan.dense(graph).kept, inner: ()}
    assert_cut_equals_masked_for(net, model, PruningPlan(graph=graph, kept=kept), example())


@slow
def test_where_weights_are_divided_by_the_norm_of_all_one_channel_stays() -> None:
    torch.manual_seed(0)
    _, graph = traced(Residual(parametrizations.spectral_norm).eval(), example())
    alone = [group for group in graph.groups if "one channel has to stay" in group.reason]
    assert [group.num_channels for group in alone] == [1, 1]


def test_expressions_are_computed_before_an_engine_is_built() -> None:
    torch.manual_seed(0)
    model, graph = traced(chain(parametrizations.weight_norm).eval(), example())
    rewritten = rewrite(model, PruningPlan.dense(graph))
    assert [node.op_type for node in rewritten.graph.node] == ["Conv", "Relu", "Conv", "Relu", "Conv"]


def test_positions_that_no_slice_meets_have_a_fixed_width() -> None:
    labels = Labels()
    ids = labels.fresh(3)
    labels.partial[("table", 0)] = np.array([-1, ids[0], ids[1], ids[2], -1])
    settle(labels)
    found = labels.get("table", 0)
    assert found is not None
    assert [bool(labels.frozen_reason(int(i))) for i in found] == [True, False, False, False, True]


@pytest.mark.parametrize("kind", ["conv", "grouped", "transposed", "linear"])
def test_constants_of_the_channels_become_part_of_the_layer_before(kind: str) -> None:
    constants = {
        "conv": {"w": numbers(8, 4, 1, 1)}, "grouped": {"w": numbers(8, 2, 1, 1)},
        "transposed": {"w": numbers(4, 4, 1, 1)}, "linear": {"w": numbers(8, 4)},
    }[kind] | {"b": numbers(8, seed=1)}  # fmt: skip
    sizes = (1, 8) if kind == "linear" else (1, 8, 1, 1)
    constants |= {"k": numbers(*sizes, seed=2), "s": numbers(*sizes, seed=3), "half": numbers()}
    operator = {"linear": "Gemm", "transposed": "ConvTranspose"}.get(kind, "Conv")
    attributes: dict[str, Any] = {"linear": {"transB": 1}, "conv": {}}.get(kind, {"group": 2})
    nodes = [
        helper.make_node(operator, ["x", "w", "b"], ["y"], "y", **attributes),
        helper.make_node("Mul", ["y", "k"], ["mul"]), helper.make_node("Add", ["s", "mul"], ["add"]),
        helper.make_node("Mul", ["half", "add"], ["z"]), helper.make_node("Relu", ["z"], ["r"]),
    ]  # fmt: skip
    model = draw(nodes, constants, inputs={"x": (2, 4) if kind == "linear" else (2, 4, 3, 3)}, outputs=["r"])
    graph = channel_graph(model, set(constants))
    assert [layer.nodes for layer in graph.layers] == [("y", "mul", "add", "z", "r")]
    rewritten = rewrite(model, PruningPlan.dense(graph))
    assert [node.op_type for node in rewritten.graph.node] == [operator, "Relu"]
    x = {"x": numbers(*((2, 4) if kind == "linear" else (2, 4, 3, 3)), seed=5)}
    np.testing.assert_allclose(execute(rewritten, x)["r"], execute(model, x)["r"], atol=1e-5)


@slow
def test_a_whole_block_with_frozen_batch_norms_can_go() -> None:
    torch.manual_seed(0)
    net = Residual(lambda conv: nn.Sequential(conv, Frozen(conv.out_channels))).eval()
    model, graph = traced(net, example())
    inner = next(name for name, count in prunable(graph).items() if count == 8)
    kept = {**PruningPlan.dense(graph).kept, inner: ()}
    assert_cut_equals_masked_for(net, model, PruningPlan(graph=graph, kept=kept), example())
