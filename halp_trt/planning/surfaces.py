"""Latencies of layers at many pairs of widths: measured at a plan's widths, interpolated elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from halp_trt.latency.region import Effort
from halp_trt.latency.surface import Surface as StoredSurface
from halp_trt.latency.survey import measure_surface
from halp_trt.planning.pricing import Lookup
from halp_trt.specs import LayerSpec, Measurement

__all__ = ["PriceOf", "RowCache", "Surveyed", "surface_from"]

Floats = npt.NDArray[np.float64]
PriceOf = Callable[[LayerSpec, Sequence[tuple[int, int]]], Floats]
"""``surface(spec, widths)``: microseconds of a layer at every ``(in_channels, out_channels)`` of ``widths``."""

_MEASURED_PAIRS = 96
"""Most pairs of widths of a layer that are all measured; a layer with more is interpolated."""


@runtime_checkable
class Surveyed(Protocol):
    """A lookup of a table that has surfaces."""

    @property
    def surfaces(self) -> tuple[StoredSurface, ...]:
        """All surfaces of the table, exact wherever it has a row."""

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """Gives the measurement of every spec, as :data:`halp_trt.planning.pricing.Lookup`."""


def surface_from(lookup: Lookup, surfaces: Sequence[StoredSurface] = ()) -> PriceOf:
    """The surface of measured rows; it refuses or measures missing rows, as the lookup does.

    Args:
        lookup: source of the rows.
        surfaces: surfaces that answer first, for all layers and widths that they cover.
    """

    def surface(spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> Floats:
        covering = _covering(surfaces, spec, widths)
        if covering is not None:
            return covering.latencies_us(widths)
        specs = [spec.with_widths(*pair) for pair in widths]
        rows = lookup(specs)
        return np.asarray([rows[at].latency_us for at in specs])

    return surface


def _covering(
    surfaces: Sequence[StoredSurface], spec: LayerSpec, widths: Sequence[tuple[int, int]]
) -> StoredSurface | None:
    return next((surface for surface in surfaces if surface.covers_all(spec, widths)), None)


@lru_cache(maxsize=64)
def _specs_at(spec: LayerSpec, widths: tuple[tuple[int, int], ...]) -> tuple[LayerSpec, ...]:
    """A layer at every pair of widths; the steps of a plan ask for the same hundreds again and again."""
    return tuple(spec.with_widths(*pair) for pair in widths)


class RowCache:
    """The rows that a lookup gave so far, and surfaces over them: the table's own if they cover the widths, else new.

    A known row is never interpolated again: once a plan's widths are looked up, the next surface is exact there.
    """

    def __init__(self, lookup: Lookup, effort: Effort | None = None) -> None:
        """Begins without rows.

        Args:
            lookup: source of the rows.
            effort: limits on the probes of a new surface.
        """
        self._lookup, self._effort = lookup, effort or Effort()
        self._rows: dict[LayerSpec, Measurement] = {}
        self._laid: dict[tuple[LayerSpec, tuple[int, ...], tuple[int, ...]], StoredSurface] = {}
        self._surveyed = lookup.surfaces if isinstance(lookup, Surveyed) else ()

    def lookup(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """The rows of these specs; only unknown ones are asked for."""
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._rows]
        if missing:
            rows = self._lookup(missing)
            self._rows.update({spec: rows[spec] for spec in missing})
        return self._rows

    def knows(self, specs: Sequence[LayerSpec]) -> bool:
        """True if the rows of all these specs are known."""
        return all(spec in self._rows for spec in specs)

    def surface(self, spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> Floats:
        """Latencies in microseconds at every pair of widths: known, or interpolated between adaptive probes."""
        specs = _specs_at(spec, tuple(widths))
        covering = _covering(self._surveyed, spec, widths)
        if covering is None and len(set(widths)) <= _MEASURED_PAIRS:
            rows = self.lookup(specs)
            return np.asarray([rows[at].latency_us for at in specs])
        latencies_us = (covering or self._surface_over(spec, widths)).latencies_us(widths)
        for index, at in enumerate(specs):
            if at in self._rows:
                latencies_us[index] = self._rows[at].latency_us
        return latencies_us

    def _surface_over(self, spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> StoredSurface:
        ins, outs = (tuple(sorted(set(side))) for side in zip(*widths, strict=True))
        if len(ins) * len(outs) != len(set(widths)):  # not every pair: the two sides are the same channels
            outs = ()
        key = (spec.with_widths(*widths[-1]), ins, outs)
        if key not in self._laid:
            self._laid[key] = measure_surface(key[0], ins, outs, self.lookup, effort=self._effort)
        return self._laid[key]
