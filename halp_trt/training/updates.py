"""How the gradients of a step change the weights.

A row of ``UPDATES`` is an :class:`Update`, or the ``module:name`` of one. It is given a function that computes the loss
and its gradients at the weights as they are, so that an update of two passes (sharpness-aware minimisation, arXiv
2010.01412) moves the weights, calls it again, and steps from where it began.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["UPDATES", "Update", "plain"]


class Update(Protocol):
    """One change of the weights."""

    def __call__(self, optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
        """Changes the parameters of an optimiser once, and gives the loss at the weights as they were.

        Args:
            optimizer: holds the parameters and their state; its learning rate is the step's.
            gradients: leaves the gradients of the step's batch on the parameters and gives the loss; the same batch and
                the same random numbers at every call.

        Raises:
            NonFiniteError: as ``gradients``.
        """


def plain(optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
    """One pass, one step of the optimiser."""
    loss = gradients()
    optimizer.step()
    return loss


UPDATES: dict[str, Update | str] = {"sgd": plain}
