"""Latency tables: the measurements of one target, and a network's latency as their sum.

A lookup returns a measurement or raises; it never guesses and never returns a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any

from halp_trt.errors import MissingLatencyError, TargetMismatchError
from halp_trt.latency.staircase import noise_us
from halp_trt.latency.surface import Entry, Surface
from halp_trt.specs import ChannelGraph, Count, LayerSpec, Measurement, Target

__all__ = [
    "LatencyTable",
    "Origin",
    "check_target",
    "differences",
    "graph_specs",
    "layer_latencies_us",
]

_P90_DEVIATIONS = 1.28
"""Standard deviations between a normal's median and its p90."""
_ALIKE = 2.0
"""Layers' latencies are comparable between networks whose footprints differ by at most this factor."""
_FAR_BYTES = 1 << 26
"""Layers' latencies are comparable between all networks above this footprint, which no cache holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A file of somebody else's that rows of a table were read from.

    Attributes:
        file: its name. sha256: its digest.
        source: the place it is from, in words or as an address; empty if nobody said.
        licence: the licence it is under; empty if nobody said.
        num_rows, num_failures: its latencies of the table's target, and its layers without one.
    """

    file: str
    sha256: str
    source: str = ""
    licence: str = ""
    num_rows: Count = 0
    num_failures: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """Measured latencies of single layers on one target.

    Attributes:
        target: the device, runtime and protocol they were measured with.
        rows: the measurement of every layer.
        surfaces: interpolations over pairs of widths; they answer :meth:`entry`, never a lookup.
        failed: layers that were tried and gave no latency, and what stands in its place; none of them has a row.
        origins: the files that rows were imported from; none where all were measured here.
    """

    target: Target
    rows: Mapping[LayerSpec, Measurement]
    surfaces: tuple[Surface, ...] = ()
    failed: Mapping[LayerSpec, str] = field(default_factory=dict)
    origins: tuple[Origin, ...] = ()

    def __post_init__(self) -> None:
        failed = {spec: why for spec, why in self.failed.items() if spec not in self.rows}
        object.__setattr__(self, "rows", MappingProxyType(dict(self.rows)))
        object.__setattr__(self, "failed", MappingProxyType(failed))

    def missing(self, specs: Iterable[LayerSpec]) -> list[LayerSpec]:
        """Those of ``specs`` that were not measured, each once, in the order given."""
        return [spec for spec in dict.fromkeys(specs) if spec not in self.rows]

    def lookup(self, specs: Iterable[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """All rows, after making sure that ``specs`` are among them.

        Raises:
            MissingLatencyError: some are not.
        """
        missing = self.missing(specs)
        if tried := [spec for spec in missing if spec in self.failed]:
            raise MissingLatencyError(
                f"the table of {self.target.device} ({self.target.runtime}, {self.target.precision}) has a failure for "
                f"{tried[0]}, no latency ({self.failed[tried[0]]}); choose other widths, or measure it with build-lut"
            )
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise MissingLatencyError(
                f"the table of {self.target.device} ({self.target.runtime}, {self.target.precision}) has no latency of "
                f"{missing[0]}{others}; measure with build-lut, with --resume to extend this table"
            )
        return self.rows

    def latency_us(self, spec: LayerSpec) -> float:
        """The measured latency of one layer in microseconds.

        Raises:
            MissingLatencyError: it was not measured.
        """
        return self.lookup((spec,))[spec].latency_us

    def entry(self, spec: LayerSpec) -> Entry:
        """The latency of one layer, measured or interpolated, and its error.

        Raises:
            MissingLatencyError: it was not measured, and no surface covers its widths.
        """
        if spec in self.rows:
            row = self.rows[spec]
            return Entry(latency_us=row.latency_us, error_us=noise_us(row), is_measured=True)
        for surface in self.surfaces:
            if surface.covers(spec):
                return surface.at(spec.in_channels, spec.out_channels)
        self.lookup((spec,))
        raise AssertionError("a lookup of a missing row raises")

    def estimates(self, specs: Iterable[LayerSpec]) -> dict[LayerSpec, Measurement]:
        """The rows of ``specs``; a missing one is replaced by an interpolation in the shape of a row, with a doubt.

        Raises:
            MissingLatencyError: a layer was not measured, and no surface covers its widths.
        """
        return {spec: self.rows[spec] if spec in self.rows else _as_row(self.entry(spec)) for spec in specs}

    def refined_surfaces(self) -> tuple[Surface, ...]:
        """The surfaces with all rows measured since they were laid, in a network of similar footprint."""
        return tuple(surface.with_rows(self._like(surface.num_bytes)) for surface in self.surfaces)

    def for_footprint(self, num_bytes: int) -> LatencyTable:
        """The table's rows and surfaces measured in a network of about this footprint, and those without one.

        A small kernel in a network whose memory leaves the caches takes twice what it takes in a small one.
        """
        surfaces = tuple(surface for surface in self.surfaces if _are_alike(surface.num_bytes, num_bytes))
        return replace(self, rows=self._like(num_bytes), surfaces=surfaces)

    def _like(self, num_bytes: int) -> dict[LayerSpec, Measurement]:
        return {spec: row for spec, row in self.rows.items() if _are_alike(row.footprint_bytes, num_bytes)}

    def with_surfaces(self, surfaces: Iterable[Surface]) -> LatencyTable:
        """This table with ``surfaces`` added; one over the same widths of the same layer replaces an older one."""
        kept = {surface.key: surface for surface in (*self.surfaces, *surfaces)}
        return replace(self, surfaces=tuple(kept.values()))

    def with_rows(
        self, rows: Mapping[LayerSpec, Measurement] | Iterable[tuple[LayerSpec, Measurement]]
    ) -> LatencyTable:
        """This table with ``rows`` added; for a spec measured twice the new measurement counts."""
        return replace(self, rows={**self.rows, **dict(rows)})

    def with_failures(self, failed: Mapping[LayerSpec, str]) -> LatencyTable:
        """This table with ``failed`` added; a layer that has a row keeps it."""
        return replace(self, failed={**self.failed, **failed})


def _are_alike(num_bytes: int, others: int) -> bool:
    """True if layers' latencies are comparable between networks of these footprints; 0 stands for any."""
    if not (num_bytes and others):
        return True
    smaller, larger = sorted((num_bytes, others))
    return smaller >= _FAR_BYTES or larger <= _ALIKE * smaller


def _as_row(entry: Entry) -> Measurement:
    """An interpolation as if it had been measured, p10 and p90 as far apart as a normal's with its error."""
    spread = _P90_DEVIATIONS * entry.error_us
    return Measurement(
        latency_us=entry.latency_us,
        p10_us=max(0.0, entry.latency_us - spread),
        p90_us=entry.latency_us + spread,
        num_samples=1,
        doubt=f"interpolated, +-{100 * entry.error_us / max(entry.latency_us, 1e-9):.1f} %",
    )


def check_target(table: LatencyTable, target: Target) -> None:
    """Makes sure that a table was measured for ``target``.

    Raises:
        TargetMismatchError: it was measured for another; the message names every field with a difference.
    """
    if differing := differences(table.target, target):
        raise TargetMismatchError(
            f"the latency table was measured for another target ({'; '.join(differing)}); "
            "choose the table of this target or measure one with build-lut"
        )


def differences(found: Target, wanted: Target) -> list[str]:
    """The differences between two targets, field by field, in words."""
    return list(_differences("", found, wanted))


def _differences(prefix: str, found: Any, wanted: Any) -> Iterator[str]:
    for name in (one.name for one in fields(found)):
        here, there = getattr(found, name), getattr(wanted, name)
        if is_dataclass(here):
            yield from _differences(f"{prefix}{name}.", here, there)
        elif here != there:
            yield f"{prefix}{name}: table {here!r}, needed {there!r}"


# ---- what a network costs --------------------------------------------------------------------------------------------


def graph_specs(graph: ChannelGraph, counts: Mapping[str, int]) -> tuple[LayerSpec, ...]:
    """The spec of every layer that lives, in execution order, when ``counts[group]`` channels of a group are kept."""
    return tuple(layer.spec_at(counts) for layer in graph.layers if layer.lives_at(counts))


def layer_latencies_us(graph: ChannelGraph, table: LatencyTable, counts: Mapping[str, int]) -> dict[str, float]:
    """Microseconds of every layer by name, in execution order; 0 for removed ones.

    Surfaces interpolate layers that were not measured.

    Raises:
        MissingLatencyError: a layer was not measured at these widths, and no surface covers them.
    """
    rows = table.estimates(graph_specs(graph, counts))
    return {
        layer.name: rows[layer.spec_at(counts)].latency_us if layer.lives_at(counts) else 0.0 for layer in graph.layers
    }
