"""The error for a budget that no plan meets."""

from __future__ import annotations

import math

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.solvers.problem import above

__all__ = ["infeasible"]


def infeasible(resource: str, budget: float, least: float, others: str = "") -> InfeasibleBudgetError:
    """The error for a budget that no plan meets; it names the lowest reachable cost where that is known.

    Args:
        resource: the resource that binds.
        budget: the budget of it.
        least: the lowest reachable cost; NaN where it is unknown.
        others: words on other budgets that are met meanwhile.
    """
    least = max(least, math.nextafter(budget, math.inf))  # sums may say less by rounding
    if math.isnan(least):
        return InfeasibleBudgetError(
            f"no plan meets the budget of {budget:.6g} for {resource}{others}; raise the budget, or relax widths that "
            "have to stay"
        )
    shown = f"{budget:.6g}" if f"{budget:.6g}" != f"{least:.6g}" else f"{budget!r}"
    return InfeasibleBudgetError(
        f"no plan meets the budget of {shown} for {resource}: the lowest reachable is {above(least)}{others}; raise "
        "the budget, or relax widths that have to stay"
    )
