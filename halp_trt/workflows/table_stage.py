"""Measuring the latency table of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from halp_trt.latency import LatencyTable
from halp_trt.workflows.folder import Settings
from halp_trt.workflows.network import NO_DATA, graph_of, load_network
from halp_trt.workflows.precision import check_measurable
from halp_trt.workflows.survey import Survey, survey_lut
from halp_trt.workflows.target import find_target, table_of

__all__ = ["measure_table"]


def measure_table(
    settings: Settings, survey: Survey, path: Path | None, progress: Callable[[int, int], None], *, resume: bool
) -> tuple[Path, LatencyTable]:
    """Measures the layers of the network over both of their widths.

    Raises:
        ArtefactError: the table exists and ``resume`` is not set, or it cannot be written.
        TargetMismatchError: it is of another target.
        UnsupportedLayerError: a layer of the network is not understood.
        UsageError: the runtime measures no layers in this precision.
    """
    runtime, target = find_target(settings)
    check_measurable(runtime, target)
    path = path or table_of(settings, target)
    network, _ = load_network(replace(settings, data=NO_DATA) if settings.num_classes else settings)
    graph = graph_of(settings, network)
    whole = resume and path.exists()
    table = survey_lut(graph, survey, path=path, runtime=runtime, target=target, resume=whole, progress=progress)
    return path, table
