"""The layers and widths that surfaces are laid over, and how many probes that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from halp_trt.errors import UsageError
from halp_trt.latency.cells import Point
from halp_trt.latency.surface import written_width
from halp_trt.specs import LayerSpec

__all__ = ["COARSE", "LADDERS", "Effort", "Region", "least_probes", "num_coarse", "usual_probes"]

COARSE = 4
"""Corners of the first grid along each axis that has as many widths."""
LADDERS = ((8, 1), (17, 1), (17, 2))
"""``(rungs, stride)`` of the ladders measured along an axis to find its step; a longer one follows if the axis is long
enough and the shorter showed no step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """When the refinement of a surface stops.

    Attributes:
        max_error_fraction: a cell is split if its middle probe lies farther from its interpolation, relative to the
            probe.
        max_probes: measured points of one surface; its outermost corners are measured in any case.
    """

    max_error_fraction: float = 0.03
    max_probes: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.max_error_fraction < 1 or self.max_probes < 1:
            raise UsageError(f"an error of 0..100 % and at least 1 probe are needed, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A layer and the widths a surface is to be laid over.

    Attributes:
        spec: the layer.
        in_widths, out_widths: ascending; ``out_widths`` is empty for a one-sided layer.
        effort: how far to refine.
        steps: the staircase's steps along both axes, if known; None: found by ladders of adjacent widths.
    """

    spec: LayerSpec
    in_widths: tuple[int, ...]
    out_widths: tuple[int, ...]
    effort: Effort = field(default_factory=Effort)
    steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for widths in (self.in_widths, self.out_widths):
            if list(widths) != sorted(set(widths)):
                raise UsageError(f"the widths of a surface must ascend, got {list(widths)[:8]}")

    @property
    def shape(self) -> tuple[int, int]:
        """The number of widths along each axis; a missing axis counts 1."""
        return len(self.in_widths), max(1, len(self.out_widths))

    @property
    def num_entries(self) -> int:
        """The number of pairs of widths it covers."""
        return math.prod(self.shape)

    def spec_at(self, position: Point) -> LayerSpec:
        """The layer at a position along the axes."""
        in_channels = self.in_widths[position[0]]
        out_channels = self.out_widths[position[1]] if self.out_widths else written_width(self.spec, in_channels)
        return self.spec.with_widths(in_channels, out_channels)


def least_probes(region: Region) -> int:
    """The fewest probes of a surface: its outermost corners."""
    return num_coarse(region.shape, 2)


def usual_probes(region: Region) -> int:
    """The probes of a surface without bends: ladders along both axes, the first grid and a test of each cell."""
    ladders = sum(LADDERS[0][0] for length in region.shape if length >= LADDERS[0][0])
    return min(region.num_entries, ladders + num_coarse(region.shape, COARSE))


def num_coarse(shape: tuple[int, int], num_corners: int) -> int:
    """The probes of a first grid of ``num_corners`` along each axis, tests included if it has inner corners."""
    across, down = (min(length, num_corners) for length in shape)
    tests = max(across - 1, 1) * max(down - 1, 1) if num_corners > 2 else 0
    return min(math.prod(shape), across * down + tests)
