"""An engine's profile against what its layers, or its kernels, were predicted to take."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import onnx

from halp_trt.runtimes import Unit
from halp_trt.specs import Layer, LayerCheck, PruningPlan

__all__ = ["kernel_checks", "layer_checks"]

_NUMBERED = re.compile(r"(_token)?_[0-9]+$")
"""The suffix that ONNX Runtime appends to the names of nodes of its own, anew in every session."""


def layer_checks(
    plan: PruningPlan, model: onnx.ModelProto, predicted_us: Mapping[str, float], profile_us: Mapping[str, float]
) -> tuple[tuple[LayerCheck, ...], float]:
    """Predicted against profiled time of every layer, and the profiled time that belongs to no layer.

    Runtimes name a kernel after one of the nodes it stands for or after its output, and append to it: it belongs to the
    layer with the longest such name that its own name starts with. Layers that the runtime fused away are left out. The
    constant's addition behind a removed block belongs to no layer.
    """
    counts = plan.counts()
    alive = [layer for layer in plan.graph.layers if layer.lives_at(counts)]
    owners = _owners(alive, model)
    measured: dict[str, float] = {}
    unmatched_us = 0.0
    for kernel, kernel_us in profile_us.items():
        owner = _owner(kernel, owners)
        if owner is None:
            unmatched_us += kernel_us
        else:
            measured[owner.name] = measured.get(owner.name, 0.0) + kernel_us
    checks = tuple(
        LayerCheck(
            name=layer.name,
            spec=layer.spec_at(counts),
            predicted_us=predicted_us[layer.name],
            measured_us=measured[layer.name],
        )
        for layer in alive
        if layer.name in measured
    )
    return checks, unmatched_us


def kernel_checks(
    plan: PruningPlan, model: onnx.ModelProto, kernels: Sequence[tuple[Unit, float]], profile_us: Mapping[str, float]
) -> tuple[tuple[LayerCheck, ...], float]:
    """Every kernel's latency alone against its time in the profile, and the profiled time of unmeasured kernels.

    A kernel bears the name of its layer; if the layer became several kernels, or there is none, it keeps its own.
    """
    owners = _owners(plan.graph.layers, model)
    profiled: dict[str, list[float]] = defaultdict(list)
    for name, us in profile_us.items():
        profiled[_NUMBERED.sub("", name)].append(us)
    checks: list[LayerCheck] = []
    taken: set[str] = set()
    for unit, alone_us in kernels:
        owner = _owner(unit.name, owners)
        name = owner.name if owner is not None and owner.name not in taken else unit.name
        taken.add(name)
        inside = profiled[_NUMBERED.sub("", unit.name)]
        measured_us = inside.pop(0) if inside else 0.0
        checks.append(LayerCheck(name=name, spec=unit.spec, predicted_us=alone_us, measured_us=measured_us))
    return tuple(checks), math.fsum(us for rest in profiled.values() for us in rest)


def _owners(layers: Iterable[Layer], model: onnx.ModelProto) -> dict[str, Layer]:
    """Layers by the names that a runtime may give their kernels: those of their nodes and of the nodes' outputs."""
    owners = {node: layer for layer in layers for node in (layer.name, *layer.nodes)}
    return owners | {
        output: owners[node.name] for node in model.graph.node if node.name in owners for output in node.output
    }


def _owner(kernel: str, owners: Mapping[str, Layer]) -> Layer | None:
    """The layer with the longest name that a kernel's own begins with; None where there is none."""
    for length in range(len(kernel), 0, -1):
        layer = owners.get(kernel[:length])
        if layer is not None and kernel[length : length + 1] in ("", "_", " ", "+", "/", ":"):
            return layer
    return None
