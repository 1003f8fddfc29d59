"""The numbers in a latency table's report: coverage of its surfaces, their errors, and the machine's drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from halp_trt.latency import LatencyTable, Surface

__all__ = ["Coverage", "cliffs", "coverage", "drift_fractions", "heaviest", "kernel_name", "width_range"]

_PERCENTILE = 95


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The number of entries of some surfaces and their errors.

    Attributes:
        num_entries: pairs of widths covered, measured or interpolated.
        num_measured: the number of measured ones.
        p95_error_fraction, largest_error_fraction: 95th percentile and largest of the entries' relative errors.
    """

    num_entries: int
    num_measured: int
    p95_error_fraction: float
    largest_error_fraction: float

    @property
    def measured_fraction(self) -> float:
        """The share of measured entries."""
        return self.num_measured / self.num_entries


def coverage(surfaces: Sequence[Surface]) -> Coverage | None:
    """The coverage of surfaces taken together; None if there are none."""
    grids = [surface.grid() for surface in surfaces]
    if not grids:
        return None
    errors = np.concatenate([grid.error_fraction.ravel() for grid in grids])
    return Coverage(
        num_entries=len(errors),
        num_measured=sum(int(grid.is_measured.sum()) for grid in grids),
        p95_error_fraction=float(np.percentile(errors, _PERCENTILE)),
        largest_error_fraction=float(errors.max()),
    )


def heaviest(table: LatencyTable) -> list[Surface]:
    """A table's surfaces, those whose layer takes longest at its widest first."""

    def widest_us(surface: Surface) -> float:
        ins, outs = surface.in_widths, surface.out_widths
        return surface.at(ins[-1], outs[-1] if outs else ins[-1]).latency_us

    return sorted(table.refined_surfaces(), key=widest_us, reverse=True)


def kernel_name(surface: Surface) -> str:
    """A surface's layer without its widths: ``Conv+Relu 3x3 /2 at 56x56``."""
    spec = surface.spec
    kernel, size = ("x".join(map(str, numbers)) for numbers in (spec.kernel_size, spec.in_size))
    words = [
        "+".join([spec.operator, *spec.epilogue]),
        kernel,
        f"/{max(spec.stride)}" if max(spec.stride, default=1) > 1 else "",
        "depthwise" if spec.is_depthwise else f"groups {spec.conv_groups}" if spec.conv_groups > 1 else "",
        f"at {size}" if size else "",
        f"batch {spec.batch}" if spec.batch else "",
    ]
    return " ".join(word for word in words if word)


def width_range(widths: Sequence[int]) -> str:
    """The first and the last of some widths: ``8–512``; empty where there are none."""
    if len(widths) < 2:
        return "".join(map(str, widths))
    return f"{widths[0]}–{widths[-1]}"


def cliffs(widths: Sequence[int], step: int) -> list[float]:
    """The cliffs of a staircase: half-way between the widths beside each jump; none at a step of 1."""
    if step <= 1:
        return []
    return [(left + right) / 2 for left, right in pairwise(widths) if -(-left // step) != -(-right // step)]


def drift_fractions(table: LatencyTable) -> npt.NDArray[np.float64] | None:
    """The interleaved reference's latency at every row, in the order they were taken, relative to its median, less 1.

    Rows without a reference hold NaN. None where no row has one.
    """
    taken = np.array([row.reference_us or np.nan for row in table.rows.values()])
    if np.isnan(taken).all():
        return None
    return np.asarray(taken / np.nanmedian(taken) - 1)
