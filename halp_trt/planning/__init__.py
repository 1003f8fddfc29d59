"""From latencies, saliency and a budget to a PruningPlan: numbers and values only, no framework."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from halp_trt.planning.chunks import channel_steps, grid_steps, slice_specs
from halp_trt.planning.halp import halp_step, step_specs
from halp_trt.planning.network import Ask, joint_blocks_step, joint_step, network_problem, plan_from
from halp_trt.planning.pricing import Lookup, counts_latency_us
from halp_trt.planning.schedule import exponential_budgets
from halp_trt.planning.surfaces import surface_from
from halp_trt.planning.uniform import uniform_step
from halp_trt.planning.widths import lowest_latency_us
from halp_trt.solvers.registry import SOLVERS
from halp_trt.specs import PruningPlan, Saliency

__all__ = [
    "METHODS",
    "SOLVERS",
    "Ask",
    "Lookup",
    "Method",
    "channel_steps",
    "counts_latency_us",
    "exponential_budgets",
    "grid_steps",
    "halp_step",
    "joint_blocks_step",
    "joint_step",
    "lowest_latency_us",
    "network_problem",
    "plan_from",
    "slice_specs",
    "step_specs",
    "surface_from",
    "uniform_step",
]


class Method(Protocol):
    """One pruning step: the current plan, cut to a budget."""

    def __call__(
        self,
        current: PruningPlan,
        saliency: Saliency,
        lookup: Lookup,
        *,
        budget_us: float,
        steps: Mapping[str, int],
        least: Mapping[str, int] | None = None,
    ) -> PruningPlan:
        """A plan within ``budget_us`` that keeps only channels of ``current``, ``least[group]`` or more of each group.

        See ``halp_step``.
        """


METHODS: Mapping[str, Method] = MappingProxyType(
    {"halp": halp_step, "joint": joint_step, "joint-blocks": joint_blocks_step, "uniform": uniform_step}
)
