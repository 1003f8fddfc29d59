"""Solutions as they are shown and written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from halp_trt.solvers.problem import LATENCY, Problem, Solution

__all__ = ["Answer", "Sweep", "answer_from"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A ``Solution`` in a form to show and store; ``kept`` maps each group to its width, or index in an instance."""

    value: float
    bound: float
    gap: float
    latency_us: float
    budget_us: float
    seconds: float
    kept: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A Pareto front in a form to show and store: answers of rising latency and value.

    They begin at ``low_us``, or at the lowest reachable latency; ``seconds`` is the wall time of all together.
    """

    solver: str
    dense_us: float
    low_us: float
    seconds: float
    points: tuple[Answer, ...]


def answer_from(problem: Problem, solution: Solution, budget_us: float) -> Answer:
    """The answer that shows a solution."""
    return Answer(
        value=solution.value,
        bound=solution.bound,
        gap=solution.gap,
        latency_us=solution.costs[LATENCY],
        budget_us=budget_us,
        seconds=solution.seconds,
        kept={g.name: g.widths[choice] for g, choice in zip(problem.groups, solution.choices, strict=True)},
    )
