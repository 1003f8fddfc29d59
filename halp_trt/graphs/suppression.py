"""Detections at the end of a graph: decoded boxes, suppressed by ONNX's ``NonMaxSuppression``.

A detector's graph ends at raw outputs. A :class:`Tail` continues it for those who want one file: no plugin, and outputs
of fixed shapes, filled up where a picture has fewer detections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser

from halp_trt.errors import GraphMismatchError
from halp_trt.graphs.opset import convert_opset

__all__ = ["DETECTIONS", "Tail", "suppressing_tail", "with_tail"]

DETECTIONS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
"""The outputs: their number in each picture ``[N]``, boxes ``[N, M, 4]``, scores ``[N, M]`` and classes ``[N, M]``, the
best first. Behind the last detection boxes and scores are 0, and classes -1."""

_NODES = """
<ir_version: 8, opset_import: ["": 18]>
detections (float[{num}, {anchors}, 4] boxes, float[{num}, {anchors}, {classes}] scores) =>
    (int64[{num}] num_detections, float[{num}, {most}, 4] detection_boxes, float[{num}, {most}] detection_scores,
     int64[{num}, {most}] detection_classes)
{{
    by_class = Transpose <perm = [0, 2, 1]> (scores)
    best, places = TopK <axis = 2, largest = 1, sorted = 1> (by_class, before)
    rows = Add (places, firsts)
    flat_rows = Reshape (rows, minus_one)
    flat_boxes = Reshape (boxes, four_wide)
    own = Gather <axis = 0> (flat_boxes, flat_rows)
    low, high = Split <axis = 1> (own, two_and_two)
    upright_high = Max (low, high)
    upright = Concat <axis = 1> (low, upright_high)
    group_boxes = Reshape (upright, shape_of_boxes)
    group_scores = Reshape (best, shape_of_scores)
    kept = NonMaxSuppression (group_boxes, group_scores, most_of_class, most_overlap, below_least)
    groups = Gather <axis = 1> (kept, first)
    inside = Gather <axis = 1> (kept, third)
    starts = Mul (groups, before)
    flat_kept = Add (starts, inside)
    flat_scores = Reshape (best, minus_one)
    kept_scores = Gather <axis = 0> (flat_scores, flat_kept)
    unfilled = Expand (minus_one_score, total)
    marked = ScatterElements <axis = 0> (unfilled, flat_kept, kept_scores)
    by_picture = Reshape (marked, shape_of_pictures)
    top, top_places = TopK <axis = 1, largest = 1, sorted = 1> (by_picture, most)
    is_found = Greater (top, no_score)
    detection_scores = Where (is_found, top, no_score)
    classes = Div (top_places, before)
    detection_classes = Where (is_found, classes, minus_one)
    top_rows = Add (top_places, picture_firsts)
    found_boxes = Gather <axis = 0> (own, top_rows)
    is_box = Unsqueeze (is_found, last)
    detection_boxes = Where (is_box, found_boxes, no_score)
    as_numbers = Cast <to = 7> (is_found)
    num_detections = ReduceSum <keepdims = 0> (as_numbers, second)
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tail:
    """A graph that continues another one.

    Attributes:
        model: the graph; its inputs are the other one's outputs, in their order.
        words: one line on what it computes.
    """

    model: onnx.ModelProto
    words: str


def suppressing_tail(
    reading: onnx.ModelProto, *, least_score: float, most_overlap: float, most_before: int, most_found: int
) -> Tail:
    """The tail that reads raw outputs and suppresses boxes, within each class and picture.

    It gives what greedy suppression on the host does: of each class the best boxes, equal ones in their order.

    Args:
        reading: the decoding, from raw outputs to boxes ``[N, A, 4]`` and scores ``[N, A, classes]``.
        least_score: least score of a detection.
        most_overlap: largest intersection over union of two boxes of a class that both stay.
        most_before: most boxes of a class that are held against each other, the best ones.
        most_found: most detections in a picture.
    """
    num, anchors, classes = (size.dim_value for size in reading.graph.output[1].type.tensor_type.shape.dim)
    before = min(most_before, anchors)
    most = min(most_found, classes * before)
    model = parser.parse_model(_NODES.format(num=num, anchors=anchors, classes=classes, most=most))
    constants: dict[str, npt.NDArray[Any]] = {
        **_shapes(num, anchors, classes, before),
        "before": np.asarray([before]),
        "most": np.asarray([most]),
        "most_of_class": np.asarray([most_found]),
        "most_overlap": np.asarray([most_overlap], np.float32),
        "below_least": np.nextafter(np.asarray([least_score], np.float32), np.float32(0)),  # the operator's is open
        "no_score": np.asarray(0, np.float32),
        "minus_one_score": np.asarray([-1], np.float32),
        "minus_one": np.asarray([-1]),
        "first": np.asarray(0),
        "second": np.asarray([1]),
        "third": np.asarray(2),
        "last": np.asarray([2]),
        "two_and_two": np.asarray([2, 2]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    words = (
        f"ONNX NonMaxSuppression within each class, scores from {least_score:g}, overlaps up to {most_overlap:g}, the "
        f"best {before} of a class, the best {most} of a picture"
    )
    joined = _joined(reading, model, "suppression/")
    return Tail(model=onnx.shape_inference.infer_shapes(joined, data_prop=True), words=words)


def _shapes(num: int, anchors: int, classes: int, before: int) -> dict[str, npt.NDArray[np.int64]]:
    """The shapes between the nodes, and the rows at which classes and pictures begin in flat lists."""
    return {
        "four_wide": np.asarray([num * anchors, 4]),
        "shape_of_boxes": np.asarray([num * classes, before, 4]),
        "shape_of_scores": np.asarray([num * classes, 1, before]),
        "shape_of_pictures": np.asarray([num, classes * before]),
        "total": np.asarray([num * classes * before]),
        "firsts": (np.arange(num) * anchors).reshape(num, 1, 1),
        "picture_firsts": (np.arange(num) * classes * before).reshape(num, 1),
    }


def with_tail(model: onnx.ModelProto, tail: Tail) -> onnx.ModelProto:
    """A network continued by a tail, in the network's opset.

    Raises:
        GraphMismatchError: they have not the same number of outputs and inputs, or of other shapes.
        UnsupportedLayerError: an operator of the tail has no form in the network's opset.
    """
    given, wanted = model.graph.output, tail.model.graph.input
    shapes = [[_shape(value) for value in values] for values in (given, wanted)]
    if shapes[0] != shapes[1]:
        raise GraphMismatchError(f"the network's outputs are {shapes[0]}, and detections are read from {shapes[1]}")
    opset, own = _opset(model), tail.model
    return _joined(model, own if _opset(own) == opset else convert_opset(own, opset), "detections/")


def _joined(first: onnx.ModelProto, second: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Two graphs one after the other; names of the second, but for its outputs, get a prefix."""
    joined = onnx.ModelProto()
    joined.CopyFrom(first)
    ends = [value.name for value in first.graph.output]
    renamed: dict[str, str] = {value.name: end for value, end in zip(second.graph.input, ends, strict=True)}
    renamed |= {value.name: value.name for value in second.graph.output}
    for node in second.graph.node:
        added = joined.graph.node.add()
        added.CopyFrom(node)
        added.name = f"{prefix}{node.name or node.output[0]}"
        added.input[:] = [_prefixed(name, renamed, prefix) for name in node.input]
        added.output[:] = [_prefixed(name, renamed, prefix) for name in node.output]
    for tensor in second.graph.initializer:
        added_tensor = joined.graph.initializer.add()
        added_tensor.CopyFrom(tensor)
        added_tensor.name = _prefixed(tensor.name, renamed, prefix)
    del joined.graph.output[:]
    joined.graph.output.extend(second.graph.output)
    known = {entry.domain for entry in joined.opset_import}
    joined.opset_import.extend(entry for entry in second.opset_import if entry.domain not in known)
    return joined


def _prefixed(name: str, renamed: Mapping[str, str], prefix: str) -> str:
    return renamed.get(name, f"{prefix}{name}") if name else name


def _opset(model: onnx.ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _shape(value: onnx.ValueInfoProto) -> Sequence[int]:
    return [size.dim_value for size in value.type.tensor_type.shape.dim]
