"""Budgets of the iterative schedule, from the latency of the dense network down to the target."""

from __future__ import annotations

import math

from halp_trt.errors import UsageError

__all__ = ["exponential_budgets"]


def exponential_budgets(dense_us: float, target_us: float, num_steps: int) -> tuple[float, ...]:
    """The budget of every pruning step, falling by the same factor each time.

    ``B_t = exp((t/T) ln C + (1 - t/T) ln L0)`` for ``t = 1..T``, with ``C`` the target and ``L0`` the dense latency
    (FORCE's schedule, as HALP uses it: arXiv:2210.06659, sec. 3.3).

    Args:
        dense_us: latency of the dense network in microseconds, ``L0``.
        target_us: the final budget in microseconds, ``C``; returned unrounded as the last budget.
        num_steps: the number of pruning steps, ``T``.

    Raises:
        UsageError: a latency is not positive and finite, or there is no step.
    """
    if num_steps < 1:
        raise UsageError(f"a schedule needs at least 1 pruning step, got {num_steps}")
    if not all(math.isfinite(value) and value > 0 for value in (dense_us, target_us)):
        raise UsageError(
            f"a schedule needs positive, finite latencies, got {dense_us} us dense and {target_us} us target"
        )
    start, end = math.log(dense_us), math.log(target_us)
    shares = (step / num_steps for step in range(1, num_steps))
    budgets = (math.exp(share * end + (1 - share) * start) for share in shares)
    lowest, highest = sorted((dense_us, target_us))  # rounding must not leave them: there may be no plan beyond
    return (*(min(max(budget, lowest), highest) for budget in budgets), target_us)
