"""Blocks that are offered for removal are ones that a plan accepts, alone and together."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from halp_trt.models.trace import trace
from halp_trt.planning.network import removable_blocks
from halp_trt.specs import ChannelGraph, ChannelGroup, Layer, LayerSpec, PruningPlan


class SpatialTransform(nn.Module):
    """A small net computes the matrix that turns the network's own input; both have the input's three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.matrix = nn.Conv1d(3, 8, 1), nn.Linear(8, 9)
        self.features = nn.Conv1d(3, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix = self.matrix(torch.relu(self.look(x)).amax(2)).view(-1, 3, 3) + torch.eye(3)
        y: torch.Tensor = self.features(torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1))
        return y


class AroundTheInput(nn.Module):
    """The whole network is a branch beside its input, as in super-resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.second(torch.relu(self.first(x)))
        return y


class Trunk(nn.Module):
    """Two residual blocks on a trunk that a layer writes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)
        self.a, self.b = (nn.Sequential(nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.a(x)
        y: torch.Tensor = self.head(x + self.b(x))
        return y


def check(graph: ChannelGraph, blocks: dict[str, tuple[str, ...]]) -> None:
    """Makes the plan of every choice among a graph's blocks; a plan that is refused raises."""
    for number in range(len(blocks) + 1):
        for chosen in itertools.combinations(blocks.values(), number):
            gone = set(itertools.chain(*chosen))
            PruningPlan(
                graph=graph, kept={g.name: () if g.name in gone else tuple(range(g.num_channels)) for g in graph.groups}
            )


def blocks_of(module: nn.Module, *shape: int) -> dict[str, tuple[str, ...]]:
    graph = trace(module.eval(), (torch.randn(1, *shape),))
    blocks = removable_blocks(graph)
    check(graph, blocks)
    return blocks


def test_a_computed_matrix_is_no_block_beside_the_networks_input() -> None:
    assert blocks_of(SpatialTransform(), 3, 10) == {}


def test_a_whole_network_beside_its_input_is_no_block() -> None:
    assert blocks_of(AroundTheInput(), 4, 8, 8) == {}


def test_residual_blocks_of_a_trunk_are_found_still() -> None:
    assert blocks_of(Trunk(), 3, 8, 8) == {"a.2": ("a.0",), "b.2": ("b.0",)}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_choice_of_blocks_is_a_plan_whatever_the_graph(data: st.DataObject) -> None:
    names = [f"g{number}" for number in range(data.draw(st.integers(2, 6)))]
    some = st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)
    layers = tuple(
        Layer(
            name=f"l{number}",
            spec=LayerSpec(operator="Conv", in_channels=4 * len(reads), out_channels=4 * len(writes)),
            in_groups=tuple((name, 1) for name in reads),
            out_groups=tuple((name, 1) for name in writes),
        )
        for number, (reads, writes) in enumerate(data.draw(st.lists(st.tuples(some, some), min_size=2, max_size=9)))
    )
    groups = tuple(ChannelGroup(name=name, num_channels=4) for name in names)
    graph = ChannelGraph(
        model="drawn", input_shapes=((1, 4, 8, 8),), groups=groups, layers=layers, parameters=(), fingerprint=""
    )
    check(graph, removable_blocks(graph))
