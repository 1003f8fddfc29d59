"""The layers of an engine as TensorRT's inspector tells them, and the number formats that their kernels compute in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["EngineLayer", "EngineLayers"]

_MOVES = ("Reformat", "NoOp", "Shuffle", "Slice", "Padding", "shape_call", "Constant", "Concatenation")
"""Kinds of layers that compute nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayer:
    """One layer of an engine.

    Attributes:
        name: its name in the engine, which profiles name, too.
        kind: the inspector's word for it; empty for an engine without details.
        parameters: the inspector's word for what it computes (``Convolution``); empty where it has none.
        nodes: the ONNX nodes that it stands for, in order; its own name's parts where nothing tells them.
        reads, writes: number formats of its data, in the inspector's own words.
        tactic: name of its kernel; empty where there is none.
        number_format: the number format that it computes in; empty where nothing shows it.
    """

    name: str
    kind: str = ""
    parameters: str = ""
    nodes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    tactic: str = ""
    number_format: str = ""

    @property
    def moves_data(self) -> bool:
        """True if it changes layouts or shapes alone."""
        return self.kind in _MOVES


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLayers:
    """A file of ``--exportLayerInfo``.

    Attributes:
        layers: its layers, in the engine's order.
        edges: number format and layout of inputs and outputs, by name, in the inspector's own words.
    """

    layers: tuple[EngineLayer, ...]
    edges: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", MappingProxyType(dict(self.edges)))

    @property
    def is_detailed(self) -> bool:
        """True if it tells more than names, as engines do that were built with detailed profiling verbosity."""
        return any(layer.kind for layer in self.layers)

    def types(self) -> dict[str, str]:
        """The number format of each ONNX node's kernel, as far as the engine shows it."""
        return {
            node: layer.number_format
            for layer in self.layers
            if layer.number_format and layer.kind not in ("Reformat", "NoOp")
            for node in layer.nodes
        }

    def unread(self) -> tuple[EngineLayer, ...]:
        """The layers that compute something in a number format that nothing shows."""
        return tuple(layer for layer in self.layers if layer.kind and not layer.moves_data and not layer.number_format)
