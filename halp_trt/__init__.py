"""Latency-aware pruning: a trained network, a latency budget and a device in; a faster engine and the proof out.

Values, their files and errors need numpy alone. The functions below need further packages (torch, onnx, a runtime) and
are imported on first use::

    graph = halp_trt.trace(model, example)
    table = halp_trt.load("luts/....jsonl")
    for step in halp_trt.prune(graph, table, budget="60%", score=score):
        halp_trt.mask(model, step.plan)
        train_some(model)
    engine = halp_trt.build(halp_trt.rewrite(halp_trt.export(model, example), step.plan), runtime="tensorrt")

The values are listed in data-flow order in ``halp_trt.specs``.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from halp_trt import errors as errors
from halp_trt import specs as specs
from halp_trt.latency import LatencyTable as LatencyTable
from halp_trt.specs import Budget as Budget
from halp_trt.specs import ChannelGraph as ChannelGraph
from halp_trt.specs import EngineRecord as EngineRecord
from halp_trt.specs import LayerSpec as LayerSpec
from halp_trt.specs import Measurement as Measurement
from halp_trt.specs import PruningPlan as PruningPlan
from halp_trt.specs import Saliency as Saliency
from halp_trt.specs import Score as Score
from halp_trt.specs import Target as Target
from halp_trt.specs import Verification as Verification

if TYPE_CHECKING:
    from halp_trt.library import build as build
    from halp_trt.library import export as export
    from halp_trt.library import load as load
    from halp_trt.library import mask as mask
    from halp_trt.library import prune as prune
    from halp_trt.library import rewrite as rewrite
    from halp_trt.library import save as save
    from halp_trt.library import slim as slim
    from halp_trt.library import trace as trace
    from halp_trt.library import verify as verify

__version__ = "0.1.0"

_LAZY = MappingProxyType(
    dict.fromkeys(
        ("build", "export", "load", "mask", "prune", "rewrite", "save", "slim", "trace", "verify"), "halp_trt.library"
    )
)
"""The library's functions, and the module that each is imported from on first use."""


def __getattr__(name: str) -> Any:
    """The function of that name, imported now (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """All public names, functions not imported yet included."""
    return sorted({*(name for name in globals() if not name.startswith("_")), *_LAZY, "__version__"})
