"""Latencies of layers at many pairs of widths for planning: measured where that matters, interpolated elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from halp_trt.latency.region import Effort
from halp_trt.latency.surface import Surface as Laid
from halp_trt.latency.survey import measure_surface
from halp_trt.planning.pricing import Lookup
from halp_trt.specs import LayerSpec, Measurement

__all__ = ["Known", "Surface", "Surveyed", "surface_from"]

Floats = npt.NDArray[np.float64]
Surface = Callable[[LayerSpec, Sequence[tuple[int, int]]], Floats]
"""``surface(spec, widths)``: microseconds of a layer at every ``(in_channels, out_channels)`` of ``widths``."""

_FEW = 96
"""So many pairs of widths are all measured."""


@runtime_checkable
class Surveyed(Protocol):
    """A lookup of a table that surfaces were laid over."""

    @property
    def surfaces(self) -> tuple[Laid, ...]:
        """All of them, exact wherever there is a row."""

    def __call__(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """As :data:`halp_trt.planning.pricing.Lookup`."""


def surface_from(lookup: Lookup, surfaces: Sequence[Laid] = ()) -> Surface:
    """The surface of measured rows; it refuses or measures what is missing, as the lookup does.

    Args:
        lookup: the rows.
        surfaces: tell what they cover instead.
    """

    def surface(spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> Floats:
        laid = _covering(surfaces, spec, widths)
        if laid is not None:
            return laid.latencies_us(widths)
        specs = [spec.with_widths(*pair) for pair in widths]
        rows = lookup(specs)
        return np.asarray([rows[at].latency_us for at in specs])

    return surface


def _covering(surfaces: Sequence[Laid], spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> Laid | None:
    return next((surface for surface in surfaces if surface.covers_all(spec, widths)), None)


class Known:
    """What a lookup has told so far, and surfaces laid over it: those that its table has, where they cover the widths.

    A row that was told is never interpolated again: when the widths that a plan chose are looked up, the next surface
    is exact there.
    """

    def __init__(self, lookup: Lookup, effort: Effort | None = None) -> None:
        """Asks ``lookup``; refines surfaces with ``effort``."""
        self._lookup, self._effort = lookup, effort or Effort()
        self._rows: dict[LayerSpec, Measurement] = {}
        self._laid: dict[tuple[LayerSpec, tuple[int, ...], tuple[int, ...]], Laid] = {}
        self._surveyed = lookup.surfaces if isinstance(lookup, Surveyed) else ()

    def lookup(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """The rows of these specs; only what was not told before is asked for."""
        missing = [spec for spec in dict.fromkeys(specs) if spec not in self._rows]
        if missing:
            found = self._lookup(missing)
            self._rows.update({spec: found[spec] for spec in missing})
        return self._rows

    def knows(self, specs: Sequence[LayerSpec]) -> bool:
        """Whether all of them were told."""
        return all(spec in self._rows for spec in specs)

    def surface(self, spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> Floats:
        """Microseconds at every pair of widths: told, or interpolated between adaptive probes."""
        specs = [spec.with_widths(*pair) for pair in widths]
        laid = _covering(self._surveyed, spec, widths)
        if laid is None and len(set(widths)) <= _FEW:
            rows = self.lookup(specs)
            return np.asarray([rows[at].latency_us for at in specs])
        found = (laid or self._surface_over(spec, widths)).latencies_us(widths)
        for index, at in enumerate(specs):
            if at in self._rows:
                found[index] = self._rows[at].latency_us
        return found

    def _surface_over(self, spec: LayerSpec, widths: Sequence[tuple[int, int]]) -> Laid:
        ins, outs = (tuple(sorted(set(side))) for side in zip(*widths, strict=True))
        if len(ins) * len(outs) != len(set(widths)):  # not every pair: the two sides are the same channels
            outs = ()
        key = (spec.with_widths(*widths[-1]), ins, outs)
        if key not in self._laid:
            self._laid[key] = measure_surface(key[0], ins, outs, self.lookup, effort=self._effort)
        return self._laid[key]
