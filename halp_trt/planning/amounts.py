"""Budgets of resources beside latency: read from texts, spread over the steps, and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from halp_trt.errors import InfeasibleBudgetError, UsageError
from halp_trt.planning.resources import RESOURCES
from halp_trt.planning.schedule import exponential_budgets
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.texts import amount_in

__all__ = ["ResourceBudgets", "amount", "check_limits", "limits_in", "resource_schedule", "total_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceBudgets:
    """Limits on what a network takes of resources beside latency.

    Attributes:
        limits: largest sum over all layers, by the name of the resource in ``RESOURCES``.
        batch_size: the target's batch size.
    """

    limits: Mapping[str, float]
    batch_size: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "limits", MappingProxyType(dict(self.limits)))

    def fits(self, graph: ChannelGraph, counts: Mapping[str, int]) -> bool:
        """True if a network with these widths keeps within all limits."""
        return all(total_of(graph, counts, name, self.batch_size) <= limit for name, limit in self.limits.items())

    def check(self, plan: PruningPlan) -> None:
        """Refuses a plan that exceeds a limit.

        Raises:
            InfeasibleBudgetError: it does; names the limits.
        """
        if not self.fits(plan.graph, plan.counts()):
            raise InfeasibleBudgetError(
                f"no plan was found that meets a latency budget of {plan.budget_us:.6g} us and the limits on "
                f"{', '.join(self.limits)}; raise one of them"
            )


def total_of(graph: ChannelGraph, counts: Mapping[str, int], resource: str, batch_size: int = 1) -> float:
    """The sum of a resource over all layers of a network with these widths; removed layers take nothing."""
    living = (layer for layer in graph.layers if layer.lives_at(counts))
    return math.fsum(RESOURCES[resource](layer.spec_at(counts), batch_size) for layer in living)


def limits_in(texts: Sequence[str]) -> dict[str, str]:
    """The limits in texts ``NAME=VALUE``, by name.

    Raises:
        UsageError: a text is no such limit, or a resource has two.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"limit {text!r} is not NAME=VALUE; try 'parameters=60%'")
        if name in found:
            raise UsageError(f"{name} has two budgets; leave one of them out")
        found[name] = value
    return found


def check_limits(limits: Mapping[str, str]) -> None:
    """Refuses limits that make no sense for any network.

    Raises:
        UsageError: a name is none of ``RESOURCES``, or a text is no limit.
    """
    for name, text in limits.items():
        if name not in RESOURCES:
            raise UsageError(f"no resource {name!r}; choose one of {', '.join(RESOURCES)}")
        amount(name, text, 1.0)


def amount(name: str, text: str, dense: float) -> float:
    """The limit on a resource that a text says: a share of the dense network's, or a number (``60%``, ``50k``).

    Raises:
        UsageError: it says neither.
    """
    share = text.strip().endswith("%")
    number = amount_in(text.strip().removesuffix("%"))
    if number is None or number <= 0 or (share and number > 100):
        raise UsageError(
            f"budget {text!r} for {name} is neither a share of up to 100 % of the dense network's nor a number above "
            "0; try '60%'"
        )
    return number / 100 * dense if share else number


def resource_schedule(
    graph: ChannelGraph, limits: Mapping[str, str], *, num_steps: int, batch_size: int = 1
) -> tuple[ResourceBudgets, ...]:
    """The limits in every pruning step, falling from the dense network's by the same factor each time.

    A limit above what the dense network takes binds in no step.

    Raises:
        UsageError: a limit makes no sense.
    """
    check_limits(limits)
    ramps = {}
    for name, text in limits.items():
        dense = total_of(graph, graph.dense_counts(), name, batch_size)
        target = amount(name, text, dense)
        ramps[name] = exponential_budgets(dense, target, num_steps) if 0 < target < dense else (target,) * num_steps
    return tuple(
        ResourceBudgets(limits={name: ramp[step] for name, ramp in ramps.items()}, batch_size=batch_size)
        for step in range(num_steps)
    )
