"""How much of a network can be pruned, and the reasons why the rest cannot."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.models.trace import trace
from halp_trt.planning import prune
from halp_trt.planning.prunability import prunability, why_nothing
from halp_trt.report import describe
from halp_trt.report.prunability import describe_prunability, prunability_facts
from halp_trt.specs import Budget, ChannelGraph, ChannelGroup, Layer, LayerSpec
from tests.strategies import formula_lookup


def layer(name: str, reads: str, writes: str, operator: str = "Conv") -> Layer:
    spec = LayerSpec(operator=operator, in_channels=8, out_channels=8, in_size=(4, 4), kernel_size=(1, 1))
    return Layer(name=name, spec=spec, in_groups=((reads, 1),), out_groups=((writes, 1),), nodes=(name, f"{name}/Relu"))


def group(name: str, channels: int, reason: str = "") -> ChannelGroup:
    return ChannelGroup(name=name, num_channels=channels, prunable=not reason, reason=reason)


def graph_of(groups: list[ChannelGroup], layers: list[Layer]) -> ChannelGraph:
    return ChannelGraph(
        model="made up",
        input_shapes=((1, 8, 4, 4),),
        groups=tuple(groups),
        layers=tuple(layers),
        parameters=(),
        fingerprint="",
    )


MIXED = graph_of(
    [
        group("input", 3, "it is the network's input"),
        group("a", 40),
        group("b", 20, "b/Relu normalises it together with other channels"),
        group("c", 30, "c normalises it together with other channels"),
        group("d", 1),
        group("e", 10, "it is the network's output"),
        group("e#2", 5, "it is the network's output"),
    ],
    [
        layer("a", "input", "a"),
        layer("pool", "a", "a", "MaxPool"),
        layer("b", "a", "b"),
        layer("c", "b", "c"),
        layer("d", "c", "d"),
        layer("e", "d", "e"),
        layer("f", "e", "e#2"),
        layer("look", "input", "input", "MaxPool"),
    ],
)
LATENCIES = {"a": 10.0, "pool": 4.0, "b": 16.0, "c": 20.0, "d": 25.0, "e": 5.0, "f": 10.0, "look": 10.0}


def test_channels_and_latency_are_counted_by_what_prunable_groups_touch() -> None:
    found = prunability(MIXED, LATENCIES)
    assert (found.num_channels, found.num_prunable) == (106, 40)
    assert (found.dense_us, found.prunable_us) == (100.0, 30.0)
    assert found.latency_fraction == 0.3
    assert prunability(MIXED).latency_fraction is None


def test_reasons_of_one_kind_are_one_and_the_largest_come_first() -> None:
    fences = prunability(MIXED).fences
    assert [(fence.num_channels, fence.layers) for fence in fences] == [(50, ("b", "c")), (15, ("e",)), (1, ("d",))]
    assert fences[0].reason == "c normalises it together with other channels"
    assert sum(fence.num_channels for fence in fences) == 66


def test_two_lines_tell_it() -> None:
    assert describe_prunability(prunability(MIXED, LATENCIES)).splitlines() == [
        "prunable: 40 of 106 channels (37.7 %), in layers that take 30.0 % of the dense latency",
        "not prunable: 50 of b, c (c normalises it together with other channels); 15 of e (it is the network's "
        "output); 1 of d (it is the only channel of its group)",
    ]
    assert "not prunable: 50 of b, c" in describe(MIXED)


def test_only_the_three_biggest_reasons_are_told() -> None:
    groups = [group(f"g{number}", 10 + number, f"reason {number}") for number in range(5)]
    graph = graph_of([group("input", 3, "it is the network's input"), group("free", 4), *groups],
                     [layer(one.name, "input", one.name) for one in (group("free", 4), *groups)])  # fmt: skip
    text = prunability_facts(prunability(graph))["not prunable"]
    assert text == "14 of g4 (reason 4); 13 of g3 (reason 3); 12 of g2 (reason 2); and 2 more reasons"


def test_a_network_that_is_free_has_one_line() -> None:
    graph = graph_of([group("a", 8), group("b", 8)], [layer("a", "b", "a"), layer("b", "a", "b")])
    sentence = "16 of 16 channels (100.0 %); their share of the latency is unknown without a latency table"
    assert describe_prunability(prunability(graph)) == f"prunable: {sentence}"


# ---- nothing at all -------------------------------------------------------------------------------------------------

FIXED = graph_of(
    [group("input", 8, "it is the network's input"), group("a", 8, "a (CumSum) mixes it"), group("b", 4, "asked for")],
    [layer("a", "input", "a"), layer("b", "a", "b")],
)


def test_nothing_prunable_is_a_sentence_with_the_reasons() -> None:
    sentence = "none of the network's 12 channels can be pruned: 8 of a (a (CumSum) mixes it); 4 of b (asked for)"
    assert why_nothing(prunability(FIXED)) == sentence
    assert describe_prunability(prunability(FIXED)) == f"prunable: {sentence}"


@pytest.mark.parametrize("method", ["halp", "joint", "joint-blocks", "uniform"])
def test_a_budget_for_a_network_without_prunable_channels_is_refused_by_the_reasons(method: str) -> None:
    lookup = formula_lookup(lambda spec: 1.0)
    with pytest.raises(InfeasibleBudgetError, match=r"but none of the network's 12 channels .*mixes it") as refusal:
        list(prune(FIXED, lookup, budget=Budget(fraction=0.5), score=lambda plan: pytest.fail("no"), method=method))
    assert "raise" not in str(refusal.value)


def test_a_budget_that_needs_no_pruning_is_met_by_a_network_that_cannot_be_pruned() -> None:
    lookup = formula_lookup(lambda spec: 1.0)
    prune(FIXED, lookup, budget=Budget(fraction=1.0), score=lambda plan: pytest.fail("no"))


class Summed(nn.Module):
    """Ends in a sum along the channels, which fixes the last layer's width."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.fixed = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fixed(self.free(x)).softmax(1)
        return y


def test_traced_networks_name_the_reason() -> None:
    found = prunability(trace(Summed().eval(), (torch.randn(1, 3, 4, 4),)))
    assert (found.num_prunable, found.num_channels) == (12, 18)
    assert [fence.layers for fence in found.fences] == [("fixed",)]
    both = prunability(trace(Summed().eval(), (torch.randn(1, 3, 4, 4),), frozen=["free"]))
    assert both.num_prunable == 0
    assert why_nothing(both).startswith("none of the network's 18 channels can be pruned: 12 of free (it was frozen by")
