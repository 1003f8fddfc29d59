"""Surveying a network: its layers over both of their widths, from few probes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halp_trt.errors import UsageError
from halp_trt.latency import (
    Effort,
    LatencyTable,
    Region,
    Surface,
    grid_surfaces,
    least_probes,
    measure_surfaces,
    usual_probes,
)
from halp_trt.planning.chunks import grid_steps
from halp_trt.planning.resources import network_footprint
from halp_trt.planning.widths import width_choices
from halp_trt.runtimes import Runtime
from halp_trt.specs import ChannelGraph, LayerSpec, Measurement, Target
from halp_trt.store import append_surfaces, create_table, read_table
from halp_trt.texts import counted
from halp_trt.workflows.measurer import Measurer, Progress, silent

__all__ = ["Survey", "survey_lut"]


def survey_lut(
    graph: ChannelGraph,
    request: Survey,
    *,
    path: str | Path,
    runtime: Runtime,
    target: Target,
    resume: bool = False,
    progress: Progress = silent,
) -> LatencyTable:
    """Measures a network's layers over both of their widths, from few probes; every row is written as it is known.

    The surfaces that interpolate between the rows are written when all are laid. A killed survey goes on where it was:
    it asks for the same probes again, and those that are there are not measured twice.

    Args:
        graph: the network.
        request: the extent and the precision of the survey.
        path: the table's file.
        runtime: the runtime that measures them.
        target: goes into the header, or must equal the one there.
        resume: whether to continue a table where there is one.
        progress: called with the number of layers measured so far and an estimate of all.

    Raises:
        ArtefactError: there is a table and ``resume`` is not set, or it is damaged or cannot be written.
        TargetMismatchError: the table is of another target.
        UsageError: there are more layers than probes.
        GraphMismatchError: the network's layers are those of another batch size.
    """
    graph.check_batch(target.batch_size)
    regions = request.regions(graph)
    create_table(path, target, may_exist=resume)
    done = 0

    def report(num_done: int, num_total: int) -> None:
        progress(done + num_done, max(done + num_total, _PROBES_OF_A_SURFACE * len(regions)))

    measurer = Measurer(path, runtime, target, footprint=network_footprint(graph, target.batch_size), progress=report)

    def lookup(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        nonlocal done
        shuffled = random.Random(request.seed).sample(list(specs), len(specs))
        rows = measurer(shuffled)
        done += len(specs)
        return rows

    lay = grid_surfaces if request.is_full else measure_surfaces
    known = {surface.key: surface for surface in measurer.table.surfaces}
    laid = [surface for surface in lay(regions, lookup) if _is_finer(surface, known.get(surface.key))]
    append_surfaces(path, laid)
    progress(done, done)
    return read_table(path)


def _is_finer(surface: Surface, known: Surface | None) -> bool:
    """True if a surface rests on more points than the known one over the same widths."""
    return known is None or len(surface.points) > len(known.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The layout of a network's latency table.

    Attributes:
        step: channels between two widths.
        effort: limits for the whole table: the number of probes, and the error at which refinement stops; None for 24
            probes for each different layer, but at least 1,000.
        max_error_fraction: the error at which refinement stops where no effort is named.
        is_full: whether every pair of widths is measured instead.
        seed: seed of the order of probes.
    """

    step: int = 8
    effort: Effort | None = None
    max_error_fraction: float = 0.03
    is_full: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.step < 1:
            raise UsageError(f"the step between widths must be at least 1 channel, got {self.step}")

    def regions(self, graph: ChannelGraph) -> list[Region]:
        """One region for every different layer, each with its share of the probes.

        Every region gets the least number of probes for a surface (``least_probes``), then the usual number
        (``usual_probes``); the rest is shared in proportion to the square root of its entries.

        Raises:
            UsageError: there are fewer probes than the regions need at least.
        """
        found: dict[Region, None] = {}
        steps = grid_steps(graph, grid_step=self.step)
        for layer in graph.layers:
            ins, outs = (_widths(graph, groups, steps) for groups in (layer.in_groups, layer.out_groups))
            outs = () if layer.is_one_sided else outs or (layer.spec.out_channels,)
            region = Region(spec=layer.spec, in_widths=ins or (layer.spec.in_channels,), out_widths=outs)
            found[_possible(region)] = None
        effort = self.effort or Effort(
            max_probes=max(_MIN_PROBES, _PROBES_OF_A_LAYER * len(found)), max_error_fraction=self.max_error_fraction
        )
        shares = _shares(list(found), effort.max_probes)
        if shares is None and not self.is_full:
            least = sum(map(least_probes, found))
            raise UsageError(
                f"{counted(effort.max_probes, 'probe')} cannot cover the {len(found)} different layers of this "
                f"network; allow at least {least} with --max-probes"
            )
        return [
            replace(region, effort=replace(effort, max_probes=share))
            for region, share in zip(found, shares or [1] * len(found), strict=True)
        ]


_PROBES_OF_A_SURFACE = 20
"""Probes of each surface that progress counts on before more is known."""
_MIN_PROBES = 1_000
"""Probes of a whole table without a named effort, at least."""
_PROBES_OF_A_LAYER = 24
"""Probes for each different layer without a named effort."""


def _shares(regions: Sequence[Region], max_probes: int) -> list[int] | None:
    """Largest number of probes for each region; None where ``max_probes`` are too few."""
    least, usual = (np.asarray([count(region) for region in regions]) for count in (least_probes, usual_probes))
    if least.sum() > max_probes:
        return None
    wanted = usual - least
    if usual.sum() <= max_probes:
        least, wanted = usual, np.sqrt([region.num_entries for region in regions])
    shares = least + (max_probes - least.sum()) * wanted / max(wanted.sum(), 1)
    return [int(share) for share in shares]


def _widths(graph: ChannelGraph, groups: Sequence[tuple[str, int]], steps: Mapping[str, int]) -> tuple[int, ...]:
    """The widths that a side of a layer may take: every sum of widths of its groups; none without groups."""
    times = Counter[str]()
    for name, multiplicity in groups:
        times[name] += multiplicity
    sums = {0}
    for name, multiplicity in times.items():
        group = graph.group(name)
        choices = width_choices(group.num_channels, steps[name]) if group.prunable else (group.num_channels,)
        sums = {width + multiplicity * choice for width in sums for choice in choices}
    return tuple(sorted(sums - {0}))


def _possible(region: Region) -> Region:
    """A region without the widths that a grouped convolution cannot have."""
    spec = region.spec
    if spec.conv_groups == 1 or spec.is_depthwise:
        return region
    return replace(
        region,
        in_widths=tuple(width for width in region.in_widths if width % spec.conv_groups == 0),
        out_widths=tuple(width for width in region.out_widths if width % spec.conv_groups == 0),
    )
