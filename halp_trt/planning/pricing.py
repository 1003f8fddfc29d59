"""Latencies of layers as planning asks for them: lookups, and sums over a network."""

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
"""A function that gives the measurement of at least every spec asked for; specs may repeat. ``table.lookup`` is one and
refuses missing specs, others measure them first."""


@runtime_checkable
class Growing(Protocol):
    """A lookup that measures the specs asked for and can forget its latest rows."""

    @property
    def num_rows(self) -> int:
        """Number of rows that it knows now."""

    def rewind(self, num_rows: int) -> None:
        """Forgets all rows but the first ``num_rows``."""

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """Gives the measurement of every spec, as :data:`Lookup`."""


def growing(lookup: object) -> Growing | None:
    """The lookup itself if it is a :class:`Growing` one, else None."""
    return lookup if isinstance(lookup, Growing) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _TableLookup:
    """A lookup of a table's rows, interpolated between them by its surfaces."""

    table: LatencyTable
    surfaces: tuple[Surface, ...]

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        return self.table.estimates(specs)


def as_lookup(lookup: Lookup | LatencyTable) -> Lookup:
    """The lookup of a table, which interpolates layers covered by a surface and refuses others; a lookup as it is."""
    if isinstance(lookup, LatencyTable):
        return _TableLookup(table=lookup, surfaces=lookup.refined_surfaces())
    return lookup


def counts_latency_us(graph: ChannelGraph, lookup: Lookup, counts: Mapping[str, int]) -> float:
    """The network's latency with ``counts[group]`` channels kept: the sum over its layers at true widths."""
    specs = graph_specs(graph, counts)
    rows = lookup(specs)
    return math.fsum(rows[spec].latency_us for spec in specs)
