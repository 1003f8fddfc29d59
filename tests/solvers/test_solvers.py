from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.solvers.halp import linearised
from halp_trt.solvers.problem import Axis, Group, Problem, Solution, Term
from halp_trt.solvers.registry import SOLVERS
from tests.solvers.small_problems import alive, everything, random_problem, whole_blocks


def budgets_of(problem: Problem) -> np.ndarray:
    return np.asarray(list(problem.budgets.values()))


def assert_sound(problem: Problem, solution: Solution, *, live: bool) -> None:
    assert solution.costs == problem.costs(solution.choices)
    assert all(cost <= problem.budgets[name] for name, cost in solution.costs.items())
    assert solution.value == problem.value(solution.choices, live=live)
    assert solution.bound >= solution.value


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joint", "joint-blocks"])
@pytest.mark.parametrize("chunk", range(4))
def test_joint_equals_brute_force(name: str, chunk: int) -> None:
    for seed in range(chunk * 100, (chunk + 1) * 100):
        problem = random_problem(seed)
        truth = everything(problem)
        kind = alive(problem, truth) if name == "joint" else whole_blocks(problem, truth)
        best = truth.best(kind, budgets_of(problem), live=True)
        if best == -math.inf:
            with pytest.raises(InfeasibleBudgetError):
                SOLVERS[name](problem, gap=0.0)
            continue
        solution = SOLVERS[name](problem, gap=0.0)
        assert_sound(problem, solution, live=True)
        assert solution.value == best, seed
        assert solution.bound == pytest.approx(best, rel=1e-9, abs=1e-9), seed
        assert solution.status == "optimal"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(3))
def test_exact_is_the_optimum_of_the_linearised_problem(chunk: int) -> None:
    for seed in range(chunk * 100, (chunk + 1) * 100):
        problem = linearised(random_problem(seed))
        truth = everything(problem)
        best = truth.best(np.ones(len(truth.values), bool), budgets_of(problem), live=False)
        if best == -math.inf:
            with pytest.raises(InfeasibleBudgetError):
                SOLVERS["exact"](problem, gap=0.0)
            continue
        solution = SOLVERS["exact"](problem, gap=0.0)
        assert_sound(problem, solution, live=False)
        assert solution.value == best, seed
        assert solution.bound == pytest.approx(best, rel=1e-9, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["halp", "exact"])
def test_linear_solvers_meet_the_budgets_at_true_widths(name: str) -> None:
    solved = 0
    for seed in range(220):
        problem = random_problem(seed)
        truth = everything(problem)
        fitting = truth.best(np.ones(len(truth.values), bool), budgets_of(problem), live=False)
        try:
            solution = SOLVERS[name](problem)
        except InfeasibleBudgetError:
            continue
        solved += 1
        assert_sound(problem, solution, live=False)
        assert solution.value <= fitting
    assert solved > 100


@pytest.mark.slow
def test_exact_is_the_best_of_the_plans_that_fit_at_present_and_at_true_widths() -> None:
    broke = 0
    for seed in range(250):
        problem = random_problem(seed)
        truth, lines = everything(problem), everything(linearised(problem))
        fits = (lines.costs <= budgets_of(problem)[:, None]).all(axis=0)
        best = truth.best(fits, budgets_of(problem), live=False)
        if best == -math.inf:
            continue
        solution = SOLVERS["exact"](problem, gap=0.0)
        assert_sound(problem, solution, live=False)
        assert solution.value == best, seed
        assert solution.bound >= best
        broke += best < lines.best(fits, budgets_of(problem), live=False)
    assert broke > 5


