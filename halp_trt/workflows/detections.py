"""Detections in the graph: a network's decoding and suppression of boxes, for those who want one file."""

from __future__ import annotations

from halp_trt.graphs.suppression import Tail, suppressing_tail
from halp_trt.models.detection.reading import reading_graph
from halp_trt.models.sources import LoadedModel
from halp_trt.tasks.detection.task import LEAST_SCORE, MOST_BEFORE, MOST_FOUND, MOST_OVERLAP
from halp_trt.workflows.settings import DeploySettings

__all__ = ["tail_of"]


def tail_of(settings: DeploySettings, network: LoadedModel) -> Tail | None:
    """The tail that gives a network's detections as the host finds them; None if it is not asked for.

    Raises:
        ModelError: the network does not say how its raw outputs are read, or that cannot become a graph.
    """
    if not settings.appends_nms:
        return None
    return suppressing_tail(
        reading_graph(network.module, network.example, network.source),
        least_score=LEAST_SCORE,
        most_overlap=MOST_OVERLAP,
        most_before=MOST_BEFORE,
        most_found=MOST_FOUND,
    )
