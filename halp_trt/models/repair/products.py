"""Convolutions and linear layers as they are called: the rows that they multiply, and the rows that come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["Product", "product_of"]

_PARAMETERS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Names of the arguments of a convolution, in order; a linear layer has the first three."""
_RANKS: Mapping[Any, int] = {F.linear: 0, F.conv1d: 1, F.conv2d: 2, F.conv3d: 3}
"""The functions that every such layer calls, and the number of their spatial axes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Product:
    """One call of a convolution or linear layer.

    Attributes:
        call: computes it.
        rank: number of spatial axes; 0 for a linear layer.
        input: what it reads: ``[N, C, *size]``, of a linear layer ``[N, *size, C]``.
        weight: ``[C', C / conv_groups, *kernel]``.
        bias: ``[C']``; None for none.
        stride, padding, dilation: one number for each spatial axis; the padding is a pair, before and after.
        conv_groups: groups of a grouped convolution.
    """

    call: Callable[[], torch.Tensor]
    rank: int
    input: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    conv_groups: int = 1

    @property
    def num_positions(self) -> int:
        """Number of places of a picture where an output channel has a value."""
        return math.prod(self._sizes())

    def inputs_at(self, positions: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """The numbers that the kept inputs of a weight are multiplied by.

        Args:
            positions: numbers of output places.
            kept: positions along the weight's second axis.

        Returns:
            ``[conv_groups, N * len(positions), len(kept) * kernel]``.
        """
        if not self.rank:
            rows = self.input.reshape(len(self.input), -1, self.input.shape[-1])[:, positions]
            return rows.reshape(-1, rows.shape[-1])[:, kept].unsqueeze(0)
        pads = [pad for before_after in reversed(self.padding) for pad in before_after]
        windows = F.pad(self.input, pads)
        for axis in range(self.rank):
            reach = self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            windows = windows.unfold(2 + axis, reach, self.stride[axis])[..., :: self.dilation[axis]]
        places = _unravelled(positions, self._sizes())
        index: tuple[slice | torch.Tensor, ...] = (slice(None), slice(None), *places)
        found = windows[index]  # [N, C, positions, *kernel]
        num, _, width = found.shape[:3]
        grouped = found.reshape(num, self.conv_groups, -1, width, *found.shape[3:])[:, :, kept]
        return grouped.movedim((1, 0, 3), (0, 1, 2)).reshape(self.conv_groups, num * width, -1)

    def outputs_at(self, output: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The rows ``[conv_groups, N * len(positions), C' / conv_groups]`` of its output at these places."""
        if not self.rank:
            rows = output.reshape(len(output), -1, output.shape[-1])[:, positions]
            return rows.reshape(1, -1, rows.shape[-1])
        rows = output.flatten(2)[:, :, positions]  # [N, C', positions]
        grouped = rows.reshape(len(rows), self.conv_groups, -1, rows.shape[-1])
        return grouped.movedim((1, 0, 3), (0, 1, 2)).flatten(1, 2)

    def _sizes(self) -> tuple[int, ...]:
        """The spatial size of its output."""
        if not self.rank:
            return tuple(self.input.shape[1:-1])
        sizes = zip(self.input.shape[2:], self.weight.shape[2:], strict=True)
        return tuple(
            (size + sum(self.padding[axis]) - self.dilation[axis] * (kernel - 1) - 1) // self.stride[axis] + 1
            for axis, (size, kernel) in enumerate(sizes)
        )


def product_of(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Product | None:
    """The product that a call of one of PyTorch's functions is; None for any other function.

    Pictures without a batch axis are none, either.
    """
    try:
        rank = _RANKS.get(function)
    except TypeError:  # a function that cannot be a key
        return None
    if rank is None:
        return None
    given = {**dict(zip(_PARAMETERS, args, strict=False)), **kwargs}
    read, weight = given["input"], given["weight"]
    if read.ndim < 2 or (rank and read.ndim != rank + 2):
        return None
    dilation = _each(given.get("dilation", 1), rank)
    return Product(
        call=lambda: function(*args, **kwargs),
        rank=rank,
        input=read,
        weight=weight,
        bias=given.get("bias"),
        stride=_each(given.get("stride", 1), rank),
        padding=_padding(given.get("padding", 0), weight.shape[2:], dilation),
        dilation=dilation,
        conv_groups=int(given.get("groups", 1)),
    )


def _each(value: Any, rank: int) -> tuple[int, ...]:
    found = tuple(int(one) for one in value) if isinstance(value, list | tuple) else (int(value),)
    return found * rank if len(found) == 1 else found


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The padding before and after, for each spatial axis; ``same`` puts the odd one behind."""
    if isinstance(value, str):
        all_of_it = [(size - 1) * step if value == "same" else 0 for size, step in zip(kernel, dilation, strict=True)]
        return tuple((whole // 2, whole - whole // 2) for whole in all_of_it)
    return tuple((one, one) for one in _each(value, len(dilation)))


def _unravelled(positions: torch.Tensor, sizes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    places = []
    for size in reversed(sizes):
        places.append(positions % size)
        positions = positions // size
    return tuple(reversed(places))
