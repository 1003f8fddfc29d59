"""An export computes what its module does, also where PyTorch's exporter would write another network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from halp_trt.errors import ModelError
from halp_trt.graphs.execute import execute
from halp_trt.graphs.export import export
from halp_trt.models.export_check import check_export
from halp_trt.models.reference import flatten

PICTURE = (1, 3, 8, 8)


def agrees(net: nn.Module, *shapes: Sequence[int]) -> onnx.ModelProto:
    """The export, whose outputs equal the module's for random inputs."""
    torch.manual_seed(0)
    inputs = [torch.randn(*shape) for shape in shapes]
    model = export(net.eval(), [torch.zeros(*shape) for shape in shapes])
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        expected = [x.numpy() for x in flatten(net(*(x.clone() for x in inputs)))]
    found = execute(model, dict(zip((i.name for i in model.graph.input), (x.numpy() for x in inputs), strict=True)))
    assert len(found) == len(expected)
    for one, other in zip(expected, found.values(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
    return model


def inputs_of(model: onnx.ModelProto) -> list[str]:
    return [given.name for given in model.graph.input]


def outputs_of(model: onnx.ModelProto) -> list[str]:
    return [output.name for output in model.graph.output]


class Convolution(nn.Module):
    """A convolution that other networks here use."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3)


# ---- names ----------------------------------------------------------------------------------------------------------


class Masked(Convolution):
    """A buffer is called like an argument and has its shape."""

    def __init__(self, *, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("mask", torch.rand(1, 1, 6, 6), persistent=persistent)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return torch.relu(self.a(x)) * self.mask + mask


class ScaledInput(Convolution):
    """A parameter is called like the only argument; another one like the name that the argument would get."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.input_x = nn.Parameter(torch.rand(3, 1, 1)), nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x * self.x + self.input_x)


class Inner(Convolution):
    """Buffers and parameters are called like the results of nodes."""

    NAMES = ("conv2d", "relu", "mul", "mean", "val_0", "add_1")

    def __init__(self) -> None:
        super().__init__()
        for i, name in enumerate(self.NAMES):
            value = torch.rand(1, 4, 1, 1)
            if i % 2:
                self.register_buffer(name, value)
            else:
                setattr(self, name, nn.Parameter(value))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x)) * self.mul + self.relu * self.conv2d + self.add_1
        return y.mean((2, 3), keepdim=True) * self.mean + self.val_0


class NumberedArguments(Convolution):
    """Arguments are called like what the exporter calls its own constants."""

    def forward(self, val_0: Tensor, val_1: Tensor) -> Tensor:
        return torch.relu(self.a(val_0)).mean((2, 3)) + val_1


@pytest.mark.parametrize("persistent", [True, False])
def test_an_argument_called_like_a_buffer_gets_another_name(persistent: bool) -> None:
    net = Masked(persistent=persistent)
    model = agrees(net, PICTURE, (1, 1, 6, 6))
    assert inputs_of(model) == ["x", "input_mask"]
    held = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    np.testing.assert_array_equal(held["mask"], net.mask.numpy())
    assert inputs_of(export(net, (torch.ones(PICTURE), torch.ones(1, 1, 6, 6)))) == ["x", "input_mask"], "each time"


def test_an_input_is_called_like_nothing_else() -> None:
    model = agrees(ScaledInput(), PICTURE)
    assert inputs_of(model) == ["input_x_2"]
    assert {"x", "input_x"} <= {i.name for i in model.graph.initializer}


def test_results_of_nodes_called_like_parameters_get_other_names() -> None:
    model = agrees(Inner(), PICTURE)
    assert set(Inner.NAMES) <= {i.name for i in model.graph.initializer}
    written = [name for node in model.graph.node for name in node.output]
    assert not set(written) & set(Inner.NAMES)
    assert len(set(written)) == len(written)


def test_arguments_may_be_called_like_the_exporters_constants() -> None:
    assert inputs_of(agrees(NumberedArguments(), PICTURE, (1, 4))) == ["val_0", "val_1"]


