"""Latency tables: measurements of layers on a target, surfaces between them, a network's latency, and its cliffs."""

from __future__ import annotations

from halp_trt.latency.region import Effort, Region, least_probes, usual_probes
from halp_trt.latency.staircase import noise_us, staircase_step
from halp_trt.latency.surface import Entry, Grid, Surface
from halp_trt.latency.survey import grid_surfaces, measure_surface, measure_surfaces
from halp_trt.latency.table import (
    LatencyTable,
    Origin,
    check_target,
    differences,
    graph_specs,
    layer_latencies_us,
)

__all__ = [
    "Effort",
    "Entry",
    "Grid",
    "LatencyTable",
    "Origin",
    "Region",
    "Surface",
    "check_target",
    "differences",
    "graph_specs",
    "grid_surfaces",
    "layer_latencies_us",
    "least_probes",
    "measure_surface",
    "measure_surfaces",
    "noise_us",
    "staircase_step",
    "usual_probes",
]
