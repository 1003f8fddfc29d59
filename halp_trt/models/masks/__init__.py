"""Masks by name: the treatment of pruned channels while the network trains on. Nothing here imports torch.

A user's own is registered by assignment: ``MASKS["mine"] = Mine()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from halp_trt.errors import UsageError
from halp_trt.rows import check_members, load_row
from halp_trt.specs import PruningPlan

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["MASKS", "Masking", "get_masking"]


class Masking(Protocol):
    """A way to train with pruned channels.

    It may have an attribute ``saliency``: the name of the score to take where ``auto`` is asked for and there are
    labels.

    It holds no state of its own. State that must survive a kill lies in the module, or in the optimiser's state
    (``optimizer.state[parameter]["name"]``): checkpoints keep it and slimming cuts it along with the parameter.
    """

    @property
    def returns_channels(self) -> bool:
        """True if channels removed by one plan may be kept by a later one."""

    def apply(self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Applies a plan in place; called once after every pruning step.

        Raises:
            GraphMismatchError: the plan was made for another network.
        """

    def after_backward(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Acts in place between the gradients of a minibatch and its update, before channels are scored."""

    def after_update(
        self, module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        """Acts in place after every update of the weights."""


MASKS: dict[str, Masking | str] = {
    "hard": "halp_trt.models.masks.hard:HARD",
    "soft": "halp_trt.models.masks.soft:SOFT",
}
"""Maskings by name, each a value or its import path ``package.module:name``."""


def get_masking(name: str) -> Masking:
    """The masking of a name.

    Raises:
        UsageError: no mask has this name, or its row is no mask.
    """
    if name not in MASKS:
        raise UsageError(f"mask {name!r} is none of {sorted(MASKS)}; name one of them, or register it first")
    masking: Masking = load_row(MASKS[name])
    check_members(masking, Masking, f"MASKS[{name!r}]")
    return masking
