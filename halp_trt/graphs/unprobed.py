"""Layers of which no probe can be made, known before anything is measured."""

from __future__ import annotations

from functools import lru_cache

from halp_trt.errors import UnsupportedLayerError
from halp_trt.graphs.literal import REFUSED
from halp_trt.graphs.operators import POOLS, PRODUCTS
from halp_trt.graphs.probe import make_probe
from halp_trt.specs import ChannelGraph, LayerSpec

__all__ = ["probe_refusal", "unprobed"]

_SURE = PRODUCTS | POOLS
"""Operators whose templates always give a probe."""


def unprobed(graph: ChannelGraph, batch_size: int) -> dict[str, str]:
    """The layers that no runtime can be given alone at their dense widths, each with the reason in words."""
    reasons = {layer.name: probe_refusal(layer.spec, batch_size) for layer in graph.layers}
    return {name: reason for name, reason in reasons.items() if reason}


@lru_cache(maxsize=1 << 12)
def probe_refusal(spec: LayerSpec, batch_size: int) -> str:
    """The reason why no probe of a layer can be made; empty if one can."""
    stated = next((str(value) for name, value in spec.attributes if name == REFUSED), "")
    if stated or (spec.operator in _SURE and not spec.operands and not spec.outputs):
        return stated
    try:
        make_probe(spec, batch_size)
    except UnsupportedLayerError as error:
        return str(error).partition(";")[0]
    return ""
