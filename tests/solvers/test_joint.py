"""What brute force cannot reach: bigger problems, limits of time and space, graphs that HiGHS solves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from halp_trt.errors import HalpError, InfeasibleBudgetError
from halp_trt.solvers import frontier as frontiers
from halp_trt.solvers import halp as linears
from halp_trt.solvers import integer
from halp_trt.solvers import joint as joints
from halp_trt.solvers.frontier import frontier
from halp_trt.solvers.halp import exact, halp
from halp_trt.solvers.integer import maximise_by_integers
from halp_trt.solvers.joint import Effort, joint, maximise
from halp_trt.solvers.problem import (
    Axis,
    Group,
    Limits,
    Problem,
    Solution,
    Term,
    above,
    choices_allowed,
    limited,
    limits_from,
)
from halp_trt.solvers.registry import SOLVERS, Solving
from halp_trt.solvers.relaxation import point_at
from halp_trt.solvers.tables import bucket_tree, model_of, undominated
from tests.solvers.small_problems import alive, everything, random_problem, whole_blocks


def chain(num_groups: int, num_choices: int, seed: int = 0, *, share: float = 0.5) -> Problem:
    """A plain network with noisy staircases."""
    rng = np.random.default_rng(seed)
    widths = tuple(range(1, num_choices + 1))
    groups = [
        Group(
            name=f"g{i}", widths=widths, values=tuple(np.cumsum(np.sort(rng.gamma(0.5, 1, num_choices))[::-1]).tolist())
        )
        for i in range(num_groups)
    ]
    axes = [Axis(groups=(i,), parts=(widths,)) for i in range(num_groups)]
    stairs = np.ceil(np.asarray(widths) / 3)
    terms = [
        Term(
            name=f"l{i}",
            costs=np.round(np.outer(stairs, stairs) * rng.lognormal(3, 1) * rng.normal(1, 0.05, (num_choices,) * 2))[
                None
            ],
            writes=axes[i + 1],
            reads=axes[i],
        )
        for i in range(num_groups - 1)
    ]
    dense = math.fsum(float(term.costs[0, -1, -1]) for term in terms)
    return Problem(groups=tuple(groups), terms=tuple(terms), budgets={"r0": share * dense})


def test_several_hundred_groups_are_solved_to_the_gap() -> None:
    solution = joint(chain(400, 16))
    assert solution.gap <= 1e-4
    assert solution.status != "limit"
    assert solution.costs["r0"] <= chain(400, 16).budgets["r0"]


def test_the_same_problem_gives_the_same_plan() -> None:
    problem = chain(40, 12)
    assert joint(problem).choices == joint(problem).choices


def test_when_the_time_is_up_the_best_plan_so_far_has_an_honest_gap() -> None:
    problem = chain(60, 24)
    hurried, proven = joint(problem, seconds=1e-9), joint(problem, gap=0.0)
    assert problem.fits(hurried.choices)
    assert hurried.status == "limit"
    assert hurried.value <= proven.value <= proven.bound <= hurried.bound * (1 + 1e-9)
    assert hurried.gap > 1e-4


def test_without_space_for_labels_the_bound_stays_true() -> None:
    problem = chain(30, 8, share=0.4)
    model = undominated(model_of(problem))
    optimum = joint(problem, gap=0.0).value

    def price(states: np.ndarray) -> float | None:
        choices = tuple(int(state) for state in states[: len(problem.groups)])
        return problem.value(choices) if problem.fits(choices) else None

    for max_labels in (1, 3, 10):
        standing = maximise(model, price, Effort(gap=0.0, max_labels=max_labels), ("r0",))
        assert standing.value <= optimum <= standing.bound * (1 + 1e-9)


def test_integer_programming_gives_the_same_optimum() -> None:
    solved = 0
    for seed in range(60):
        problem = random_problem(seed, blocks=False)
        truth = everything(problem)
        best = truth.best(alive(problem, truth), np.asarray(list(problem.budgets.values())), live=True)
        found = maximise_by_integers(model_of(problem), gap=0.0, seconds=None)
        if best == -math.inf:
            assert found.point is None
            continue
        assert found.point is not None
        assert found.point.value == pytest.approx(best)
        assert found.bound >= best - 1e-6
        solved += 1
    assert solved > 30


def test_a_graph_that_ties_everything_together_goes_to_integer_programming() -> None:
    problem = chain(14, 6)
    axes = [Axis(groups=(i,), parts=(group.widths,)) for i, group in enumerate(problem.groups)]
    rng = np.random.default_rng(1)
    tangle = [
        Term(
            name=f"t{i}.{j}", costs=np.sort(rng.integers(0, 9, (1, 6, 6)), axis=1) * 1.0, writes=axes[i], reads=axes[j]
        )
        for i in range(14)
        for j in range(i)
    ]
    problem = replace(problem, terms=(*problem.terms, *tangle), budgets={"r0": problem.budgets["r0"] + 200})
    assert bucket_tree(model_of(problem), max_entries=1 << 23) is None
    solution = joint(problem, gap=0.05, seconds=20)
    assert problem.fits(solution.choices)
    assert solution.bound >= solution.value > 0


def tied_together(seed: int) -> Problem:
    """Six groups of five choices, every pair of which a layer ties together."""
    rng = np.random.default_rng(seed)
    groups = tuple(
        Group(name=f"g{i}", widths=tuple(range(1, 6)), values=tuple(np.cumsum(rng.random(5)).tolist()))
        for i in range(6)
    )
    axes = [Axis(groups=(i,), parts=(group.widths,)) for i, group in enumerate(groups)]
    terms = tuple(
        Term(name=f"t{i}.{j}", costs=rng.integers(1, 60, (1, 5, 5)) * 1.0, writes=axes[i], reads=axes[j])
        for i in range(6)
        for j in range(i)
    )
    return Problem(groups=groups, terms=terms, budgets={"r0": 1.0})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_integer_programming_names_the_lowest_and_reaches_it(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joints, "MOST_ENTRIES", 10)
    problem = tied_together(seed)
    lowest = float(everything(problem).costs[0].min())
    with pytest.raises(InfeasibleBudgetError, match=f"the lowest reachable is {lowest:g};"):
        joint(problem)
    with pytest.raises(InfeasibleBudgetError, match="the lowest reachable is"):
        joint(replace(problem, budgets={"r0": lowest * (1 - 1e-9)}))
    found = joint(replace(problem, budgets={"r0": lowest}))
    assert found.costs["r0"] == lowest


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e9])
def test_integer_programming_is_not_misled_by_units(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joints, "MOST_ENTRIES", 10)
    problem = tied_together(1)
    truth = everything(problem)
    budget = float(np.quantile(truth.costs[0], 0.2))
    best = truth.best(alive(problem, truth), np.asarray([budget]), live=True)
    scaled = Problem(
        groups=tuple(replace(g, values=tuple(scale * value for value in g.values)) for g in problem.groups),
        terms=tuple(replace(t, costs=scale * t.costs) for t in problem.terms),
        budgets={"r0": scale * budget},
    )
    found = joint(scaled, gap=0.0)
    assert found.value == pytest.approx(scale * best, rel=1e-5)
    assert found.bound >= scale * best * (1 - 1e-12)
    assert found.gap < 1e-5


def test_the_cheapest_plan_found_in_time_proves_no_budget_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joints, "MOST_ENTRIES", 10)
    problem = tied_together(0)
    lowest = float(everything(problem).costs[0].min())
    monkeypatch.setattr(integer, "_MOST_SHARES", 0)  # HiGHS finds nothing
    narrowest = point_at(model_of(problem), np.zeros(6, np.intp))
    monkeypatch.setattr(joints, "_cheapest", lambda *_: (narrowest, lowest / 2))
    with pytest.raises(HalpError, match="there may be one") as caught:
        joint(replace(problem, budgets={"r0": lowest}), seconds=1.0)
    assert not isinstance(caught.value, InfeasibleBudgetError)


def test_exact_does_not_wait_for_integer_programming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linears, "MOST_ENTRIES", 10)
    broke = 0
    for seed in range(8):
        problem = tied_together(seed)
        problem = replace(problem, budgets={"r0": float(np.quantile(everything(problem).costs[0], 0.05))})
        try:
            plan = exact(problem)
        except InfeasibleBudgetError:
            continue
        assert problem.fits(plan.choices)
        assert plan.bound >= plan.value
        broke += plan.value == halp(problem).value < plan.bound
    assert broke > 0


def test_integer_programming_in_a_hurry_gives_the_narrowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joints, "MOST_ENTRIES", 10)
    problem = tied_together(0)
    problem = replace(problem, budgets={"r0": problem.costs([0] * 6)["r0"]})
    monkeypatch.setattr(integer, "_MOST_SHARES", 0)
    hurried = joint(problem)
    assert (hurried.choices, hurried.status) == ((0,) * 6, "limit")
    truth = everything(problem)
    assert hurried.bound >= truth.best(alive(problem, truth), np.asarray([problem.budgets["r0"]]), live=True)


def test_a_late_optimum_is_not_thrown_away() -> None:
    problem = chain(30, 16)
    assert exact(problem, seconds=1e-9).value == exact(problem).value


@pytest.mark.parametrize(
    "amount", [1.0, 371.16535930197364, 99.79241, 1e-9 / 3, 12345678.9, 0.1 + 0.2, 999999.5, 270.0]
)
def test_amounts_are_rounded_up(amount: float) -> None:
    assert amount <= float(above(amount)) <= amount * (1 + 1.1e-5)
    assert len(above(amount).replace(".", "").lstrip("0").partition("e")[0]) <= 7


def test_more_variables_than_an_array_has_axes_are_no_tree() -> None:
    groups = tuple(Group(name=f"g{i}", widths=(1,), values=(1.0,)) for i in range(80))
    axes = [Axis(groups=(i,), parts=((1,),)) for i in range(80)]
    terms = tuple(
        Term(name=f"{i}.{j}", costs=np.ones((1, 1, 1)), writes=axes[i], reads=axes[j])
        for i in range(80)
        for j in range(i)
    )
    problem = Problem(groups=groups, terms=terms, budgets={"r0": 1e4})
    assert bucket_tree(model_of(problem), max_entries=1 << 23) is None
    assert joint(problem).value == 80


def test_budgets_that_exclude_each_other_are_named() -> None:
    widths = (1, 2)
    groups = (Group(name="a", widths=widths, values=(1.0, 2.0)),)
    axis = Axis(groups=(0,), parts=(widths,))
    costs = np.asarray([[[4.0], [1.0]], [[1.0], [4.0]]])  # cheap in one resource where it is dear in the other
    problem = Problem(groups=groups, terms=(Term(name="l", costs=costs, writes=axis),), budgets={"us": 3.0, "mb": 3.0})
    with pytest.raises(InfeasibleBudgetError, match="3 for us: the lowest reachable is 4 while mb meet"):
        joint(problem)


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_limits_take_choices_away() -> None:
    group = Group(name="a", widths=(0, 2, 4, 6, 8), values=(0.0,) * 5, dense=16)
    assert choices_allowed([group], Limits(least={"a": 3})) == ((2, 3, 4),)
    assert choices_allowed([group], Limits(least={}, frozen=frozenset({"a"}))) == ((4,),)
    assert choices_allowed([group], Limits(least={}, step_fraction=0.25)) == ((3, 4),)
    assert choices_allowed([group], Limits(least={}, group_fraction=0.75)) == ((2, 3, 4),)
    assert choices_allowed([group], Limits(least={"a": 99})) == ((4,),)
    assert limits_from(["a=3", "a=2", "1"], ["b"], 0.5) == Limits(
        least={"a": 3}, least_of_all=1, frozen=frozenset({"b"}), group_fraction=0.5
    )


def test_limits_hold_for_the_optimum() -> None:
    problem = chain(12, 6, share=0.7)
    free = joint(problem)
    kept = limited(problem, Limits(least={"g3": 6}, least_of_all=3))
    solution = joint(replace(kept, budgets={"r0": 1.1 * problem.budgets["r0"]}), gap=0.0)
    assert min(solution.choices) >= 2
    assert solution.choices[3] == 5
    assert solution.choices != free.choices


@pytest.mark.slow
def test_the_papers_recurrence_ends_in_time_too() -> None:
    problem = chain(150, 64, share=0.7)
    whole, hurried = halp(problem), halp(problem, seconds=1e-9)
    assert problem.fits(hurried.choices)
    assert 0.95 * whole.value <= hurried.value <= whole.value <= hurried.bound
    assert hurried.choices != whole.choices, "the coarse recurrence's, as the fine one was not waited for"


# ---- frontier -------------------------------------------------------------------------------------------------------


def test_every_point_of_the_frontier_is_the_optimum_for_its_cost() -> None:
    problem = chain(10, 8)
    dense = 2 * problem.budgets["r0"]
    points = frontier(problem, "joint", 0.2 * dense, 0.9 * dense, dense=dense)
    assert len(points) > 10
    values = [point.solution.value for point in points]
    assert values == sorted(values)
    for point in points:
        assert 0.2 * dense <= point.budget <= 0.9 * dense or point.budget == pytest.approx(0.2 * dense)
        best = joint(replace(problem, budgets={"r0": point.budget}), gap=0.0)
        assert point.solution.value == pytest.approx(best.value, rel=1e-4) or point.solution.gap > 0
        assert point.solution.costs["r0"] <= point.budget


@pytest.mark.parametrize("solver", ["joint", "joint-blocks"])
def test_the_frontier_of_a_small_network_is_that_of_all_plans(solver: str) -> None:
    num_points = 0
    for seed in range(60):
        problem = random_problem(seed, num_resources=1)
        truth = everything(problem)
        which = (alive if solver == "joint" else whole_blocks)(problem, truth)
        costs, values = truth.costs[0][which], truth.live_values[which]
        low, high = (float(np.quantile(costs, q)) for q in (0.2, 0.9))
        if low <= 0:
            continue
        points = frontier(problem, solver, low, high, dense=float(costs.max()))
        for budget in (*np.linspace(low, high, 9), *(point.budget for point in points)):
            if budget < low:
                continue
            shown = [p.solution.value for p in points if p.solution.costs["r0"] <= budget * (1 + 1e-12)]
            assert max(shown) == pytest.approx(values[costs <= budget * (1 + 1e-12)].max())
        assert all(point.solution.gap == 0 for point in points)
        num_points += len(points)
    assert num_points > 200


def test_a_solver_of_one_s_own_is_swept_by_its_row_and_not_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(problem: Problem, *, gap: float, seconds: float | None) -> Solution:
        asked.append(problem.budgets["r0"])
        return joint(problem, gap=gap, seconds=seconds)

    monkeypatch.setitem(SOLVERS, "joint-of-mine", Solving(solve=counted))
    problem = chain(6, 4)
    dense = 2 * problem.budgets["r0"]
    points = frontier(problem, "joint-of-mine", 0.5 * dense, 0.9 * dense, dense=dense)
    assert len(asked) > 1
    assert {point.budget for point in points} <= set(asked), "budget by budget"
    asked.clear()
    monkeypatch.setitem(SOLVERS, "mine", Solving(solve=counted, follows_hull=True))
    assert frontier(problem, "mine", 0.5 * dense, 0.9 * dense, dense=dense)
    assert asked == [], "along the hull"


def test_between_corners_plans_are_nearly_the_best_and_their_gaps_are_honest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frontiers, "_FEW_PLANS", 0.0)
    problem = chain(8, 4, seed=3)
    dense = 2 * problem.budgets["r0"]
    points = frontier(problem, "joint", 0.2 * dense, 0.9 * dense, dense=dense)
    assert any(point.solution.gap > 0 for point in points)
    for share in np.linspace(0.25, 0.9, 27):
        best = joint(replace(problem, budgets={"r0": share * dense}), gap=0.0).value
        shown = [point.solution for point in points if point.budget <= share * dense]
        assert max(solution.value for solution in shown) >= 0.97 * best
    for point in points:
        best = joint(replace(problem, budgets={"r0": point.budget}), gap=0.0).value
        assert point.solution.value <= best <= point.solution.bound * (1 + 1e-9)


def test_a_frontier_in_a_hurry_is_shorter() -> None:
    problem = chain(10, 8)
    dense = 2 * problem.budgets["r0"]
    hurried = frontier(problem, "joint", 0.2 * dense, 0.9 * dense, dense=dense, effort=Effort(seconds=1e-9))
    assert 1 <= len(hurried) < len(frontier(problem, "joint", 0.2 * dense, 0.9 * dense, dense=dense))
    assert all(problem.costs(point.solution.choices)["r0"] <= point.budget for point in hurried)


@pytest.mark.parametrize("solver", ["halp", "exact"])
def test_linear_solvers_have_a_frontier_too(solver: str) -> None:
    problem = chain(8, 6)
    dense = 2 * problem.budgets["r0"]
    points = frontier(problem, solver, 0.3 * dense, dense, dense=dense)
    assert len(points) > 3
    assert all(point.solution.costs["r0"] <= point.budget for point in points)
    costs, values = ([of(p.solution) for p in points] for of in (lambda s: s.costs["r0"], lambda s: s.value))
    assert costs == sorted(set(costs))
    assert values == sorted(set(values))
