"""A pruning method as a value: the function that plans one step, and a few facts about it for the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from halp_trt.planning.chunks import grid_chunks
from halp_trt.planning.pricing import Lookup
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency

__all__ = ["Chunks", "Method", "PlanStep"]


class PlanStep(Protocol):
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
        """Returns the most salient plan within a budget that the method finds, with its true latency and a bound.

        Args:
            current: the plan so far; if it meets the budget already, it is returned with its latency.
            saliency: scores of all channels; those of channels that ``current`` lacks are not looked at.
            lookup: measurements of the specs asked for.
            budget_us: the limit in microseconds on the table's scale.
            steps: chunk of every prunable group, from :attr:`Method.chunks`.
            least: lowest width of every group; at least one chunk always stays.

        Raises:
            InfeasibleBudgetError: no choice meets the budget; names the lowest latency found.
            GraphMismatchError: the scores are not this network's.
            UsageError: budget or steps make no sense.
        """


class Chunks(Protocol):
    """The number of channels of every prunable group that are pruned at a time."""

    def __call__(self, graph: ChannelGraph, lookup: Lookup, *, grid_step: int) -> Mapping[str, int]:
        """Returns the chunk of every prunable group.

        Args:
            graph: the dense network.
            lookup: measurements of the specs asked for.
            grid_step: distance between measured widths in channels of a layer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way of pruning: a row of ``METHODS``, or one of a user's own.

    Attributes:
        step: function that plans one step.
        chunks: function that gives the chunk of every group, and with it the widths that the group may take.
        removes_blocks: True if ``step`` may remove residual blocks.
        shrinks_only: True if ``step`` keeps only channels of the current plan. If masks let channels return, it is
            called with the dense network in place of the current plan.
        keeps_resources: True if ``step`` also takes ``resources``, limits beside latency (``ResourceBudgets``).
        rivals: names in ``METHODS`` of methods that work with the same chunks, to be tried where several candidates are
            asked for.
    """

    step: PlanStep
    chunks: Chunks = grid_chunks
    removes_blocks: bool = False
    shrinks_only: bool = True
    keeps_resources: bool = False
    rivals: tuple[str, ...] = ()
