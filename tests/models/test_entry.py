"""Networks as people bring them, and the true reason where one cannot be taken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import halp_trt
from halp_trt.errors import ModelError
from halp_trt.models.sources import load_model
from halp_trt.workflows.prepared import prepare

EXAMPLE = torch.zeros(1, 3, 16, 16)


def plain(*inside: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), *inside, nn.Conv2d(8, 4, 1))


class Returning(nn.Module):
    """Returns whatever it is told to beside a tensor."""

    def __init__(self, make: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.conv, self.make = nn.Conv2d(3, 8, 3), make

    def forward(self, x: torch.Tensor) -> object:
        return self.make(self.conv(x))


@pytest.fixture
def bring() -> Iterator[Callable[[nn.Module], str]]:
    """Makes a module's factory importable, and gives its source string."""
    room = ModuleType("brought")
    sys.modules["brought"] = room

    def make(module: nn.Module) -> str:
        room.net = lambda: (module, EXAMPLE)  # type: ignore[attr-defined]
        return "brought:net"

    yield make
    del sys.modules["brought"]


def data_parallel(module: nn.Module) -> nn.Module:
    return nn.DataParallel(module)


def averaged(module: nn.Module) -> nn.Module:
    return AveragedModel(module)


def compiled(module: nn.Module) -> nn.Module:
    wrapped: nn.Module = torch.compile(module)  # type: ignore[assignment]  # its type hides that it is one
    return wrapped


def compiled_in_parallel(module: nn.Module) -> nn.Module:
    return data_parallel(compiled(module))


@pytest.mark.parametrize("wrap", [data_parallel, averaged, compiled, compiled_in_parallel])
def test_wrappers_are_taken_off(bring: Callable[[nn.Module], str], wrap: Callable[[nn.Module], nn.Module]) -> None:
    loaded = load_model(bring(wrap(plain())))
    assert list(loaded.module.state_dict()) == list(plain().state_dict())


def test_lazy_layers_get_their_sizes_from_the_example(bring: Callable[[nn.Module], str]) -> None:
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(2))
    loaded = load_model(bring(lazy))
    shapes = [tuple(tensor.shape) for tensor in loaded.module.state_dict().values()]
    assert shapes[0] == (8, 3, 3, 3)
    assert shapes[-2] == (2, 8 * 14 * 14)
    assert [group.name for group in prepare(loaded, None).graph.prunable_groups] == ["0"]


class HalfLazy(nn.Module):
    """Has a lazy layer that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 4, 1), nn.LazyLinear(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.used(x)
        return y


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (HalfLazy(), r"lazy layer of 'unused\.weight' is not used by the example"),
        (nn.Sequential(nn.LazyLinear(2), nn.Conv2d(5, 5, 1)), r"lazy layers.* does not accept it"),
        (torch.jit.script(plain()), "it is TorchScript"),
        (plain(torch.jit.trace(nn.ReLU(), torch.zeros(1))), "its part '1' is TorchScript"),  # type: ignore[no-untyped-call]
        (Returning(lambda y: None), "returned NoneType; expected a tensor"),
        (Returning(lambda y: "label"), "returned str; expected a tensor"),
        (Returning(lambda y: {"y": y, "names": ["cat"]}), r"returned str under 'names\.0'"),
        (Returning(lambda y: (y, 3)), "returned int under '1'"),
    ],
)
def test_networks_that_cannot_be_taken_are_refused_with_the_reason(
    bring: Callable[[nn.Module], str], module: nn.Module, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(bring(module))


def test_none_beside_tensors_is_left_out(bring: Callable[[nn.Module], str]) -> None:
    assert load_model(bring(Returning(lambda y: {"y": y, "loss": None}))).output_names == ("y",)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (
            nn.AdaptiveMaxPool2d(5),
            r"no form for adaptive_max_pool2d, which '1' \(AdaptiveMaxPool2d\) computes; let",
        ),
        (nn.RReLU(), r"no form for rrelu\w*, which '1' \(RReLU\) computes; use LeakyReLU"),
    ],
)
def test_an_operator_that_onnx_lacks_is_named_with_its_layer(
    bring: Callable[[nn.Module], str], layer: nn.Module, sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        prepare(load_model(bring(plain(layer))), None)
    with pytest.raises(ModelError, match=sentence):
        halp_trt.export(plain(layer).eval(), EXAMPLE)
