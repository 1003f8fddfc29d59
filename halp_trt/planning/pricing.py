"""What planning asks of the outside: latencies of the layers that it names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from halp_trt.latency import LatencyTable, Surface, graph_specs
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement

__all__ = [
    "Growing",
    "Lookup",
    "as_lookup",
    "counts_latency_us",
    "growing",
]

Lookup = Callable[[Sequence[LayerSpec]], Mapping[LayerSpec, Measurement]]
"""Gives the measurement of (at least) every spec asked for: ``table.lookup``, which refuses missing ones, or a function
that measures them first. Specs may repeat."""


@runtime_checkable
class Growing(Protocol):
    """A lookup that measures what it is asked for, and can go back to what it knew before."""

    @property
    def num_rows(self) -> int:
        """Number of rows that it knows now."""

    def rewind(self, num_rows: int) -> None:
        """Goes back to its first rows."""

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """As :data:`Lookup`."""


def growing(lookup: object) -> Growing | None:
    """The lookup itself where it measures what it is asked for, else None."""
    return lookup if isinstance(lookup, Growing) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableLookup:
    """The rows of a table, and between them what its surfaces tell."""

    table: LatencyTable
    surfaces: tuple[Surface, ...]

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        return self.table.estimates(specs)


def as_lookup(lookup: Lookup | LatencyTable) -> Lookup:
    """The lookup of a table, which interpolates where surfaces cover a layer and refuses others; a lookup as it is."""
    if isinstance(lookup, LatencyTable):
        return _TableLookup(table=lookup, surfaces=lookup.refined_surfaces())
    return lookup


def counts_latency_us(graph: ChannelGraph, lookup: Lookup, counts: Mapping[str, int]) -> float:
    """Microseconds of the network when ``counts[group]`` channels are kept: the sum over its layers at true widths."""
    specs = graph_specs(graph, counts)
    rows = lookup(specs)
    return math.fsum(rows[spec].latency_us for spec in specs)
