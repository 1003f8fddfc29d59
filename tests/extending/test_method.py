"""A method registered from outside plans as the others do, in the library's loop and by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.planning import WidthLimits, counts_latency_us, prune
from halp_trt.specs import PruningPlan, Saliency
from tests.extending.conftest import HalpTrt, Toy, pruned
from tests.strategies import formula_lookup, graph_of

LOOKUP = formula_lookup()
GRAPH = graph_of([("plain", 64, 0), ("residual", 64, 0), ("plain", 96, 0)], stem=32)
DENSE_US = counts_latency_us(GRAPH, LOOKUP, GRAPH.dense_counts())


def score(plan: PruningPlan) -> Saliency:
    return Saliency(scores={g.name: tuple(1 / (1 + c) for c in range(g.num_channels)) for g in plan.graph.groups})


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_it_meets_budgets_step_by_step(toy: Toy, share: float) -> None:
    toy("method")
    steps = list(prune(GRAPH, LOOKUP, budget=f"{share:.0%}", score=score, method="greedy", num_steps=3))
    kept = [sum(map(len, step.plan.kept.values())) for step in steps]
    assert kept == sorted(kept, reverse=True)
    assert steps[-1].plan.latency_us <= share * DENSE_US * (1 + 1e-9)


def test_it_keeps_within_limits(toy: Toy) -> None:
    toy("method")
    limits = WidthLimits(group_fraction=0.5)
    *_, last = prune(GRAPH, LOOKUP, budget="60%", score=score, method="greedy", limits=limits, num_steps=2)
    assert all(2 * len(last.plan.kept[group.name]) >= group.num_channels for group in GRAPH.prunable_groups)
    with pytest.raises(InfeasibleBudgetError, match="could be met without --max-prune"):
        prune(GRAPH, LOOKUP, budget="20%", score=score, method="greedy", limits=limits)


@pytest.mark.slow
def test_the_command_line_takes_it(toy: Toy, halp_trt: HalpTrt, folder: Path) -> None:
    refused = halp_trt("prune", "--method", "greedy")
    assert (refused.exit_code, "'greedy' is not one of" in refused.stderr) == (2, True)
    toy("method")
    assert "greedy" in halp_trt("prune", "--help").stdout
    plan = pruned(halp_trt, folder, "--method", "greedy")
    assert plan.counts() != plan.graph.dense_counts()
