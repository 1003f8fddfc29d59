"""Measuring the latency table of a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from halp_trt.latency import LatencyTable
from halp_trt.planning.prunability import Prunability
from halp_trt.runtimes import Runtime
from halp_trt.specs import ChannelGraph, Target
from halp_trt.store import check_new_table, hold
from halp_trt.workflows.folder import table_path
from halp_trt.workflows.network import network_of
from halp_trt.workflows.precision import check_measurable
from halp_trt.workflows.prepared import prepare
from halp_trt.workflows.prunable import prunable_part
from halp_trt.workflows.settings import NO_DATA, Settings
from halp_trt.workflows.survey import Survey, survey_lut
from halp_trt.workflows.target import find_target
from halp_trt.workflows.unprobed import warn_unprobed

__all__ = ["measure_alone", "measure_table"]


def measure_table(
    graph: ChannelGraph,
    survey: Survey,
    path: Path,
    runtime: Runtime,
    target: Target,
    progress: Callable[[int, int], None],
    *,
    resume: bool,
) -> tuple[Path, LatencyTable]:
    """Measures the layers of a network over both of their widths; returns the table's path and the table.

    Raises:
        ArtefactError: the table exists and ``resume`` is not set, or it cannot be written.
        TargetMismatchError: it is of another target.
    """
    warn_unprobed(graph, target)
    return path, survey_lut(graph, survey, path=path, runtime=runtime, target=target, resume=resume, progress=progress)


def measure_alone(
    settings: Settings, survey: Survey, path: Path | None, progress: Callable[[int, int], None], *, resume: bool
) -> tuple[Path, LatencyTable, Prunability]:
    """Measures the table of the network that settings name, at ``path`` or at the target's own place.

    Returns:
        The table's path, the table, and what can be pruned of the network.

    Raises:
        ArtefactError, TargetMismatchError: as :func:`measure_table`.
        UnsupportedLayerError: a layer of the network is not understood.
        UsageError: the runtime measures no layers in this precision.
        InUseError: another process measures the table.
    """
    runtime, target = find_target(settings.place)
    check_measurable(runtime, target)
    asked = settings if settings.network.classes is None else settings.changed(data=NO_DATA)
    place = path or table_path(target)
    with hold(place):
        if not resume:
            check_new_table(place)
        network, data = network_of(asked)
        graph = prepare(network, data, frozen=settings.prune.frozen).graph
        found, table = measure_table(graph, survey, place, runtime, target, progress, resume=resume)
    return found, table, prunable_part(graph, table)
