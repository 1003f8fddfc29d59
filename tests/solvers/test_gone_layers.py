"""Instances taken in the middle of a schedule: layers that are gone have a null in place of their saliency."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from halp_trt.report.planning import describe_answer
from halp_trt.solvers.instance import parse_instance
from halp_trt.solvers.problem import LATENCY
from halp_trt.solvers.registry import SOLVERS
from halp_trt.specs import Budget
from halp_trt.workflows.plan import PlanRequest, make_plan

LATENCIES = [[0, 0, 0], [0, 3, 5], [0, 6, 9]]
INSTANCE: dict[str, Any] = {
    "layers": [
        {"name": "stem", "reads": None, "latency_us": [0, 2, 3], "saliency": [0, 2, 3]},
        {"name": "a1", "reads": ["stem", "a2", "b2"], "latency_us": LATENCIES, "saliency": [0, 4, 5]},
        {"name": "a2", "reads": ["a1"], "latency_us": LATENCIES, "saliency": [0, 4, 6]},
        {"name": "b1", "reads": ["stem", "a2", "b2"], "latency_us": LATENCIES, "saliency": None},
        {"name": "b2", "reads": ["b1"], "latency_us": LATENCIES, "saliency": None},
    ],
    "groups": [["stem", "a2", "b2"], ["a1"], ["b1"]],
    "choices": [3, 3, 3],
}


def with_zeros() -> dict[str, Any]:
    same = copy.deepcopy(INSTANCE)
    for layer in same["layers"]:
        layer["saliency"] = layer["saliency"] or [0, 0, 0]
    return same


def test_null_is_no_saliency() -> None:
    gone, zeros = (parse_instance(data, "made up") for data in (INSTANCE, with_zeros()))
    assert gone.groups == zeros.groups
    assert gone.blocks == zeros.blocks
    assert [group.values for group in gone.groups] == [(0.0, 6.0, 9.0), (0.0, 4.0, 5.0), (0.0, 0.0, 0.0)]


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("share", [0.7, 0.8, 1.0])
def test_every_solver_plans_with_gone_layers(solver: str, share: float) -> None:
    found = []
    for data in (INSTANCE, with_zeros()):
        problem = parse_instance(data, "made up")
        found.append(SOLVERS[solver](replace(problem, budgets={LATENCY: share * problem.budgets[LATENCY]})))
    assert found[0].value == found[1].value > 0
    assert found[0].costs[LATENCY] <= share * 39


def test_the_block_that_is_gone_is_removed_where_blocks_may_be() -> None:
    problem = parse_instance(INSTANCE, "made up")
    solution = SOLVERS["joint-blocks"](replace(problem, budgets={LATENCY: 22.0}))
    assert solution.choices == (2, 2, 0)
    assert solution.value == 14.0


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_file_with_gone_layers_is_planned(solver: str, tmp_path: Path) -> None:
    path = tmp_path / "middle.json"
    path.write_text(json.dumps(INSTANCE))
    answer, solution, plan, dense_us = make_plan(PlanRequest(source=path, budget=Budget(fraction=0.8), solver=solver))
    assert answer is not None
    assert solution.costs[LATENCY] <= 0.8 * dense_us
    assert plan is None


@pytest.mark.parametrize("solver", sorted(SOLVERS))
def test_a_network_whose_every_layer_is_gone_is_planned_and_told_too(solver: str, tmp_path: Path) -> None:
    data = copy.deepcopy(INSTANCE)
    for layer in data["layers"]:
        layer["saliency"] = None
    path = tmp_path / "gone.json"
    path.write_text(json.dumps(data))
    answer, solution, _, dense_us = make_plan(PlanRequest(source=path, budget=Budget(fraction=0.8), solver=solver))
    assert solution.value == 0
    assert "0" in describe_answer(answer, solution, dense_us)
