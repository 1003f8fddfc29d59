"""Scorers of channels by name. Nothing here imports torch; a row's scorer is loaded when it is made.

A user's own is registered by assignment: ``SALIENCIES["mine"] = Scoring(make=Mine, needs_gradients=True)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from halp_trt.errors import UsageError
from halp_trt.rows import check_call, check_members, load_row
from halp_trt.specs import ChannelGraph, Saliency

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "AUTO",
    "SALIENCIES",
    "MakeScorer",
    "Scorer",
    "Scoring",
    "choose_scoring",
    "informed_scorings",
    "saliency_names",
]

AUTO = "auto"
"""The name of the default saliency: the first row of ``SALIENCIES``, or without data the first that needs none."""


class Scorer(Protocol):
    """The scores of one pruning step. Each step has a fresh one, so no score must survive a kill between steps."""

    def after_backward(self) -> None:
        """Reads the module after the backward pass of every minibatch, before the weights are updated."""

    def finish(self) -> Saliency:
        """Returns the scores of all channels of every prunable group.

        Raises:
            NonFiniteError: no gradient or weight is finite.
            UsageError: the scorer needs minibatches, and saw none.
        """


class MakeScorer(Protocol):
    """A function that makes the scorer of one pruning step."""

    def __call__(self, module: nn.Module, graph: ChannelGraph) -> Scorer:
        """Returns a scorer of the dense (possibly masked) network, whose weights change while it is trained.

        Raises:
            GraphMismatchError: the graph was made for another network, or no parameter follows a group.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A row of ``SALIENCIES``.

    Attributes:
        make: maker of the scorer of one pruning step, or its import path ``package.module:name``.
        needs_gradients: True if it scores by gradients, and therefore needs data.
        is_informed: False if it looks at nothing, so that candidates are not planned by it.
    """

    make: MakeScorer | str
    needs_gradients: bool
    is_informed: bool = True

    def scorer(self, module: nn.Module, graph: ChannelGraph) -> Scorer:
        """Returns a fresh scorer for one pruning step."""
        make: MakeScorer = load_row(self.make)
        return make(module, graph)


SALIENCIES: dict[str, Scoring | str] = {
    "taylor": Scoring(make="halp_trt.models.saliency.taylor:Taylor", needs_gradients=True),
    "magnitude": Scoring(make="halp_trt.models.saliency.weight_norms:Magnitude", needs_gradients=False),
    "taylor-abs": Scoring(make="halp_trt.models.saliency.gradients:absolute_taylor", needs_gradients=True),
    "weight-taylor": Scoring(make="halp_trt.models.saliency.gradients:weight_taylor", needs_gradients=True),
    "reading-taylor": Scoring(make="halp_trt.models.saliency.gradients:reading_taylor", needs_gradients=True),
    "gradient-norm": Scoring(make="halp_trt.models.saliency.gradients:gradient_norm", needs_gradients=True),
    "lamp": Scoring(make="halp_trt.models.saliency.lamp:Lamp", needs_gradients=False),
    "sp-lamp": Scoring(make="halp_trt.models.saliency.lamp:StructuredLamp", needs_gradients=False),
    "random": Scoring(make="halp_trt.models.saliency.chance:Chance", needs_gradients=False, is_informed=False),
}
"""The saliencies by name, each a value or its import path ``package.module:name``."""


def saliency_names() -> tuple[str, ...]:
    """All names of saliencies, ``auto`` first."""
    return (AUTO, *SALIENCIES)


def choose_scoring(name: str, *, has_data: bool) -> Scoring:
    """The row of a name.

    Raises:
        UsageError: no saliency has this name, its row is none, or it needs data and there are none.
    """
    if name == AUTO:
        return next(row for row in map(_scoring, SALIENCIES) if has_data or not row.needs_gradients)
    if name not in SALIENCIES:
        raise UsageError(f"saliency {name!r} is none of {saliency_names()}; name one of them, or register it first")
    scoring = _scoring(name)
    check_call(load_row(scoring.make), f"SALIENCIES[{name!r}].make", "module", "graph")
    if scoring.needs_gradients and not has_data:
        without = " or ".join(other for other in SALIENCIES if not _scoring(other).needs_gradients)
        raise UsageError(
            f"{name.capitalize()} saliency needs pictures with labels; name some with --data, or use --saliency "
            f"{without}"
        )
    return scoring


def informed_scorings(*, has_data: bool) -> dict[str, Scoring]:
    """The rows, by name, of all saliencies that look at the network and have what they need."""
    rows = {name: _scoring(name) for name in SALIENCIES}
    return {name: row for name, row in rows.items() if row.is_informed and (has_data or not row.needs_gradients)}


def _scoring(name: str) -> Scoring:
    row: Scoring = load_row(SALIENCIES[name])
    check_members(row, Scoring, f"SALIENCIES[{name!r}]")
    return row
