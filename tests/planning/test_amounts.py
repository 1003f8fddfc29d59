"""Limits on other resources than latency: never exceeded in any step, and met by the best plan there is."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.planning import counts_latency_us, prune
from halp_trt.planning.amounts import limits_in, resource_schedule, total_of
from halp_trt.planning.resources import RESOURCES, relus
from halp_trt.planning.widths import width_choices
from halp_trt.specs import LayerSpec, PruningPlan, Saliency
from halp_trt.texts import amount_in
from tests.models.pruned import graph_of as traced_graph
from tests.nets import EXAMPLE_SHAPE, make_net
from tests.strategies import formula_lookup, graph_of, staircase_us

LOOKUP = formula_lookup(lambda spec: staircase_us(spec, step=8, wobble=0.2))
GRAPH = graph_of([("plain", 32, 0), ("residual", 24, 0), ("plain", 24, 0)], stem=24)
DENSE_US = counts_latency_us(GRAPH, LOOKUP, GRAPH.dense_counts())


def score(plan: PruningPlan) -> Saliency:
    return Saliency(
        scores={g.name: tuple(1 / (1 + c + i) for c in range(g.num_channels)) for i, g in enumerate(plan.graph.groups)}
    )


def dense(resource: str) -> float:
    return total_of(GRAPH, GRAPH.dense_counts(), resource)


# ---- ReLUs ----------------------------------------------------------------------------------------------------------


class Counting(TorchFunctionMode):
    """Counts the numbers that pass through activations with a bound."""

    num = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.relu, torch.relu_, F.relu, F.relu6, F.hardtanh, F.leaky_relu):
            self.num += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["chain", "residual", "depthwise"])
def test_relus_are_those_that_a_network_evaluates(name: str) -> None:
    graph, net = traced_graph(name), make_net(name)
    with Counting() as counting, torch.no_grad():
        net(torch.zeros(EXAMPLE_SHAPE))
    assert total_of(graph, graph.dense_counts(), "relus") == counting.num > 0


def test_relus_of_known_layers() -> None:
    conv = LayerSpec(
        operator="Conv", in_channels=4, out_channels=6, in_size=(9, 9), kernel_size=(3, 3), stride=(2, 2),
        padding=(1, 1, 1, 1), dilation=(1, 1), epilogue=("Add", "Relu"),
    )  # fmt: skip
    assert relus(conv, 2) == 2 * 6 * 25
    assert relus(LayerSpec(operator="Gemm", in_channels=3, out_channels=7, epilogue=("Clip",))) == 7
    assert relus(LayerSpec(operator="Gemm", in_channels=3, out_channels=7, epilogue=("Sigmoid",))) == 0
    assert relus(LayerSpec(operator="Relu", in_channels=5, out_channels=5, in_size=(4, 4))) == 80
    assert relus(LayerSpec(operator="MaxPool", in_channels=5, out_channels=5, in_size=(4, 4))) == 0


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "others"),
    [
        ("100%", {"relus": "55%"}),
        ("70%", {"relus": "60%"}),
        ("80%", {"relus": "4k", "parameters": "50%"}),
        ("60%", {"relus": "70%", "parameters": "40%", "flops": "45%", "memory_bytes": "60%"}),
    ],
)
def test_the_plan_is_the_best_that_keeps_all_limits(budget: str, others: dict[str, str]) -> None:
    *_, last = prune(GRAPH, LOOKUP, budget=budget, score=score, method="joint", num_steps=1, others=others)
    (limits,) = resource_schedule(GRAPH, others, num_steps=1)
    groups = GRAPH.prunable_groups
    scores, best = score(last.plan).scores, -math.inf
    for widths in itertools.product(*(width_choices(group.num_channels, 8) for group in groups)):
        counts = {**GRAPH.dense_counts(), **{group.name: width for group, width in zip(groups, widths, strict=True)}}
        if counts_latency_us(GRAPH, LOOKUP, counts) <= last.plan.budget_us and limits.fits(GRAPH, counts):
            kept = (sorted(scores[g.name], reverse=True)[:w] for g, w in zip(groups, widths, strict=True))
            best = max(best, math.fsum(map(math.fsum, kept)))
    assert last.plan.saliency == pytest.approx(best, rel=1e-4)
    assert limits.fits(GRAPH, last.plan.counts())
    assert last.plan.latency_us <= last.plan.budget_us


@pytest.mark.parametrize("method", ["joint", "joint-blocks"])
def test_no_step_exceeds_its_limits(method: str) -> None:
    others = {"relus": "40%", "parameters": "40%"}
    ramps = resource_schedule(GRAPH, others, num_steps=3)
    steps = [*prune(GRAPH, LOOKUP, budget="80%", score=score, method=method, num_steps=3, others=others)]
    for step, limits in zip(steps, ramps, strict=True):
        assert limits.fits(GRAPH, step.plan.counts())
        assert step.plan.latency_us <= step.plan.budget_us
    assert total_of(GRAPH, steps[-1].plan.counts(), "relus") <= 0.4 * dense("relus")
    assert [limits.limits["relus"] for limits in ramps] == sorted((r.limits["relus"] for r in ramps), reverse=True)


def test_a_limit_above_what_is_there_changes_nothing() -> None:
    plans = [
        [step.plan.kept for step in prune(GRAPH, LOOKUP, budget="60%", score=score, num_steps=2, others=others)]
        for others in (None, {"relus": "100%"}, {"relus": "1G"})
    ]
    assert plans[0] == plans[1] == plans[2]


def test_a_limit_out_of_reach_is_refused_at_once() -> None:
    with pytest.raises(InfeasibleBudgetError, match="for relus: the lowest reachable is"):
        prune(GRAPH, LOOKUP, budget="90%", score=score, method="joint", others={"relus": "100"})


@pytest.mark.parametrize("method", ["halp", "uniform"])
def test_methods_that_know_no_limits_refuse_them(method: str) -> None:
    with pytest.raises(UsageError, match="keeps no limits on other resources than latency; choose one of"):
        prune(GRAPH, LOOKUP, budget="60%", score=score, method=method, others={"relus": "50%"})


def test_limits_are_read_from_texts() -> None:
    assert limits_in(["relus=50k", "flops=40%"]) == {"relus": "50k", "flops": "40%"}
    assert [amount_in(text) for text in ("50k", " 1.5M ", "2G", "7", "k", "5kk", "", "1e3k")] == [
        50e3, 1.5e6, 2e9, 7.0, None, None, None, 1e6,
    ]  # fmt: skip
    with pytest.raises(UsageError, match="relus has two budgets"):
        limits_in(["relus=1", "relus=2"])
    assert "relus" in RESOURCES
