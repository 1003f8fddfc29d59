"""Latency-aware pruning: a trained network, a latency budget and a device in; a faster engine and the proof out.

Values, their files and errors need numpy alone. The functions below need further packages (torch, onnx, a runtime).
Everything is imported on first use::

    graph = halp_trt.trace(model, example)
    table = halp_trt.lookup(graph, "luts/mine.jsonl", runtime="tensorrt", precision="fp16")
    for step in halp_trt.prune(graph, table, budget="60%", score=score):
        halp_trt.mask(model, step.plan)
        train_some(model)
    narrow = halp_trt.rewrite(halp_trt.export(model, example), step.plan)
    engine = halp_trt.build(narrow, runtime="tensorrt", precision="fp16")

The values are listed in data-flow order in ``halp_trt.specs``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halp_trt import errors, specs
    from halp_trt.latency import LatencyTable
    from halp_trt.library import (
        build,
        export,
        load,
        lookup,
        mask,
        prune,
        rewrite,
        save,
        scorer,
        slim,
        trace,
        verify,
    )
    from halp_trt.specs import (
        Budget,
        ChannelGraph,
        EngineRecord,
        LayerSpec,
        Measurement,
        PruningPlan,
        Saliency,
        Score,
        Target,
        Verification,
    )

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "ChannelGraph",
    "EngineRecord",
    "LatencyTable",
    "LayerSpec",
    "Measurement",
    "PruningPlan",
    "Saliency",
    "Score",
    "Target",
    "Verification",
    "build",
    "errors",
    "export",
    "load",
    "lookup",
    "mask",
    "prune",
    "rewrite",
    "save",
    "scorer",
    "slim",
    "specs",
    "trace",
    "verify",
]


_MODULES = ("errors", "specs")
"""The public names that are modules."""
_HOMES = {name: "halp_trt.specs" for name in __all__ if name[0].isupper()} | {"LatencyTable": "halp_trt.latency"}
"""The modules of the public values; functions are in ``halp_trt.library``."""


def __getattr__(name: str) -> Any:
    """The function, value or module of that name, imported now (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        return importlib.import_module(f"halp_trt.{name}")
    return getattr(importlib.import_module(_HOMES.get(name, "halp_trt.library")), name)


def __dir__() -> list[str]:
    """All public names, those that are not imported yet included."""
    return sorted([*__all__, "__version__"])
