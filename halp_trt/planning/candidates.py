"""Candidates of a pruning step: several plans under the same budget, of which the caller chooses one to go on with.

A method finds the plan that keeps most of one score, and no score tells for certain which plan learns best. Plans by
other scores, and by methods that differ in what they may remove, are tried beside it. Differs from EagleEye
(arXiv:2007.02491), which draws plans at random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from halp_trt.planning.method import Method
from halp_trt.specs import PruningPlan, Saliency

__all__ = ["Candidate", "Choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A way to plan a step.

    Attributes:
        name: a name for the records.
        method: the method, with the chunks of the iteration's own.
        saliency: scores of all channels.
    """

    name: str
    method: Method
    saliency: Saliency


class Choose(Protocol):
    """The choice of one candidate in a step."""

    def __call__(self, own: Candidate, plan_of: Callable[[Candidate], PruningPlan]) -> Candidate:
        """Returns the candidate by which the step is planned.

        Args:
            own: the iteration's own method and scores.
            plan_of: gives a candidate's plan for the step's budget; raises InfeasibleBudgetError if it has none.
        """