class Layered(nn.Module):
    """Buffers, a constant and parameters of layers are called like the exporter's own names for each other."""

    NAMES = ("b_mean", "mean", "p_b_mean", "p_a_weight", "p_network_weight", "b_p_a_weight", "c_extra")

    def __init__(self) -> None:
        super().__init__()
        for i, name in enumerate(self.NAMES):
            value = torch.rand(4, 1, 1) + i
            if i % 2:
                self.register_buffer(name, value, persistent=i % 3 == 0)
            elif name == "c_extra":
                setattr(self, name, value)
            else:
                setattr(self, name, nn.Parameter(value))
        self.a, self.network = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1, bias=False)
        self.network.register_module("network", nn.BatchNorm2d(4))
        self.extra = torch.rand(4, 1, 1)

    def forward(self, picture: Tensor, b_picture: Tensor) -> Tensor:
        y = self.network(torch.relu(self.a(picture))) * self.extra
        for i, name in enumerate(self.NAMES):
            y = y * getattr(self, name) if i % 2 else y + getattr(self, name)
        return self.network.get_submodule("network")(y) + b_picture


@pytest.mark.parametrize("order", [("p_scale", "scale"), ("scale", "p_scale"), ("p_p_scale", "p_scale", "scale")])
def test_parameters_that_the_exporter_confuses_are_told_apart(order: tuple[str, ...]) -> None:
    class Confusing(Convolution):
        def __init__(self) -> None:
            super().__init__()
            for i, name in enumerate(order):
                setattr(self, name, nn.Parameter(torch.rand(4, 1, 1) + 3 * i))

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * getattr(self, order[0]) + getattr(self, order[1]) - getattr(self, order[-1])

    net = Confusing()
    model = agrees(net, PICTURE)
    held = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert {name: held[name].max() for name in order} == {name: getattr(net, name).max() for name in order}
    assert [node.name for node in model.graph.node if node.op_type == "Conv"] == ["a"]
    assert inputs_of(model) == ["x"]
    check_export(net, (torch.ones(PICTURE),), model)


def test_buffers_and_layers_that_the_exporter_confuses_are_told_apart() -> None:
    net = Layered()
    model = agrees(net, PICTURE, (1, 4, 6, 6))
    assert set(net.state_dict()) - {i.name for i in model.graph.initializer} == {"network.network.num_batches_tracked"}
    assert [node.name for node in model.graph.node if node.op_type == "Conv"] == ["a", "network"]
    assert [node.name for node in model.graph.node if node.op_type == "BatchNormalization"] == ["network.network"]
    assert inputs_of(model) == ["picture", "b_picture"]


# ---- pools ----------------------------------------------------------------------------------------------------------


