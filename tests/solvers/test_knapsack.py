from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.solvers.knapsack import Knapsack, Picked, solve

grid_numbers = st.integers(-40, 80).map(lambda n: n / 8)  # sums are exact: ties and full knapsacks are common
real_numbers = st.floats(-100, 1000, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-9 else x)


@st.composite
def problems(draw: st.DrawFn, numbers: st.SearchStrategy[float]) -> Knapsack:
    sizes = draw(st.lists(st.integers(1, 5), max_size=5))
    costs, values = (
        tuple(tuple(draw(st.lists(numbers, min_size=size, max_size=size))) for size in sizes) for _ in range(2)
    )
    lowest, highest = math.fsum(map(min, costs)), math.fsum(map(max, costs))
    share = draw(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
    return Knapsack(costs=costs, values=values, budget=lowest + share * (highest - lowest))


def total(numbers: tuple[tuple[float, ...], ...], choices: tuple[int, ...]) -> float:
    return math.fsum(group[choice] for group, choice in zip(numbers, choices, strict=True))


def brute_force(problem: Knapsack) -> float:
    """The best value of any choices within the budget."""
    everything = itertools.product(*(range(len(costs)) for costs in problem.costs))
    fitting = (choices for choices in everything if total(problem.costs, choices) <= problem.budget)
    return max((total(problem.values, choices) for choices in fitting), default=-math.inf)


def assert_sound(problem: Knapsack, solution: Picked) -> None:
    assert math.fsum(c[i] for c, i in zip(problem.costs, solution.choices, strict=True)) <= problem.budget
    assert solution.cost == total(problem.costs, solution.choices)
    assert solution.value == total(problem.values, solution.choices)
    assert solution.bound >= solution.value


def ranked_channels(seed: int, *, num_groups: int, num_choices: int, share: float) -> Knapsack:
    """What pruning asks: a concave value and a noisy staircase of cost in every group; costs are whole numbers."""
    rng = np.random.default_rng(seed)
    costs, values = [], []
    for _ in range(num_groups):
        width = np.arange(1, num_choices + 1)
        stairs = np.ceil(width / rng.integers(1, 5)) * rng.lognormal(3, 1) * rng.normal(1, 0.05, num_choices)
        costs.append(tuple(float(cost) for cost in np.round(stairs)))
        values.append(tuple(np.cumsum(np.sort(rng.gamma(0.5, 1, num_choices))[::-1]).tolist()))
    lowest, highest = math.fsum(map(min, costs)), math.fsum(map(max, costs))
    return Knapsack(costs=tuple(costs), values=tuple(values), budget=round(lowest + share * (highest - lowest)))


@settings(max_examples=400)
@given(problems(grid_numbers))
def test_equals_brute_force(problem: Knapsack) -> None:
    solution = solve(problem)
    assert_sound(problem, solution)
    assert solution.value == brute_force(problem)
    assert solution.bound == solution.value


@settings(max_examples=200)
@given(problems(real_numbers))
def test_equals_brute_force_on_reals(problem: Knapsack) -> None:
    assume(math.fsum(map(min, problem.costs)) <= problem.budget)
    solution = solve(problem)
    best = brute_force(problem)
    assert_sound(problem, solution)
    assert solution.bound >= best or solution.bound == pytest.approx(best, rel=1e-12, abs=1e-9)
    if solution.value != pytest.approx(best, rel=1e-12, abs=1e-9):  # within rounding of the budget
        assert solution.bound > solution.value
        tighter = problem.budget - 1e-9 * (1 + abs(problem.budget))
        assert solution.value >= brute_force(Knapsack(costs=problem.costs, values=problem.values, budget=tighter))


@settings(max_examples=100)
@given(problems(grid_numbers), st.integers(0, 40))
def test_more_budget_is_never_worth_less(problem: Knapsack, more: int) -> None:
    richer = Knapsack(costs=problem.costs, values=problem.values, budget=problem.budget + more / 8)
    assert solve(richer).value >= solve(problem).value


@settings(max_examples=100)
@given(problems(grid_numbers))
def test_of_equal_values_the_cheapest_is_taken(problem: Knapsack) -> None:
    solution = solve(problem)
    everything = itertools.product(*(range(len(costs)) for costs in problem.costs))
    equals = [total(problem.costs, c) for c in everything if total(problem.values, c) == solution.value]
    assert solution.cost == min(equals)
    assert solve(problem) == solution


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_equals_integer_programming(seed: int, share: float) -> None:
    problem = ranked_channels(seed, num_groups=12, num_choices=16, share=share)
    choose_one = np.kron(np.eye(12), np.ones(16))
    peer = milp(
        -np.ravel(problem.values),
        integrality=np.ones(12 * 16),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(choose_one, 1, 1),
            LinearConstraint(np.ravel(problem.costs), -np.inf, problem.budget + 0.25),
        ],
        options={"mip_rel_gap": 0},
    )
    solution = solve(problem)
    assert_sound(problem, solution)
    assert solution.value == pytest.approx(-peer.fun, rel=1e-7)


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_network_as_large_as_resnet50_is_proved_optimal(share: float) -> None:
    problem = ranked_channels(0, num_groups=37, num_choices=256, share=share)
    solution = solve(problem)
    assert_sound(problem, solution)
    assert solution.bound == solution.value


@pytest.mark.parametrize("max_labels", [1, 10, 300])
@pytest.mark.parametrize("seed", range(5))
def test_with_too_few_labels_the_bound_stays_true(seed: int, max_labels: int) -> None:
    rng = np.random.default_rng(seed)
    costs = tuple(tuple(float(n) for n in rng.integers(0, 1000, 6)) for _ in range(7))
    problem = Knapsack(costs=costs, values=costs, budget=2222.0)  # subset sum: bounds say next to nothing
    best = solve(problem).value
    solution = solve(problem, max_labels=max_labels)
    assert_sound(problem, solution)
    assert solution.value <= best <= solution.bound


def test_infeasible_budget_names_the_lowest_cost() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"cost 3\.5, above the budget of 3;"):
        solve(Knapsack(costs=((1.5, 9.0), (2.0,)), values=((0.0, 1.0), (5.0,)), budget=3.0))


def test_a_sum_that_rounding_lifts_over_the_budget_is_not_taken() -> None:
    problem = Knapsack(costs=((0.0, 0.1), (0.0, 0.2)), values=((0.0, 1.0), (0.0, 2.0)), budget=0.3)
    solution = solve(problem)  # 0.1 + 0.2 > 0.3 in binary
    assert solution.choices == (0, 1)
    assert (solution.value, solution.bound) == (2.0, 2.0)


def test_no_group_at_all() -> None:
    assert solve(Knapsack(costs=(), values=(), budget=0.0)) == Picked(choices=(), value=0.0, cost=0.0, bound=0.0)


def test_costs_that_differ_by_less_than_rounding_sees() -> None:
    problem = Knapsack(costs=((-1e16, 0.1, 0.2), (0.0, 1.0)), values=((0.0, 1.0, 2.0), (0.0, 1.0)), budget=2.0)
    assert_sound(problem, solve(problem))


@pytest.mark.parametrize(
    ("costs", "values", "budget"),
    [(((1.0,),), (), 1.0), (((),), ((),), 1.0), (((math.nan,),), ((1.0,),), 1.0), (((1.0,),), ((1.0,),), math.inf)],
)
def test_nonsense_is_refused(
    costs: tuple[tuple[float, ...], ...], values: tuple[tuple[float, ...], ...], budget: float
) -> None:
    with pytest.raises(UsageError):
        Knapsack(costs=costs, values=values, budget=budget)
