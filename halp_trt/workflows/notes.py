"""Notes that the parts of a pruning run take for each other and for its log."""

from __future__ import annotations

from dataclasses import dataclass, field

from halp_trt.specs import Saliency

__all__ = ["Notes", "Ranked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A candidate of a step as it was judged.

    Attributes:
        name: its method and scores.
        value: the task's score; without labels the distance from the dense network's outputs, below 0. The larger, the
            better; None if outputs were not finite.
    """

    name: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """The notes of a run, filled while it goes on; none has to survive a kill.

    Attributes:
        losses: loss of the last minibatch before a step, by the step's number.
        others: scores by other saliencies than the run's own at the present step, by their names.
        ranked: candidates of a step by its number, the one that was chosen first.
    """

    losses: dict[int, float] = field(default_factory=dict)
    others: dict[str, Saliency] = field(default_factory=dict)
    ranked: dict[int, list[Ranked]] = field(default_factory=dict)