@pytest.mark.slow
def test_halp_spends_several_budgets_and_more_of_one_is_never_worth_less() -> None:
    shares = []
    for seed in range(50):
        problem = random_problem(seed, num_resources=3)
        value = -math.inf
        for extra in (0.0, 0.5, 2.0, 8.0, 32.0):
            budgets = problem.budgets | {"r1": problem.budgets["r1"] + extra}
            try:
                solution = SOLVERS["halp"](replace(problem, budgets=budgets))
            except InfeasibleBudgetError:
                continue
            assert_sound(problem=replace(problem, budgets=budgets), solution=solution, live=False)
            assert solution.value >= value, seed
            value = solution.value
            shares.append(value / (solution.bound or 1.0))
    assert len(shares) > 100
    assert np.mean(shares) > 0.9


def test_exact_is_not_misled_by_decimal_costs() -> None:
    """Differences of costs like 0.1 are rounded; the dense plan meets its own cost all the same."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        widths = (1, 2, 3)
        groups = tuple(
            Group(name=f"g{i}", widths=widths, values=tuple(np.cumsum(rng.integers(1, 9, 3)) / 10)) for i in range(4)
        )
        axes = [Axis(groups=(i,), parts=(widths,)) for i in range(4)]
        terms = tuple(
            Term(name=f"l{i}", costs=rng.integers(0, 30, (1, 3, 3)) / 10, writes=axes[i], reads=axes[i - 1])
            for i in range(4)
        )
        problem = Problem(groups=groups, terms=terms, budgets={"r0": 0.0})
        dense = problem.costs([2] * 4)["r0"]
        solution = SOLVERS["exact"](replace(problem, budgets={"r0": dense}))
        assert solution.bound >= problem.value([2] * 4)
        assert solution.value == problem.value([2] * 4)


def test_halp_is_never_better_than_exact() -> None:
    gaps = []
    for seed in range(200):
        problem = linearised(random_problem(seed, num_resources=1))
        try:
            optimum = SOLVERS["exact"](problem)
        except InfeasibleBudgetError:
            continue
        solution = SOLVERS["halp"](problem)
        assert solution.value <= optimum.value
        assert solution.bound == optimum.bound
        gaps.append(solution.gap)
    assert max(gaps) > 0  # the recurrence is greedy
    assert np.median(gaps) == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["halp", "exact"])
def test_linear_solvers_use_the_budget_where_narrow_layers_may_be_slow(name: str, share: float) -> None:
    """True widths cost far more than HALP's problem says, which must not end at the narrowest network."""
    rng = np.random.default_rng(0)
    widths = tuple(range(1, 9))
    groups = tuple(
        Group(name=f"g{i}", widths=widths, values=tuple(np.cumsum(rng.integers(1, 99, 8)).astype(float).tolist()))
        for i in range(30)
    )
    axes = [Axis(groups=(i,), parts=(widths,)) for i in range(30)]
    terms = tuple(
        Term(
            name=f"l{i}",
            costs=np.round(99 * np.outer(widths, widths) * rng.lognormal(0, 1, (8, 8)))[None],
            writes=axes[i + 1],
            reads=axes[i],
        )
        for i in range(29)
    )
    problem = Problem(groups=groups, terms=terms, budgets={"r0": 0.0})
    budget = share * problem.costs([7] * 30)["r0"]
    problem = replace(problem, budgets={"r0": budget})
    solution = SOLVERS[name](problem)
    assert_sound(problem, solution, live=False)
    assert solution.costs["r0"] >= 0.75 * budget
    hurried = SOLVERS[name](problem, seconds=1e-9)
    assert_sound(problem, hurried, live=False)
    assert hurried.value <= solution.value


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOLVERS))
def test_more_budget_is_never_worth_less(name: str) -> None:
    compared = 0
    for seed in range(80):
        problem = random_problem(seed, num_resources=1)
        value = -math.inf
        for extra in (0.0, 0.125, 0.5, 2.0, 8.0):
            budget = problem.budgets["r0"] + extra
            try:
                solution = SOLVERS[name](replace(problem, budgets={"r0": budget}))
            except InfeasibleBudgetError:
                assert value == -math.inf
                continue
            assert solution.value >= value, seed
            compared += value > -math.inf
            value = solution.value
    assert compared > 200
