"""The processes that train one network together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.training.devices import CPU

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from halp_trt.training.link import Link

__all__ = ["ALONE", "Launch", "World"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """This process among those that ``torchrun`` started.

    Attributes:
        rank, size: its number, counted from 0, and how many there are.
        local_rank, local_size: the same among those on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size):
            raise UsageError(
                f"process {self.rank} of {self.size}, here {self.local_rank} of {self.local_size}, does not exist; "
                f"start all with torchrun"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One process among those that train a network together, and what it computes with.

    All processes take the same steps in the same order, each with its own share of every batch. A training may go on in
    another world than it began in, though not with the same bits.

    Attributes:
        rank: number of this process, counted from 0.
        size: number of processes.
        num_here: number of processes on this machine; 0 if all are.
        device: torch's name of the device that this process computes on; the network lies there while it is trained,
            scored and evaluated.
        compiles: True if forward passes of training steps are compiled.
        link: the link to the other processes; None if there are none.
    """

    rank: int = 0
    size: int = 1
    num_here: int = 0
    device: str = CPU
    compiles: bool = False
    link: Link | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise UsageError(f"process {self.rank} of {self.size} does not exist; count from 0")
        if not self.num_here:
            object.__setattr__(self, "num_here", self.size)

    @property
    def is_first(self) -> bool:
        """True if this process measures, writes and reports for all of them."""
        return self.rank == 0

    def share(
        self, indices: Sequence[int] | npt.NDArray[np.int64], *, part: int = 0, num_parts: int = 1
    ) -> Sequence[int] | npt.NDArray[np.int64]:
        """A part of a batch for this process, or its share of it; all parts of all processes make up the batch.

        A part holds the same examples whatever the number of processes.

        Args:
            indices: the batch.
            part: number of the part, counted from 0.
            num_parts: number of parts that each process takes, one after the other.

        Raises:
            UsageError: there are fewer examples than parts.
        """
        self.check_enough(len(indices), num_parts, what=f"a batch of {len(indices)}", more="make it larger")
        return indices if self.size == num_parts == 1 else indices[part::num_parts][self.rank :: self.size]

    def check_enough(self, number: int, num_parts: int, *, what: str, more: str) -> None:
        """Refuses fewer examples than there are shares of parts.

        Args:
            number: number of examples.
            num_parts: number of parts.
            what: the examples in words.
            more: advice on how to have more of them.

        Raises:
            UsageError: there are fewer.
        """
        if number >= self.size * num_parts:
            return
        shared = f"shared among {self.size} processes" if self.size > 1 else ""
        split = f"split into {num_parts} parts (--accumulate)" if num_parts > 1 else ""
        how = " and ".join(filter(None, (shared, split)))
        advice = "start fewer processes" if shared else "in fewer parts"
        raise UsageError(f"{what} cannot be {how}; {more}, or {advice}")

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes.

        Raises:
            UsageError: there are several processes, and no link to them.
            LostProcessError: another process is gone.
        """
        link = self._linked()
        return tensor if link is None else link.mean(tensor)

    def agree(self, value: T) -> T:
        """The value of the first process, the same in all of them; the others wait for it without limit.

        Raises:
            UsageError: there are several processes, and no link to them.
            LostProcessError: another process is gone.
        """
        link = self._linked()
        return value if link is None else link.agree(value)

    def meet(self) -> None:
        """Waits, without limit, until all processes are here; raises as :meth:`agree`."""
        self.agree(None)

    def guarded(self) -> AbstractContextManager[None]:
        """A context of work that a lost process breaks off, and that a request to end does not.

        Raises:
            LostProcessError: another process is gone, or this one was told to end; raised when the context ends.
        """
        return nullcontext() if self.link is None else self.link.guarded()

    def settle(self) -> None:
        """Waits until what the processes average has arrived everywhere; before that, nothing is to be built on it.

        Raises:
            LostProcessError: another process is gone.
        """
        if self.link is not None:
            self.link.settle()

    @contextlib.contextmanager
    def whole_batches(self, *, counts: bool = True, is_backward: bool = False) -> Iterator[None]:
        """A context in which batch norms take their statistics over the shares of all processes.

        Args:
            counts: False if this process has no share, and computes with examples that the statistics leave out.
            is_backward: True for a backward pass, in which parts of the network may be computed again.

        Raises:
            ModelError: the network computes parts of itself again in a way that several processes cannot follow.
        """
        if self.link is None:
            yield
            return
        from halp_trt.training.batch_norm import WholeBatchNorms, whole_batch_norms_again
        from halp_trt.training.replicas import no_reentry

        norms = whole_batch_norms_again(counts=counts) if is_backward else WholeBatchNorms(counts=counts)
        with norms, no_reentry():
            yield

    def _linked(self) -> Link | None:
        if self.size > 1 and self.link is None:
            raise UsageError(f"process {self.rank} has no link to the other {self.size - 1}; join them first")
        return self.link


ALONE = World()
"""The world of a training in one process."""
