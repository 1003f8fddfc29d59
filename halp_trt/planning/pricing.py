"""What planning asks of the outside: latencies of the layers that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from halp_trt.latency import graph_specs
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement

__all__ = ["Lookup", "counts_latency_us"]

Lookup = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]
"""Gives the measurement of (at least) every spec asked for: ``table.lookup``, which refuses missing ones, or a function
that measures them first. Specs may repeat."""


def counts_latency_us(graph: ChannelGraph, lookup: Lookup, counts: Mapping[str, int]) -> float:
    """Microseconds of the network when ``counts[group]`` channels are kept: the sum over its layers at true widths."""
    specs = graph_specs(graph, counts)
    rows = lookup(specs)
    return math.fsum(rows[spec].latency_us for spec in specs)
