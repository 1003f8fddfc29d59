"""The copies of one network in all processes, whose gradients become those of the whole batch."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from halp_trt.errors import ModelError

__all__ = ["Replicas", "no_reentry"]

Compute = Callable[[], torch.Tensor]
_MARKED_TWICE = re.compile("mark(ed)? a variable ready only once|has been marked as ready twice")
"""The words of DDP for a parameter whose gradient it did not expect."""


@contextlib.contextmanager
def no_reentry() -> Iterator[None]:
    """A context in which backward passes inside of backward passes are refused in one sentence, as DDP misses them.

    Raises:
        ModelError: there was one.
    """
    try:
        yield
    except RuntimeError as error:
        if not _MARKED_TWICE.search(str(error)):
            raise
        raise ModelError(
            "the network runs a part of its backward pass by itself, as torch.utils.checkpoint does with "
            "use_reentrant=True, and several processes cannot average such gradients; set use_reentrant=False, or "
            "train in one process"
        ) from error


class Replicas:
    """Computes losses so that their backward passes average gradients over all processes (PyTorch's DDP).

    Gradients travel while the backward pass is still running. The network itself stays as it is: names, masks and
    copies know nothing of DDP. It is wrapped anew whenever other parameters of it are trained.
    """

    def __init__(self) -> None:
        self._wrapped: tuple[tuple[object, ...], DistributedDataParallel] | None = None

    def loss(self, module: nn.Module, compute: Compute, *, is_last: bool) -> torch.Tensor:
        """The loss that a function computes with a network, a scalar.

        Args:
            module: the network.
            compute: function that runs it.
            is_last: False if a further backward pass adds to the same gradients, so that they stay here until then.
        """
        found = self._of(module)
        with nullcontext() if is_last else found.no_sync():
            return cast(torch.Tensor, found(compute))

    def _of(self, module: nn.Module) -> DistributedDataParallel:
        """The network in DDP, with the parameters that are trained now."""
        trained = (parameter for parameter in module.parameters() if parameter.requires_grad)
        key = (id(module), *((id(parameter), *parameter.shape) for parameter in trained))
        if self._wrapped is None or self._wrapped[0] != key:
            self._wrapped = None  # two on the same parameters would both react to their gradients
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wrapped = DistributedDataParallel(
                    _Learning(module),
                    broadcast_buffers=False,  # batch norms keep the whole batch's in every process
                    find_unused_parameters=True,
                )
            self._wrapped = key, wrapped
        return self._wrapped[1]


class _Learning(nn.Module):
    """A network, called through a function from nothing to its loss, so that DDP sees which parameters that needs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.network = module

    def forward(self, compute: Compute) -> torch.Tensor:
        return compute()
