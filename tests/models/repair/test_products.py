"""The rows of a layer, multiplied by its weights, are its output; a pass stops where it should and goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from halp_trt.models.repair.products import product_of
from halp_trt.models.repair.walk import Walk

CONVS: dict[str, tuple[Callable[..., torch.Tensor], tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": (F.conv2d, (2, 4, 7, 6), (5, 4, 3, 3), {}),
    "strided": (F.conv2d, (2, 4, 9, 8), (5, 4, 3, 2), {"stride": (2, 1), "padding": (1, 2)}),
    "dilated": (F.conv2d, (2, 4, 9, 8), (5, 4, 3, 3), {"dilation": 2, "padding": 2, "stride": 2}),
    "grouped": (F.conv2d, (2, 6, 5, 5), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": (F.conv2d, (2, 6, 5, 5), (6, 1, 3, 3), {"groups": 6}),
    "same": (F.conv2d, (2, 4, 7, 7), (5, 4, 3, 4), {"padding": "same", "dilation": (1, 2)}),
    "valid": (F.conv2d, (2, 4, 7, 7), (5, 4, 3, 3), {"padding": "valid"}),
    "of one axis": (F.conv1d, (2, 4, 9), (5, 4, 3), {"padding": 1, "stride": 2}),
    "of three axes": (F.conv3d, (2, 3, 4, 5, 4), (5, 3, 2, 3, 2), {"padding": (0, 1, 1)}),
    "linear": (F.linear, (3, 6), (4, 6), {}),
    "of tokens": (F.linear, (3, 2, 5, 6), (4, 6), {}),
}


@pytest.mark.parametrize("name", CONVS)
def test_rows_times_weights_are_the_output(name: str) -> None:
    function, size, weight_size, options = CONVS[name]
    torch.manual_seed(0)
    pictures, weight, bias = torch.randn(size), torch.randn(weight_size), torch.randn(weight_size[0])
    product = product_of(function, (pictures, weight, bias), options)
    assert product is not None
    output = product.call()
    positions = torch.randperm(product.num_positions)[: max(1, product.num_positions // 2)]
    wanted = product.outputs_at(output, positions)
    groups = product.conv_groups
    rows = product.inputs_at(positions, torch.arange(weight_size[1]))
    found = rows @ weight.reshape(groups, weight_size[0] // groups, -1).mT + bias.reshape(groups, 1, -1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    kept = torch.arange(0, weight_size[1], 2)
    few = product.inputs_at(positions, kept)
    kernel = weight[0, 0].numel()
    chosen = (kept[:, None] * kernel + torch.arange(kernel)).flatten()
    assert torch.equal(few, rows[:, :, chosen])


def test_other_functions_and_pictures_without_a_batch_are_none() -> None:
    assert product_of(F.relu, (torch.ones(2, 2),), {}) is None
    assert product_of(F.conv2d, (torch.ones(3, 4, 4), torch.ones(2, 3, 1, 1)), {}) is None
    assert product_of(F.linear, (torch.ones(3), torch.ones(2, 3)), {}) is None


class Keeping(nn.Module):
    """Keeps what it computes until later, as a module may."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = x.sum()
        return self.b(torch.relu(self.a(x))) + self.kept


def test_passes_that_take_turns_see_changed_weights_and_are_not_mixed_up() -> None:
    torch.manual_seed(0)
    net = Keeping().eval()
    batches = [torch.randn(2, 2, 3, 3), torch.randn(1, 2, 3, 3)]
    walks = [Walk(net, batch, {id(net.a.weight): "a", id(net.b.weight): "b"}) for batch in batches]
    names, inputs = [], []
    for _ in range(2):
        stops = [walk.advance() for walk in walks]
        assert all(stop is not None for stop in stops)
        names.append([stop[0] for stop in stops])
        inputs.append([stop[1].input for stop in stops])
        with torch.no_grad():
            (net.a if names[-1][0] == "a" else net.b).weight.mul_(2)
    assert [walk.advance() for walk in walks] == [None, None]
    assert names == [["a", "a"], ["b", "b"]]
    for batch, second in zip(batches, inputs[1], strict=True):
        torch.testing.assert_close(second, torch.relu(net.a(batch)).detach())
    assert walks[0].advance() is None, "it stays over"


def test_an_answer_takes_the_place_of_a_product() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)).eval()
    walk = Walk(net, torch.ones(1, 2), {id(net[0].weight): "0.weight", id(net[1].weight): "1.weight"})
    assert walk.advance() is not None
    stop = walk.advance(torch.full((1, 2), 7.0))
    assert stop is not None
    assert torch.equal(stop[1].input, torch.full((1, 2), 7.0))
    walk.close()
    walk.close()


def test_the_fault_of_a_network_is_raised_where_one_waits() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Walk(Failing(), torch.ones(1), {}).advance()
