"""Repairs by name: what is done to a pruned network without training. Nothing here imports torch.

A user's own is registered by assignment: ``REPAIRS["mine"] = Repairing(ways=(mine,))``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from halp_trt.errors import UsageError
from halp_trt.rows import check_call, check_members, load_row
from halp_trt.specs import PruningPlan

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["NONE", "REPAIRS", "Batches", "Repairing", "Sample", "Way", "get_repairing"]

NONE = "none"
"""The name of the default: a pruned network is left as it is."""

Batches = Callable[[], "Iterator[torch.Tensor]"]
"""A function that yields the same batches of pictures, on the network's device, whenever it is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Unlabelled pictures that a network is repaired by.

    Attributes:
        fit: batches that weights and statistics are fitted to.
        check: batches that choose among several fits; others than those of ``fit``.
    """

    fit: Batches
    check: Batches


class Way(Protocol):
    """A step of a repair."""

    def __call__(self, module: nn.Module, *, dense: nn.Module, plan: PruningPlan, sample: Sample) -> None:
        """Changes the weights of a pruned network in place; the network is masked again afterwards.

        Args:
            module: the masked network, at its dense size.
            dense: the dense network, on the same device; unchanged.
            plan: the channels that stay.
            sample: pictures.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairing:
    """A row of ``REPAIRS``.

    Attributes:
        ways: its steps in order, each a function or its import path ``package.module:name``. Whatever is nearest to the
            dense network stays: the network as it was, or as one of the steps left it.
    """

    ways: tuple[Way | str, ...]

    @property
    def is_idle(self) -> bool:
        """True if it does nothing, and so needs no pictures."""
        return not self.ways

    def loaded(self) -> tuple[Way, ...]:
        """The functions of its steps."""
        return tuple(map(load_row, self.ways))


_NORMS = "halp_trt.models.repair.norms:estimate_norms"
_REFIT = "halp_trt.models.repair.least_squares:refit_layers"
REPAIRS: dict[str, Repairing | str] = {
    NONE: Repairing(ways=()),
    "batch-norm": Repairing(ways=(_NORMS,)),
    "least-squares": Repairing(ways=(_NORMS, _REFIT, _NORMS)),
}
"""Repairs by name, each a value or its import path ``package.module:name``."""


def get_repairing(name: str) -> Repairing:
    """The repair of a name.

    Raises:
        UsageError: no repair has this name, or its row is none.
    """
    if name not in REPAIRS:
        raise UsageError(f"repair {name!r} is none of {sorted(REPAIRS)}; name one of them, or register it first")
    row: Repairing = load_row(REPAIRS[name])
    place = f"REPAIRS[{name!r}]"
    check_members(row, Repairing, place)
    if not row.is_idle:
        for way in row.loaded():
            check_call(way, f"a way of {place}", "module", **dict.fromkeys(("dense", "plan", "sample")))
    return row
