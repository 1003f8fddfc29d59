"""Optimisers by name, and the optimiser of a network.

A row of ``OPTIMIZERS`` is a function from groups of parameters and the settings of a training to an optimiser, or its
import path ``module:name``. What an optimiser keeps in tensors of a parameter's shape is masked and cut like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from halp_trt.errors import ModelError, UsageError
from halp_trt.rows import check_call, load_row

if TYPE_CHECKING:
    import torch
    from torch import nn

    from halp_trt.training.settings import TrainSettings

__all__ = ["OPTIMIZERS", "Groups", "MakeOptimizer", "get_optimizer", "make_optimizer"]

Groups = Sequence[dict[str, Any]]
"""Groups of parameters as PyTorch's optimisers take them, each with its weight decay."""
_SECOND_DECAY = 0.999
"""Decay of AdamW's second moment, PyTorch's own."""


class MakeOptimizer(Protocol):
    """A maker of optimisers."""

    def __call__(self, groups: Groups, settings: TrainSettings) -> torch.optim.Optimizer:
        """Returns an optimiser of the groups' parameters.

        Args:
            groups: parameters under ``params``, their weight decay under ``weight_decay``.
            settings: settings of the training.
        """


def nesterov(groups: Groups, settings: TrainSettings) -> torch.optim.Optimizer:
    """Returns SGD with Nesterov's momentum."""
    from torch.optim import SGD

    return SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0)


def heavy_ball(groups: Groups, settings: TrainSettings) -> torch.optim.Optimizer:
    """Returns SGD with classical momentum."""
    from torch.optim import SGD

    return SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def adamw(groups: Groups, settings: TrainSettings) -> torch.optim.Optimizer:
    """Returns AdamW (arXiv:1711.05101); the momentum is the decay of its first moment."""
    from torch.optim import AdamW

    return AdamW(groups, lr=settings.learning_rate, betas=(settings.momentum, _SECOND_DECAY))


OPTIMIZERS: dict[str, MakeOptimizer | str] = {"sgd": nesterov, "heavy-ball": heavy_ball, "adamw": adamw}
"""Makers of optimisers by name, each a function or its import path ``package.module:name``."""


def get_optimizer(name: str) -> MakeOptimizer:
    """The maker of optimisers of a name.

    Raises:
        UsageError: no optimiser has this name, or its row makes none.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"optimiser {name!r} is not known; expected one of {', '.join(OPTIMIZERS)}")
    make: MakeOptimizer = load_row(OPTIMIZERS[name])
    check_call(make, f"OPTIMIZERS[{name!r}]", "groups", "settings")
    return make


def make_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser that settings name; one-dimensional parameters (batch norm, biases) are not decayed.

    Raises:
        ModelError: the network has no parameter that can be trained.
        UsageError: as :func:`get_optimizer`.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ModelError("the network has no parameter that can be trained; set requires_grad on some")
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return get_optimizer(settings.optimizer)([group for group in groups if group["params"]], settings)