class Pools(nn.Module):
    """One output for each pool, all of one input."""

    def __init__(self, pools: Sequence[nn.Module | Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.pools = pools

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(pool(x + i) for i, pool in enumerate(self.pools))


def test_average_pools_divide_by_their_divisor() -> None:
    pools = [
        nn.AvgPool2d(3, stride, padding, ceil, counted, divisor)
        for stride in (1, 2, 3)
        for padding in (0, 1)
        for ceil in (False, True)
        for counted in (False, True)
        for divisor in (1, 5)
    ]
    agrees(Pools(pools), (2, 3, 11, 10))


def test_divisors_of_other_forms_of_pools_count_as_well() -> None:
    pools = [
        nn.AvgPool2d((3, 2), divisor_override=7),
        lambda x: functional.avg_pool2d(x, 3, 2, ceil_mode=True, divisor_override=-2),
        lambda x: functional.avg_pool2d(x[0], 3, divisor_override=4),
        lambda x: functional.avg_pool2d(x, 11, divisor_override=1),
    ]
    model = agrees(Pools(pools), (1, 3, 11, 12))
    assert [n.op_type for n in model.graph.node].count("Mul") == 4


def test_volumes_are_divided_as_well() -> None:
    pools = [nn.AvgPool3d((3, 2, 3), 2, 1, ceil, divisor_override=4) for ceil in (False, True)]
    agrees(Pools(pools), (1, 2, 7, 7, 8))


def test_windows_that_begin_in_the_padding_are_left_out() -> None:
    pools = [
        *(nn.AvgPool2d(3, 3, 1, True, counted) for counted in (False, True)),
        nn.MaxPool2d(3, 3, 1, ceil_mode=True),
        nn.MaxPool2d(2, 3, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
    ]
    model = agrees(Pools(pools), (1, 3, 11, 10))
    assert not [n.name for n in model.graph.node if n.op_type == "Mul"]


def test_pools_along_one_axis_keep_their_windows() -> None:
    agrees(Pools([nn.AvgPool1d(3, 3, 1, True), nn.MaxPool1d(3, 2, 1, 1, False, True)]), (1, 3, 11))


# ---- biases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Conv1d(2, 6, 3, bias=False), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 1, groups=2, bias=False)], (1, 2, 9)),
        (
            [nn.Conv3d(2, 6, 3, bias=False), nn.BatchNorm3d(6), nn.Conv3d(6, 4, 1, groups=2, bias=False)],
            (1, 2, 5, 5, 5),
        ),
        ([nn.Conv3d(2, 2, 3, bias=False), nn.Conv3d(2, 1, 1, bias=False)], (1, 2, 5, 5, 5)),
        ([nn.ConvTranspose3d(2, 6, 2, bias=False), nn.ConvTranspose3d(6, 4, 2, groups=2, bias=False)], (1, 2, 3, 3, 3)),
        ([nn.utils.parametrizations.weight_norm(nn.Conv3d(2, 4, 2, bias=False))], (1, 2, 3, 3, 3)),
    ],
    ids=["1d", "3d", "3d-narrow", "3d-transposed", "3d-weight-norm"],
)
def test_convolutions_without_a_bias_get_none_of_another_shape(layers: list[nn.Module], shape: Sequence[int]) -> None:
    model = agrees(nn.Sequential(*layers), shape)
    sizes = {i.name: tuple(i.dims) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 2:
            assert len(sizes[node.input[2]]) == 1


# ---- outputs --------------------------------------------------------------------------------------------------------


class Returning(Convolution):
    """Returns whatever a function makes of its input and its features."""

    def __init__(self, make: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.scale, self.make = nn.Parameter(torch.rand(4)), make

    def forward(self, x: Tensor) -> object:
        return self.make(x, torch.relu(self.a(x)), self.scale)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x, y, s: (y, y), ["relu", "relu_output"]),
        (lambda x, y, s: {"a": y, "b": [y, (y,)]}, ["relu", "relu_output", "relu_output_2"]),
        (lambda x, y, s: (x, y, x), ["x_output", "relu", "x_output_2"]),
        (lambda x, y, s: (y, x.view(1, -1), y.flatten(1), y.view(y.shape)), None),
        (lambda x, y, s: (y, s), ["relu", "scale_output"]),
        (lambda x, y, s: (y, torch.ones(2)), ["relu", "ones_output"]),
        (lambda x, y, s: (x.add_(1), x, y), None),
    ],
    ids=["twice", "nested", "input", "views", "parameter", "constant", "in-place"],
)
def test_every_output_has_a_tensor_of_its_own(make: Callable[..., object], names: list[str] | None) -> None:
    model = agrees(Returning(make), PICTURE)
    assert len(set(outputs_of(model))) == len(outputs_of(model))
    assert not set(outputs_of(model)) & set(inputs_of(model))
    assert names is None or outputs_of(model) == names


@pytest.mark.parametrize(("value", "kind"), [(3, "int"), ("text", "str")])
def test_outputs_that_are_no_tensors_are_named(value: object, kind: str) -> None:
    with pytest.raises(ModelError, match=f"forward must return tensors alone, not {kind}"):
        export(Returning(lambda x, y, s: (y, value)), (torch.zeros(PICTURE),))


class Unread(Convolution):
    """Takes an input that it does not read."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x)


def test_an_input_that_nothing_reads_stays_an_input() -> None:
    assert inputs_of(agrees(Unread(), PICTURE, (2, 2))) == ["x", "y"]


def test_an_example_that_forward_writes_into_is_left_alone() -> None:
    net, example = Returning(lambda x, y, s: x.mul_(2)), torch.ones(PICTURE)
    export(net, (example,))
    assert torch.equal(example, torch.ones(PICTURE))


# ---- what cannot be mended ------------------------------------------------------------------------------------------


class Numberless(nn.Module):
    """Depends on a value, which no graph can."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if float(x.sum()) > 0 else x


def test_what_the_exporter_cannot_trace_is_one_sentence() -> None:
    net = Numberless().train()
    with pytest.raises(ModelError, match="cannot trace the network") as refusal:
        export(net, (torch.zeros(PICTURE),))
    assert "\n" not in str(refusal.value)
    assert net.training
