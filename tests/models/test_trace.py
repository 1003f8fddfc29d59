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
from halp_trt.graphs.propagate import RULES
from halp_trt.models.dependencies import dependency_couplings
from halp_trt.models.trace import trace
from halp_trt.models.trial import can_slim, half_plan, uneven_plan
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


@pytest.mark.parametrize(("name", "layer"), [("split-sizes", "stem.0"), ("written-flatten", "b")])
def test_widths_written_into_forward_do_not_limit_what_is_pruned(name: str, layer: str) -> None:
    net, _, graph = traced(name)
    assert all(g.prunable for g in graph.groups if g.name.split("#")[0] == layer)
    assert not can_slim(net, EXAMPLE, half_plan(graph)), "forward() cannot run so narrow; the rewritten graph can"


def test_what_can_be_slimmed_is_known_and_the_network_left_alone() -> None:
    net, _, graph = traced("residual")
    before = copy.deepcopy(net.state_dict())
    assert can_slim(net, EXAMPLE, uneven_plan(graph))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class Blurred(nn.Module):
    """Writes widths into a buffer that is no weight, a plain tensor and two attributes, and drops a result."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.idle, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(6, 12, 1), nn.Conv2d(12, 5, 1), Head(12)
        self.register_buffer("blur", torch.full((12, 1, 3, 3), 1 / 9), persistent=False)
        self.tilt, self.half = torch.linspace(-1, 1, 12).reshape(1, 12, 1, 1), 6

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(torch.nn.functional.conv2d(self.a(x), self.blur, padding=1, groups=12))
        self.idle(x)
        assert x.shape[1] == 12
        x, y = torch.split(x * self.tilt, [self.half, self.half], 1)
        return self.head(torch.relu(self.b(torch.max(x, y)).view(-1, 12, 14, 14)))


def test_buffers_tensors_and_asserts_of_written_widths_do_not_limit_either() -> None:
    torch.manual_seed(0)
    net = Blurred().eval()
    graph = trace(net, EXAMPLE)
    prunable = {g.name.split("#")[0]: g.num_channels for g in graph.prunable_groups}
    assert prunable == {"a": 6, "b": 12}, "each half of a is tied to the other"
    assert not can_slim(net, EXAMPLE, half_plan(graph))


class Weighted(nn.Module):
    """Weighs the channels of a convolution against each other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 1), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.softmax(self.a(x), dim=1))))


def test_a_wrong_rule_is_refuted_by_the_trial_and_costs_no_other_group(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = Weighted().eval()
    model = export(net, EXAMPLE)
    monkeypatch.setitem(RULES, "Softmax", RULES["Relu"])
    assert channel_graph(model, list(net.state_dict())).group("a").prunable
    graph = trace(net, EXAMPLE, model=model)
    assert [group.name for group in graph.prunable_groups] == ["b"]
    assert "changes the outputs" in graph.group("a").reason


def test_an_export_of_another_network_is_refused() -> None:
    torch.manual_seed(0)
    net = Weighted().eval()
    model = export(net, EXAMPLE)
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Sigmoid"
    with pytest.raises(ModelError, match="computes something else than the module"):
        trace(net, EXAMPLE, model=model)


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
