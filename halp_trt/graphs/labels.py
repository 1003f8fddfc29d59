"""Labels: the channel at every position of every axis of every tensor, and the couplings between channels.

A channel is born where a convolution or matrix product writes it and is an integer from then on. Operators hand
channels on, permute, repeat or couple them; coupled channels are joined in a union-find structure, as pixels of one
region are. Two positions with one root live or die together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
_MANY = 1 << 12
"""Longest axis that is looked through position by position."""


class Labels:
    """Channel ids along axes of tensors, and the couplings between channels found so far.

    Attributes:
        fixed: names of the tensors computed from constants alone.
        partial: channels of parameters' axes of which expressions use some positions; -1 at the others.
        fences: names of the nodes through which channels are not followed, with the reason; they stay as they are.
    """

    def __init__(self, fixed: Set[str] = frozenset()) -> None:
        """No labels yet.

        Args:
            fixed: names of the tensors computed from constants alone.
        """
        self.fixed = fixed
        self.partial: dict[tuple[str, int], Ids] = {}
        self.fences: dict[str, str] = {}
        self._parent: list[int] = []
        self._frozen: dict[int, str] = {}
        self._axes: dict[str, dict[int, Ids]] = {}

    # ---- channels -------------------------------------------------------------------------------------------------

    def fresh(self, count: int, frozen: str = "") -> Ids:
        """New channels; with a reason in ``frozen`` they can never be pruned."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        ids = np.arange(start, start + count)
        if frozen:
            self.freeze(ids, frozen)
        return ids

    def find(self, channel: int) -> int:
        """The representative of all channels coupled with this one."""
        parent = self._parent
        while parent[channel] != channel:
            parent[channel] = parent[parent[channel]]
            channel = parent[channel]
        return channel

    def roots(self, ids: Iterable[int]) -> Ids:
        """The representatives of several channels."""
        if isinstance(ids, np.ndarray) and len(ids) > _MANY:  # mostly the same ones again and again
            different, places = np.unique(ids, return_inverse=True)
            return self.roots(different.tolist())[places]
        return np.array([self.find(int(i)) for i in ids], dtype=np.int64)

    def couple(self, first: Ids, second: Ids) -> None:
        """Joins channels position by position."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            a, b = self.find(one), self.find(other)
            if a == b:
                continue
            low, high = min(a, b), max(a, b)
            self._parent[high] = low
            if high in self._frozen:
                self._frozen.setdefault(low, self._frozen[high])

    def freeze(self, ids: Iterable[int], reason: str) -> None:
        """Marks channels, and all coupled with them, as not prunable."""
        for root in dict.fromkeys(self.roots(ids).tolist()):
            self._frozen.setdefault(root, reason)

    def frozen_reason(self, channel: int) -> str:
        """The reason why this channel cannot be pruned, empty if it can."""
        return self._frozen.get(self.find(channel), "")

    # ---- axes -----------------------------------------------------------------------------------------------------

    def axes(self, tensor: str) -> Mapping[int, Ids]:
        """The labelled axes of a tensor."""
        return self._axes.get(tensor, {})

    def get(self, tensor: str, axis: int) -> Ids | None:
        """The channels along an axis, or None where it carries none."""
        return self._axes.get(tensor, {}).get(axis)

    def put(self, tensor: str, axis: int, ids: Ids) -> None:
        """States the channels of an axis; a second statement about the same axis couples both."""
        known = self.get(tensor, axis)
        if known is None:
            self._axes.setdefault(tensor, {})[axis] = ids
        else:
            self.couple(known, ids)

    def labelled(self) -> Iterable[tuple[str, int, Ids]]:
        """All labelled axes in the order in which they were found."""
        for tensor, axes in self._axes.items():
            for axis, ids in axes.items():
                yield tensor, axis, ids
