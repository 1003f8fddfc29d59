"""The processes that train one network together; today there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.training.devices import CPU

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

__all__ = ["ALONE", "World"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One process among those that train a network together, and what it computes with.

    All processes take the same steps in the same order, each with its own share of every batch. A training may go on in
    another world than it began in: its numbers then differ in their last digits.

    Attributes:
        rank: number of this process, counted from 0.
        size: number of processes.
        device: torch's name of the device that this process computes on; the network lies there while it is trained,
            scored and evaluated.
        compiles: True if forward passes of training steps are compiled.
    """

    rank: int = 0
    size: int = 1
    device: str = CPU
    compiles: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise UsageError(f"process {self.rank} of {self.size} does not exist; count from 0")

    @property
    def is_first(self) -> bool:
        """True if this process measures, writes and reports for all of them."""
        return self.rank == 0

    def share(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Sequence[int] | npt.NDArray[np.int64]:
        """The part of a batch for this process; the parts of all processes make up the batch.

        Raises:
            UsageError: there are fewer examples than processes.
        """
        if len(indices) < self.size:
            raise UsageError(
                f"a batch of {len(indices)} cannot be shared among {self.size} processes; make it larger, or start "
                f"fewer processes"
            )
        return indices if self.size == 1 else indices[self.rank :: self.size]

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes.

        Raises:
            UsageError: there are several processes.
        """
        self._check_alone()
        return tensor

    def agree(self, value: T) -> T:
        """The value of the first process, the same in all of them.

        Raises:
            UsageError: there are several processes.
        """
        self._check_alone()
        return value

    def _check_alone(self) -> None:
        if self.size > 1:
            raise UsageError(f"training in {self.size} processes is not there yet; start one")


ALONE = World()
"""The world of a training in one process."""
