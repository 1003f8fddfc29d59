"""Scores drawn at random, which every other score has to beat."""

from __future__ import annotations

import zlib

import numpy as np
from torch import nn

from halp_trt.specs import ChannelGraph, Saliency

__all__ = ["Chance"]


class Chance:
    """The scorer that draws a number between 0 and 1 for every channel, always the same for the same network."""

    def __init__(self, module: nn.Module, graph: ChannelGraph) -> None:
        """Keeps the graph."""
        self._graph = graph

    def after_backward(self) -> None:
        """Does nothing: gradients do not count."""

    def finish(self) -> Saliency:
        """The scores, drawn by the names of network and group."""
        return Saliency(
            scores={group.name: self._drawn(group.name, group.num_channels) for group in self._graph.prunable_groups}
        )

    def _drawn(self, name: str, num: int) -> tuple[float, ...]:
        seed = zlib.crc32(f"{self._graph.fingerprint} {name}".encode())
        return tuple(np.random.default_rng(seed).random(num).tolist())
