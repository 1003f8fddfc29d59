"""Values of a probe's inputs where random numbers would break its layer: indices, boxes, lengths, shapes."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper

from halp_trt.graphs.literal import TENSOR
from halp_trt.specs import LayerSpec

__all__ = ["given_attributes", "given_values", "places", "takes_places"]

Array = npt.NDArray[Any]
_BOXES = {"NonMaxSuppression": 0, "RoiAlign": 1}
"""Position of the boxes among an operator's inputs."""
_LENGTHS = {"GRU": 4, "LSTM": 4, "RNN": 4}
"""Position of the sequences' lengths."""
_SHAPES = {"Expand": 1, "Reshape": 1}
"""Position of the output's shape."""
_PICKED_AXIS = {"Gather": 1, "GatherElements": 1, "ScatterElements": 1}
"""Position of indices along the operator's axis."""
_PICKED_AXES = {"GatherND": 1, "ScatterND": 1}
"""Position of indices along the first axes."""
_DEFAULT_EXTENT = 16
"""Extent of a picture that boxes lie in where nothing tells it, in pixels."""


def given_attributes(spec: LayerSpec) -> dict[str, Any]:
    """The ONNX attributes of a layer that is described as it stands."""
    attributes: dict[str, Any] = {}
    for name, value in spec.attributes:
        if name.endswith(TENSOR):
            tensor = numpy_helper.to_array(onnx.TensorProto.FromString(base64.b64decode(str(value))))
            attributes[name.removesuffix(TENSOR)] = gs.Constant(name, tensor)
        else:
            attributes[name] = list(value) if isinstance(value, tuple) else value
    return attributes


def given_values(spec: LayerSpec, index: int, random: np.random.Generator) -> Array | None:
    """The constant that a layer described as it stands gets as an input; None for one that takes any numbers.

    Whole numbers are constants unless the layer reads nothing else; then it would be computed while it is built.

    Args:
        spec: the layer.
        index: position of the input.
        random: source of random numbers.
    """
    operand = spec.operands[index]
    kind = np.dtype(operand.dtype)
    if operand.values is not None:
        return np.array(operand.values).astype(kind).reshape(operand.shape)
    if _BOXES.get(spec.operator) == index:
        return _boxes(spec, operand.shape, random).astype(kind)
    has_others = any(o.is_data and np.dtype(o.dtype).kind not in "iu" for o in spec.operands if o.values != ())
    if kind.kind not in "iu" or (operand.is_data and not has_others):
        return None
    return np.broadcast_to(_whole_numbers(spec, index), operand.shape).astype(kind)


def takes_places(operator: str, index: int) -> bool:
    """True if an operator reads or writes at the places that an input of it names."""
    return index in (_PICKED_AXIS.get(operator), _PICKED_AXES.get(operator))


def places(spec: LayerSpec, shape: tuple[int, ...], data: tuple[int, ...]) -> Array:
    """Places for an operator that takes them, one after the other, so that all of its data are used.

    Args:
        spec: the layer.
        shape: shape of the input of places.
        data: shape of the operator's data.
    """
    attributes = dict(spec.attributes)
    if spec.operator in _PICKED_AXIS:
        axis = attributes.get("axis", 0)
        return np.arange(math.prod(shape)).reshape(shape) % data[int(axis) if isinstance(axis, int) else 0]
    first = attributes.get("batch_dims", 0)
    start = int(first) if isinstance(first, int) else 0
    limits = np.array(data[start : start + shape[-1]])
    rows = np.arange(math.prod(shape[:-1])).reshape(*shape[:-1], 1)
    return np.asarray(rows % np.maximum(limits, 1))


def _whole_numbers(spec: LayerSpec, index: int) -> Array:
    """Valid indices, lengths or sizes for an input of whole numbers; 0 for an operator that is not known."""
    shape, data = spec.operands[index].shape, spec.operands[0].shape
    if takes_places(spec.operator, index):
        return places(spec, shape, data)
    if _LENGTHS.get(spec.operator) == index:
        return np.full(shape, data[1 if dict(spec.attributes).get("layout") == 1 else 0])
    if _SHAPES.get(spec.operator) == index:
        return np.array(spec.outputs[0].shape)
    if spec.operator == "Tile" and index == 1:
        return np.array([out // size for out, size in zip(spec.outputs[0].shape, data, strict=True)])
    return np.zeros(shape)


def _boxes(spec: LayerSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Boxes (first corner, second corner) within the picture that the layer reads."""
    data = spec.operands[0].shape
    extent = data[-1] if spec.operator == "RoiAlign" else _DEFAULT_EXTENT
    corners = random.random((*shape[:-1], 2)) * extent / 2
    sizes = (0.1 + random.random((*shape[:-1], 2))) * extent / 2
    return np.concatenate([corners, corners + sizes], axis=-1)
