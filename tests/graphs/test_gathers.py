"""Channels picked by constant indices keep their names: lists, adaptive pools, resampling, layouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn

from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trace import half_plan
from tests.graphs.agreement import PICTURE, WIDTH, Trunk, agreeing_graph, prunable, reason, seeded
from tests.graphs.drawing import conv, draw, numbers

BOTH = {"first": WIDTH, "second": WIDTH}


def end(width: int = WIDTH) -> nn.Module:
    return nn.Conv2d(width, 5, 1)


def flat(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 5))


FOLLOWED: dict[str, Callable[[], nn.Module]] = {
    "channels in another order": lambda: Trunk(lambda _, z: z[:, list(range(WIDTH))[::-1]], end()),
    "some channels, one twice": lambda: Trunk(lambda _, z: z[:, [6, 1, 1, -2]], end(4)),
    "channels by a mask": lambda: Trunk(lambda _, z: z[:, torch.arange(WIDTH) % 2 == 0], end(WIDTH // 2)),
    "a shuffle of channels": lambda: Trunk(lambda _, z: z[:, torch.arange(WIDTH).view(2, -1).t().flatten()], end()),
    "channels by index_select": lambda: Trunk(lambda _, z: z.index_select(1, torch.tensor([5, 4, 3])), end(3)),
    "rows": lambda: Trunk(lambda _, z: z[:, :, [1, 3, 3, -1]], end()),
    "columns": lambda: Trunk(lambda _, z: z[..., [1, 3, 3, 8]], end()),
    "single positions": lambda: Trunk(lambda _, z: z[:, :, [1, 3, 3], [0, 1, 2]], nn.Conv1d(WIDTH, 5, 1)),
    "a table of positions": lambda: Trunk(lambda _, z: z.flatten(2)[:, :, torch.arange(6).view(2, 3)], end()),
    "pictures of the batch": lambda: Trunk(lambda _, z: z[[0, 0]], end()),
    "one row": lambda: Trunk(lambda _, z: z[:, :, 3], nn.Conv1d(WIDTH, 5, 1)),
    "the first token": lambda: Trunk(lambda _, z: z.flatten(2).transpose(1, 2)[:, 0], nn.Linear(WIDTH, 5)),
    "an adaptive pool that does not divide": lambda: Trunk(lambda _, z: F.adaptive_avg_pool2d(z, 5), flat(25 * WIDTH)),
    "an uneven adaptive pool": lambda: Trunk(lambda _, z: F.adaptive_avg_pool2d(z, (3, 7)), end()),
    "an adaptive pool in one dimension": lambda: Trunk(
        lambda _, z: F.adaptive_avg_pool1d(z.mean(2), 5), nn.Conv1d(WIDTH, 5, 1)
    ),
    "area interpolation": lambda: Trunk(lambda _, z: F.interpolate(z, size=(7, 5), mode="area"), end()),
    "nearest-exact interpolation": lambda: Trunk(
        lambda _, z: F.interpolate(z, scale_factor=1.5, mode="nearest-exact"), end()
    ),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed_through_constant_indices(name: str) -> None:
    """Channels that are picked unequally often form groups of their own, so only their sum is told."""
    assert sum(prunable(agreeing_graph(seeded(FOLLOWED[name]))).values()) == 2 * WIDTH


def test_a_picture_smaller_than_its_adaptive_pool_is_followed() -> None:
    module = seeded(lambda: Trunk(lambda _, z: F.adaptive_avg_pool2d(z, 7), flat(49 * WIDTH)))
    assert prunable(agreeing_graph(module, torch.randn(1, 3, 3, 3))) == BOTH


def test_a_vgg_whose_adaptive_pool_makes_small_pictures_larger_is_pruned_to_its_last_linear_layer() -> None:
    def make() -> nn.Module:
        stages = [
            layer
            for before, width in ((3, 4), (4, 6))
            for layer in (nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
        ]
        head = (nn.Linear(6 * 49, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 3))
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)

    assert prunable(agreeing_graph(seeded(make))) == {"0": 4, "4": 6, "10": 10}


def test_the_network_s_input_may_be_indexed() -> None:
    class Swapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.relu(self.a(x[:, [2, 1, 0]])))

    assert prunable(agreeing_graph(seeded(Swapped))) == {"a": 16}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_channels_last_network_is_pruned_to_its_last_stage(batch_size: int) -> None:
    def make() -> nn.Module:
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(24, 4),
        )  # fmt: skip
        return net.to(memory_format=torch.channels_last)

    shown = torch.randn(batch_size, *PICTURE[1:]).to(memory_format=torch.channels_last)
    assert prunable(agreeing_graph(seeded(make), shown)) == {"0": 16, "2": 24}


def test_only_the_one_channel_that_is_picked_has_to_stay() -> None:
    module = seeded(lambda: Trunk(lambda net, z: net.parts["out"](z[:, 3].flatten(1)), out=nn.Linear(144, 5)))
    graph = agreeing_graph(module)
    assert prunable(graph) == {"first": WIDTH, "second": WIDTH - 1}
    assert "picks single channels" in reason(graph, "second#2")


def test_channels_picked_by_data_stay_and_other_axes_are_followed() -> None:
    weights = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(4, 8, 1, 1)}
    for axis, expected in ((1, []), (2, ["a"])):
        nodes = [
            conv("a", "x"), helper.make_node("ArgMax", ["x"], ["most"], axis=2, keepdims=0),
            helper.make_node("Reshape", ["most", "line"], ["places"]),
            helper.make_node("Gather", ["a", "places"], ["picked"], axis=axis), conv("b", "picked"),
        ]  # fmt: skip
        width = 8 if axis == 2 else 18
        weights["b.weight"] = numbers(4, width, 1, 1)
        drawn = draw(nodes, {**weights, "line": np.array([18])}, inputs={"x": (1, 3, 6, 6)}, outputs=["b"])
        graph = channel_graph(drawn, set(weights))
        assert [group.name for group in graph.prunable_groups] == expected


def test_indices_of_fixed_axes_are_left_as_they_are() -> None:
    weights = {"a.weight": numbers(8, 3, 1, 1), "b.weight": numbers(4, 8, 1, 1)}
    nodes = [conv("a", "x"), helper.make_node("Gather", ["a", "rows"], ["picked"], axis=2), conv("b", "picked")]
    drawn = draw(nodes, {**weights, "rows": np.array([0, 2])}, inputs={"x": (1, 3, 6, 6)}, outputs=["b"])
    rewritten = rewrite(drawn, half_plan(channel_graph(drawn, set(weights))))
    assert [t.name for t in rewritten.graph.initializer if t.data_type == 7] == ["rows"]
