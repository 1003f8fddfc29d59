"""Number formats as TensorRT's engine inspector tells them, in both of its schemas.

TensorRT 8.5 to 10 writes ``{"Layers": [...], "Bindings": [names]}`` and one text for layout and type of a tensor
(``Format/Datatype``); 11 has ``I/O Tensors`` in place of ``Bindings`` and tells ``Format`` and ``Datatype`` apart. Both
need an engine that was built with detailed profiling verbosity, else layers are names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["compute_format", "engine_formats", "engine_types", "format_in", "number_format"]

_NUMBER_FORMATS = (
    ("bf16", r"\bbf(loat)?16\b"),
    ("fp16", r"\b(fp16|half)\b"),
    ("fp32", r"\b(fp32|float)\b"),
    ("fp8", r"\bfp8\b"),
    ("int8", r"\bint8\b"),
)
"""Number formats and the patterns of the inspector's names for them."""
_TF32 = re.compile(r"tf32")
"""A part of the names of kernels that round fp32's products to tf32; the tensors around them are fp32."""
_TYPE_KEYS = ("Datatype", "DataType", "Format/Datatype", "Format")
"""Keys under which the inspector tells a tensor's type, in order of preference."""


def number_format(tensor: Mapping[str, Any]) -> str:
    """The number format of a tensor of the inspector, empty where it names none that is known."""
    return next((name for name in (format_in(str(tensor.get(key, ""))) for key in _TYPE_KEYS) if name), "")


def format_in(text: str) -> str:
    """The number format that the inspector's words for a tensor name, empty where they name none that is known."""
    lower = text.lower()
    return next((name for name, pattern in _NUMBER_FORMATS if re.search(pattern, lower)), "")


def compute_format(data: str, tactic: str) -> str:
    """The number format that a kernel computes in: that of its data, or tf32 where its tactic's name says so."""
    return "tf32" if data == "fp32" and _TF32.search(tactic.lower()) else data


def engine_types(inspected: Mapping[str, Any]) -> dict[str, str]:
    """The number format that each node's kernel computes in, by ONNX node, as far as the engine shows it.

    Nodes inside larger compiled regions, whose kernels bear names of their own, are missing. Kernels that round fp32 to
    tf32 are told by the names of their tactics.
    """
    found: dict[str, str] = {}
    for layer in inspected.get("Layers", ()):
        if not isinstance(layer, Mapping) or not layer.get("Inputs") or layer.get("LayerType") in ("Reformat", "NoOp"):
            continue
        kind = compute_format(number_format(layer["Inputs"][0]), str(layer.get("TacticName", "")))
        for node in _nodes(layer) if kind else ():
            found[node] = kind
    return found


def engine_formats(inspected: Mapping[str, Any]) -> dict[str, str]:
    """Number format and memory layout of an engine's inputs and outputs, by name, in the inspector's own words."""
    tensors = inspected.get("I/O Tensors")
    if tensors is not None:
        return {tensor["Name"]: _layout(tensor) for tensor in tensors}
    names = set(inspected.get("Bindings", ()))
    layers = [layer for layer in inspected.get("Layers", ()) if isinstance(layer, Mapping)]
    edges = [edge for layer in layers for key in ("Inputs", "Outputs") for edge in layer.get(key, ())]
    return {edge["Name"]: str(edge.get("Format/Datatype", "")) for edge in edges if edge.get("Name") in names}


def _layout(tensor: Mapping[str, Any]) -> str:
    profiles = tensor.get("ProfileInfo") or [{}]
    return str(profiles[0].get("Format") or tensor.get("DataType", ""))


def _nodes(layer: Mapping[str, Any]) -> Iterator[str]:
    """The ONNX nodes that a layer stands for: from its metadata, and from its own name."""
    yield from re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(layer.get("Metadata", "")))
    for part in re.split(r" \+ | \|\| ", str(layer.get("Name", ""))):
        yield re.sub(r"^PWN\((.*)\)$", r"\1", part.strip())
