"""A resource of one's own is a function of a layer and one row: plans keep within a budget of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from halp_trt.errors import UsageError
from halp_trt.latency import LatencyTable
from halp_trt.planning.network import PlanConstraints, network_problem
from halp_trt.planning.resources import RESOURCES
from halp_trt.planning.surfaces import surface_from
from halp_trt.solvers.problem import LATENCY
from halp_trt.specs import Budget, ChannelGraph, LayerSpec, Measurement, PruningPlan, Saliency
from halp_trt.store import load, save
from halp_trt.workflows.plan import PlanRequest, make_plan
from tests.extending.conftest import HalpTrt, Toy
from tests.strategies import TARGET, exact_measurement, graph_of, staircase_us


@pytest.fixture
def request_(tmp_path: Path, toy: Toy) -> PlanRequest:
    """A plan of a small network by its table, nothing asked of its energy yet."""
    toy("resource")
    graph = graph_of([("plain", 24, 0), ("residual", 16, 0)], stem=16)
    saliency = Saliency(scores={g.name: tuple(1.0 + i for i in range(g.num_channels)) for g in graph.prunable_groups})
    save(_table(graph, saliency), tmp_path / "lut.jsonl")
    save(saliency, tmp_path / "saliency.json")
    save(graph, tmp_path / "graph.json")
    return PlanRequest(source=tmp_path / "lut.jsonl", saliency=tmp_path / "saliency.json", budget=Budget.parse("100%"))


def _table(graph: ChannelGraph, saliency: Saliency) -> LatencyTable:
    """Every pair of widths that a plan may ask for."""
    rows: dict[LayerSpec, Measurement] = {}

    def measured(specs: Sequence[LayerSpec]) -> dict[LayerSpec, Measurement]:
        rows.update({spec: exact_measurement(staircase_us(spec)) for spec in specs})
        return rows

    ask = PlanConstraints(budgets={LATENCY: 1.0}, steps={group.name: 8 for group in graph.prunable_groups})
    network_problem(PruningPlan.dense(graph), saliency, surface_from(measured), ask)
    return LatencyTable(target=TARGET, rows=rows)


def energy(plan: PruningPlan | None, *, dense: bool = False) -> float:
    assert plan is not None
    counts = plan.graph.dense_counts() if dense else plan.counts()
    return math.fsum(RESOURCES["nanojoules"](layer.spec_at(counts), 1) for layer in plan.graph.layers)


@pytest.mark.parametrize("share", [0.8, 0.6])
def test_a_plan_keeps_within_a_share_of_the_dense_network_s(request_: PlanRequest, share: float) -> None:
    free = make_plan(request_)[2]
    assert energy(free) > share * energy(free, dense=True), "latency alone asks for less"
    answer, _, plan, _ = make_plan(replace(request_, others={"nanojoules": f"{share:.0%}"}))
    assert answer.value > 0
    assert energy(plan) <= share * energy(plan, dense=True) * (1 + 1e-9)


def test_a_plan_keeps_within_a_number(request_: PlanRequest) -> None:
    budget = 0.7 * energy(make_plan(request_)[2], dense=True)
    assert energy(make_plan(replace(request_, others={"nanojoules": repr(budget)}))[2]) <= budget * (1 + 1e-9)


def test_the_command_line_limits_it_too(request_: PlanRequest, halp_trt: HalpTrt) -> None:
    asked = ("plan", request_.source, "--saliency", request_.saliency, "--budget", "100%", "--json")
    dense = energy(make_plan(request_)[2], dense=True)
    for limit, most in (("nanojoules=60%", 0.6 * dense), (f"nanojoules={0.7 * dense!r}", 0.7 * dense)):
        done = halp_trt(*asked, "--limit", limit, "--limit", "parameters=95%", "--out", "plan.json")
        assert done.exit_code == 0, done.output
        plan = load(Path("plan.json"))
        assert isinstance(plan, PruningPlan)
        assert energy(plan) <= most * (1 + 1e-9)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (
            ("--limit", "joules=80%"),
            "no resource 'joules'; choose one of memory_bytes, parameters, flops, relus, nanojoules",
        ),
        (("--limit", "nanojoules"), "limit 'nanojoules' is not NAME=VALUE; try 'parameters=60%'"),
        (("--limit", "=60%"), "limit '=60%' is not NAME=VALUE"),
        (("--limit", "nanojoules=few"), "budget 'few' for nanojoules is neither a share of up to 100 % of the dense"),
        (("--limit", "nanojoules="), "budget '' for nanojoules is neither"),
        (("--limit", "nanojoules=9%", "--limit", "nanojoules=8%"), "nanojoules has two budgets; leave one of them out"),
        (("--memory", "50%", "--limit", "memory_bytes=60%"), "memory_bytes has two budgets; leave one of them out"),
    ],
)
def test_a_wrong_limit_is_one_sentence(
    request_: PlanRequest, halp_trt: HalpTrt, limits: tuple[str, ...], sentence: str
) -> None:
    refused = halp_trt("plan", request_.source, "--saliency", request_.saliency, *limits)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {sentence}")
    assert len(refused.stderr.splitlines()) == 1


def test_a_resource_without_a_row_is_refused(request_: PlanRequest) -> None:
    with pytest.raises(UsageError, match=r"no resource 'joules'; choose one of memory_bytes, .*nanojoules"):
        replace(request_, others={"joules": "80%"})
