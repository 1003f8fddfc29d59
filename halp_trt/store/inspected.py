"""The JSON of TensorRT's engine inspector, as ``--exportLayerInfo`` writes it, too.

TensorRT 8.5 to 10 writes ``{"Layers": [...], "Bindings": [names]}`` and one text for layout and type of a tensor
(``Format/Datatype``); 11 has ``I/O Tensors`` in place of ``Bindings`` and tells ``Format`` and ``Datatype`` apart. Both
need an engine that was built with detailed profiling verbosity, else layers are names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from halp_trt.device.tensorrt.inspector import compute_format, number_format
from halp_trt.errors import ArtefactError
from halp_trt.gate.engine_layers import EngineLayer, EngineLayers
from halp_trt.store.json_text import shown

__all__ = ["inspected_layers", "is_inspected"]

_COPY = "Reformatting CopyNode for "
"""Beginning of the names of layers that no node of the network stands for."""
_WORDS_KEYS = ("Format/Datatype", "Format", "Datatype", "DataType")
"""Keys under which it tells a tensor's layout."""


def is_inspected(value: object) -> bool:
    """True if a value of JSON has the form of the inspector's."""
    return isinstance(value, dict) and isinstance(value.get("Layers"), list)


def inspected_layers(inspected: Mapping[str, Any]) -> EngineLayers:
    """The layers and edges of an engine; none of an empty mapping.

    Raises:
        ArtefactError: a layer or a tensor is not what the inspector writes; the sentence names it, and has no path.
    """
    layers = inspected.get("Layers", ())
    if not isinstance(layers, list | tuple):
        raise ArtefactError(f"its Layers are {shown(layers)}, expected a list")
    read = tuple(_layer(one, number) for number, one in enumerate(layers, start=1))
    return EngineLayers(layers=read, edges=_edges(inspected))


def _layer(one: Any, number: int) -> EngineLayer:
    if isinstance(one, str):
        return EngineLayer(name=one, nodes=tuple(_nodes({"Name": one})))
    if not isinstance(one, Mapping) or not isinstance(one.get("Name", ""), str):
        raise ArtefactError(f"layer {number} is {shown(one)}, expected an object with a name")
    name = one.get("Name", "")
    reads, writes = (_tensors(one, key, name) for key in ("Inputs", "Outputs"))
    tactic = str(one.get("TacticName", ""))
    return EngineLayer(
        name=name,
        kind=str(one.get("LayerType", "")),
        parameters=str(one.get("ParameterType", "")),
        nodes=tuple(dict.fromkeys(_nodes(one))),
        reads=tuple(map(_words, reads)),
        writes=tuple(map(_words, writes)),
        tactic=tactic,
        number_format=compute_format(number_format(reads[0]), tactic) if reads else "",
    )


def _tensors(layer: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    found = layer.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise ArtefactError(f"layer {shown(name)} has {key} that are {shown(found)}, expected a list of objects")
    return found


def _words(tensor: Mapping[str, Any]) -> str:
    return next((str(tensor[key]) for key in _WORDS_KEYS if tensor.get(key)), "")


def _nodes(layer: Mapping[str, Any]) -> Iterator[str]:
    """The ONNX nodes that a layer stands for: from its metadata, and from its own name."""
    yield from re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(layer.get("Metadata", "")))
    name = str(layer.get("Name", ""))
    for part in () if name.startswith(_COPY) else re.split(r" \+ | \|\| ", name):
        yield re.sub(r"^PWN\((.*)\)$", r"\1", part.strip())


def _edges(inspected: Mapping[str, Any]) -> dict[str, str]:
    tensors = inspected.get("I/O Tensors")
    if tensors is not None:
        if not isinstance(tensors, list) or not all(isinstance(one, Mapping) and "Name" in one for one in tensors):
            raise ArtefactError(f"its I/O Tensors are {shown(tensors)}, expected a list of objects with names")
        return {str(tensor["Name"]): _layout(tensor) for tensor in tensors}
    bindings = inspected.get("Bindings", ())
    names = {str(name) for name in bindings} if isinstance(bindings, list | tuple) else set[str]()
    layers = [layer for layer in inspected.get("Layers", ()) if isinstance(layer, Mapping)]
    edges = [edge for layer in layers for key in ("Inputs", "Outputs") for edge in layer.get(key) or ()]
    return {str(edge["Name"]): str(edge.get("Format/Datatype", "")) for edge in edges if str(edge.get("Name")) in names}


def _layout(tensor: Mapping[str, Any]) -> str:
    profiles = tensor.get("ProfileInfo") or [{}]
    first = profiles[0] if isinstance(profiles, list) and isinstance(profiles[0], Mapping) else {}
    return str(first.get("Format") or tensor.get("DataType", ""))
