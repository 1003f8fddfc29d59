"""Updates: rules by which the gradients of a step change the weights.

A row of ``UPDATES`` is an :class:`Update`, or the ``module:name`` of one. It receives a function that computes the loss
and its gradients at the present weights. An update of two passes (sharpness-aware minimisation, arXiv 2010.01412) moves
the weights, calls the function again, and steps from the first weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from halp_trt.errors import UsageError
from halp_trt.rows import check_call, load_row

if TYPE_CHECKING:
    import torch

__all__ = ["UPDATES", "Update", "get_update", "plain"]


class Update(Protocol):
    """A rule by which gradients change the weights."""

    def __call__(self, optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
        """Changes the parameters of an optimiser once, and returns the loss at the weights before the change.

        Args:
            optimizer: optimiser with the parameters and their state; its learning rate is the step's.
            gradients: function that leaves the gradients of the step's batch on the parameters and returns the loss,
                with the same batch and random numbers at every call.

        Raises:
            NonFiniteError: as ``gradients``.
        """


def plain(optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
    """Takes one step of the optimiser after one pass; returns the loss."""
    loss = gradients()
    optimizer.step()
    return loss


UPDATES: dict[str, Update | str] = {
    "sgd": plain,
    "sharpness": "halp_trt.training.sharpness:uniform",
    "adaptive-sharpness": "halp_trt.training.sharpness:adaptive",
}
"""Updates by name, each a function or its import path ``package.module:name``."""


def get_update(name: str) -> Update:
    """The update of a name.

    Raises:
        UsageError: no update has this name, or its row is no update.
    """
    if name not in UPDATES:
        raise UsageError(f"update {name!r} is not known; expected one of {', '.join(UPDATES)}")
    update: Update = load_row(UPDATES[name])
    check_call(update, f"UPDATES[{name!r}]", "optimizer", "gradients")
    return update
