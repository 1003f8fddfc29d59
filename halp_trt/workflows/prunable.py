"""The prunable part of a network, by its graph and the latency table where there is one."""

from __future__ import annotations

from halp_trt.errors import GraphMismatchError, MissingLatencyError
from halp_trt.latency import LatencyTable, layer_latencies_us
from halp_trt.planning.prunability import Prunability, prunability
from halp_trt.planning.resources import network_footprint
from halp_trt.specs import ChannelGraph

__all__ = ["prunable_part"]


def prunable_part(graph: ChannelGraph, table: LatencyTable | None) -> Prunability:
    """The prunable channels and their share of the latency; no share where the table lacks a dense layer."""
    if table is None:
        return prunability(graph)
    try:
        alike = table.for_footprint(network_footprint(graph, table.target.batch_size).num_bytes)
        return prunability(graph, layer_latencies_us(graph, alike, graph.dense_counts()))
    except (GraphMismatchError, MissingLatencyError):
        return prunability(graph)
