"""Turns a dense ONNX graph into a ``ChannelGraph``: labels, groups and layers put together."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from halp_trt.errors import UsageError
from halp_trt.graphs.channels import form_groups, parameter_axes
from halp_trt.graphs.labels import Labels
from halp_trt.graphs.masking import maskable
from halp_trt.graphs.operators import shape
from halp_trt.graphs.partition import NO_KERNEL, find_units, make_layers
from halp_trt.graphs.products import weighting
from halp_trt.graphs.propagate import propagate
from halp_trt.specs import ChannelGraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """Positions of two parameter axes, in equal number, reported as coupled by another tracer."""

    first: tuple[str, int]
    first_positions: tuple[int, ...]
    second: tuple[str, int]
    second_positions: tuple[int, ...]


def channel_graph(
    model: onnx.ModelProto,
    parameters: Iterable[str],
    *,
    source_name: str = "",
    couplings: Sequence[Coupling] = (),
    frozen: Mapping[str, str] | None = None,
) -> ChannelGraph:
    """The channel groups and layers of a dense export.

    Args:
        model: a dense export (``halp_trt.graphs.export``).
        parameters: names of the module's parameters and buffers.
        source_name: source of the model, for the records.
        couplings: couplings found by another tracer; they can only join channels, never part them.
        frozen: reasons by layer name (or a prefix of it up to a dot) for outputs not to be pruned.

    Raises:
        UnsupportedLayerError: an input has no static shape.
        UsageError: a frozen layer does not exist.
    """
    graph = gs.import_onnx(model)
    labels = propagate(graph)
    _couple(labels, couplings)
    writers = _writers(graph, labels.fixed)
    _freeze(labels, writers, frozen or {})
    masked = maskable(graph, labels, set(parameters))
    channels = form_groups(labels, writers)
    inputs = _inputs(graph)
    batch_size = next((shape(tensor)[0] for tensor in graph.inputs if shape(tensor)), 1)
    layers = make_layers(find_units(graph, labels.fences), labels, channels, inputs, labels.fixed, batch_size)
    return ChannelGraph(
        model=source_name,
        input_shapes=tuple(shape(tensor) for tensor in graph.inputs),
        groups=channels.groups,
        layers=layers,
        parameters=parameter_axes(labels, channels, masked),
        fingerprint=fingerprint(graph),
    )


def fingerprint(graph: gs.Graph) -> str:
    """SHA-256 over operators, attributes, connections and shapes of a graph, not over its weights."""
    tensors: dict[str, int] = {}
    rows = []
    for node in graph.nodes:
        inputs = [(tensors.setdefault(t.name, len(tensors)), list(t.shape or ())) for t in node.inputs if t.name]
        outputs = [(tensors.setdefault(t.name, len(tensors)), list(t.shape or ())) for t in node.outputs]
        attributes = sorted((k, str(v)) for k, v in node.attrs.items() if not isinstance(v, gs.Tensor))
        rows.append([node.op, attributes, inputs, outputs])
    return hashlib.sha256(json.dumps(rows, default=int).encode()).hexdigest()


def _inputs(graph: gs.Graph) -> set[str]:
    """Names of the network's inputs, and of views of them, which stand in the same memory."""
    names = {tensor.name for tensor in graph.inputs}
    for node in graph.nodes:
        if node.op in NO_KERNEL and node.inputs[0].name in names:
            names.update(tensor.name for tensor in node.outputs)
    return names


def _couple(labels: Labels, couplings: Sequence[Coupling]) -> None:
    for coupling in couplings:
        first, second = labels.get(*coupling.first), labels.get(*coupling.second)
        if first is None or second is None:
            continue
        pairs = zip(coupling.first_positions, coupling.second_positions, strict=True)
        inside = np.array([(i, j) for i, j in pairs if i < len(first) and j < len(second)], dtype=np.int64)
        if len(inside) == len(coupling.first_positions):
            labels.couple(first[inside[:, 0]], second[inside[:, 1]])


def _writers(graph: gs.Graph, fixed: Set[str]) -> list[tuple[str, str, int]]:
    """``(layer, parameter, output axis)`` of every convolution and linear layer."""
    found = [(node.name, weighting(node, fixed)) for node in graph.nodes]
    return [(name, f.weight.name, f.out_axis) for name, f in found if f is not None and f.out_axis is not None]


def _freeze(labels: Labels, writers: Sequence[tuple[str, str, int]], frozen: Mapping[str, str]) -> None:
    names = [name for name, _, _ in writers]
    for layer, reason in frozen.items():
        hits = [w for w in writers if w[0] == layer or w[0].startswith(f"{layer}.")]
        if not hits:
            close = difflib.get_close_matches(layer, names, n=3) or names[:3]
            raise UsageError(f"no layer {layer!r} to freeze; did you mean {', '.join(close)}?")
        for _, parameter, axis in hits:
            ids = labels.get(parameter, axis)
            if ids is not None:
                labels.freeze(ids, reason)
