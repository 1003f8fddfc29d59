"""What tracing promises beyond the keystone: proof by trial, a second witness, frozen layers, a module left alone."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from halp_trt.errors import ModelError, UnsupportedLayerError, UsageError
from halp_trt.graphs.export import export
from halp_trt.graphs.network import channel_graph
from halp_trt.models.slim import slim
from halp_trt.models.trace import dependency_couplings, half_plan, trace, uneven_plan
from tests.nets import EXAMPLE_SHAPE, Head, make_net, traced

EXAMPLE = (torch.zeros(EXAMPLE_SHAPE),)
CALLS = itertools.count(1)


class Restless(nn.Module):
    """Never gives the same output twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8, 3), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.a(x)) * next(CALLS)


class Mixed(nn.Module):
    """Half of a convolution is taken by computing, a third of another by a written number."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 12, 3), nn.Conv2d(6, 12, 1), nn.Conv2d(4, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x[:, x.shape[1] // 2 :]))
        return self.head(torch.relu(self.c(y[:, 4:8])))


@pytest.mark.parametrize(("name", "layer"), [("split-sizes", "stem.0"), ("written-flatten", "b")])
def test_widths_written_into_forward_are_found_and_frozen_with_a_reason(name: str, layer: str) -> None:
    net, model, graph = traced(name)
    untested = channel_graph(model, list(net.state_dict()))
    assert untested.group(layer).prunable, "the labels alone cannot know"
    frozen = [g for g in graph.groups if g.name.split("#")[0] == layer]
    assert all(not g.prunable and "forward()" in g.reason for g in frozen)
    assert graph.prunable_groups, "the rest can still be pruned"


@pytest.mark.slow
def test_groups_that_cannot_be_slimmed_leave_the_others_prunable() -> None:
    torch.manual_seed(0)
    net = Mixed().eval()
    graph = trace(net, EXAMPLE)
    good = {g.name for g in graph.prunable_groups}
    assert "c" in good
    for make_plan in (half_plan, uneven_plan):
        with torch.no_grad():
            assert slim(copy.deepcopy(net), make_plan(graph))(*EXAMPLE).shape == net(*EXAMPLE).shape
    assert all(g.reason for g in graph.groups if not g.prunable)


@pytest.mark.parametrize("name", ["residual", "bottleneck", "chain"])
def test_the_second_witness_agrees_where_both_understand(name: str) -> None:
    net, model, _ = traced(name)
    couplings = dependency_couplings(net, EXAMPLE)
    assert couplings
    parameters = list(net.state_dict())
    alone = channel_graph(model, parameters)
    both = channel_graph(model, parameters, couplings=couplings)
    assert both.groups == alone.groups
    assert not any(parameter.grad_fn for parameter in net.parameters())


def test_the_second_witness_may_fail() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no")

    assert dependency_couplings(Broken(), EXAMPLE) == ()


@pytest.mark.slow
def test_the_module_is_left_as_it_was() -> None:
    net = make_net("residual").train()
    net.stem[0].weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    model = export(net, EXAMPLE)
    graph = trace(net, EXAMPLE, model=model, source="tests:residual")
    assert net.training
    assert not net.stem[0].weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert graph.model == "tests:residual"
    assert graph == trace(net, EXAMPLE, model=model, source="tests:residual")


def test_frozen_layers_stay_and_misspelt_ones_are_answered() -> None:
    net, model, free = traced("residual")
    graph = trace(net, EXAMPLE, model=model, frozen=["blocks.1"])
    assert {g.name for g in free.prunable_groups} - {g.name for g in graph.prunable_groups} == {
        "blocks.1.a.0", "blocks.1.skip.0",
    }  # fmt: skip
    assert "frozen by the user" in graph.group("blocks.1.a.0").reason
    with pytest.raises(UsageError, match=r"did you mean blocks\.1\.a"):
        trace(net, EXAMPLE, model=model, frozen=["blocks.1.aa"])


@pytest.mark.slow
def test_a_network_that_cannot_repeat_itself_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(UnsupportedLayerError, match="other outputs for the same input"):
        trace(Restless().eval(), EXAMPLE)


def test_a_network_that_does_not_take_the_example_is_refused() -> None:
    with pytest.raises(ModelError, match=r"\(1, 1, 8, 8\).*; give --input$"):
        trace(make_net("chain"), (torch.zeros(1, 1, 8, 8),))


@pytest.mark.parametrize("make_plan", [half_plan, uneven_plan])
def test_trial_plans_cut_what_they_are_told_to(make_plan: object) -> None:
    _, _, graph = traced("residual")
    plan = make_plan(graph)
    for group in graph.groups:
        assert len(plan.kept[group.name]) < group.num_channels if group.prunable else True
    only = graph.prunable_groups[0].name
    assert [n for n, kept in make_plan(graph, [only]).counts().items() if kept < graph.group(n).num_channels] == [only]
    assert make_plan(graph, ()).counts() == graph.dense_counts()
    assert make_plan(graph) == plan
