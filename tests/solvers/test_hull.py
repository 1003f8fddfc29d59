"""The concave hull of the frontier against all plans, and what a sweep costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from halp_trt.solvers import hull
from halp_trt.solvers.hull import spans
from halp_trt.solvers.joint import prepared
from halp_trt.solvers.problem import Problem
from halp_trt.solvers.relaxation import Point
from tests.solvers.small_problems import alive, everything, random_problem, whole_blocks
from tests.solvers.test_joint import chain

Floats = npt.NDArray[np.float64]


def vertices(costs: Floats, values: Floats) -> list[tuple[float, float]]:
    """The corners of the concave hull from the cheapest plan to the most valuable one."""
    found: list[tuple[float, float]] = []
    for cost, value in sorted(zip(costs.tolist(), values.tolist(), strict=True), key=lambda plan: (plan[0], -plan[1])):
        if found and value <= found[-1][1]:
            continue
        while len(found) > 1 and (found[-1][1] - found[-2][1]) * (cost - found[-1][0]) <= (value - found[-1][1]) * (
            found[-1][0] - found[-2][0]
        ):
            found.pop()
        found.append((cost, value))
    return found


def corners(
    problem: Problem, *, blocks: bool, low: float = -1.0, high: float = 1e9, spacing: float = 0.0
) -> list[Point]:
    model, tree = prepared(problem, blocks=blocks)
    assert tree is not None
    pairs = list(spans(model, tree, low, high, spacing=spacing))
    return list({id(point): point for pair in pairs for point in pair}.values())


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_corners_are_those_of_all_plans(seed: int, blocks: bool) -> None:
    num_corners = 0
    for number in range(40):
        problem = random_problem(1000 * seed + number, num_resources=1)
        truth = everything(problem)
        which = whole_blocks(problem, truth) if blocks else alive(problem, truth)
        expected = vertices(truth.costs[0][which], truth.live_values[which])
        found = corners(problem, blocks=blocks)
        if len(expected) > 1:
            assert [(float(p.costs[0]), p.value) for p in found] == expected
            num_corners += len(expected)
    assert num_corners > 80


@pytest.mark.slow
def test_what_is_cut_from_the_tables_takes_no_corner_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = chain(30, 32)
    dense = problem.costs([31] * 30)["r0"]
    ask = {"low": 0.2 * dense, "high": 0.9 * dense, "spacing": 1e-4 * dense}
    found = corners(problem, blocks=False, **ask)
    sizes = []
    whole = hull._cut
    monkeypatch.setattr(hull, "_cut", lambda span: sizes.append(sum(whole(span).tables.model.sizes)) or span)
    assert [p.value for p in found] == pytest.approx([p.value for p in corners(problem, blocks=False, **ask)])
    assert len(found) > 50
    assert np.median(sizes) < sum(prepared(problem, blocks=False)[0].sizes)


def test_nearby_corners_are_not_told_apart() -> None:
    problem = chain(20, 16)
    dense = problem.costs([15] * 20)["r0"]
    costs = [
        float(p.costs[0]) for p in corners(problem, blocks=False, low=0.3 * dense, high=dense, spacing=0.05 * dense)
    ]
    assert costs == sorted(costs)
    every = corners(problem, blocks=False, low=0.3 * dense, high=dense)
    assert 5 < len(costs) < len(every)
