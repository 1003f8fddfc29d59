"""Detections in a graph are the host's, whatever the raw numbers are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from halp_trt.errors import GraphMismatchError
from halp_trt.graphs.suppression import DETECTIONS, suppressing_tail, with_tail
from halp_trt.tasks.detection.objects import Detections
from halp_trt.tasks.detection.task import LEAST_SCORE, MOST_BEFORE, MOST_FOUND, MOST_OVERLAP, found_in

BOUNDS = {
    "least_score": LEAST_SCORE,
    "most_overlap": MOST_OVERLAP,
    "most_before": MOST_BEFORE,
    "most_found": MOST_FOUND,
}


def passing(*shapes: tuple[str, list[int]], opset: int = 20) -> onnx.ModelProto:
    """A graph that gives its inputs back."""
    inputs = [helper.make_tensor_value_info(f"{name}_in", TensorProto.FLOAT, shape) for name, shape in shapes]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    nodes = [helper.make_node("Identity", [f"{name}_in"], [name], name) for name, _ in shapes]
    return helper.make_model(
        helper.make_graph(nodes, "passing", inputs, outputs),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )


def run(boxes: np.ndarray, scores: np.ndarray, opset: int = 20) -> list[Detections]:
    """The detections of a graph of which raw outputs are boxes and scores already."""
    shapes = (("boxes", list(boxes.shape)), ("scores", list(scores.shape)))
    model = with_tail(passing(*shapes, opset=opset), suppressing_tail(passing(*shapes), **BOUNDS))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(DETECTIONS)
    return unpacked(session.run(None, {"boxes_in": boxes, "scores_in": scores}))


def unpacked(outputs: list[Any]) -> list[Detections]:
    """The detections of each picture; what fills up behind them is checked."""
    counts, boxes, scores, labels = outputs
    found = []
    for picture, count in enumerate(counts):
        assert not boxes[picture, count:].any()
        assert not scores[picture, count:].any()
        assert (labels[picture, count:] == -1).all()
        rows = (boxes[picture, :count], scores[picture, :count], labels[picture, :count])
        found.append(Detections(boxes=rows[0].astype(float), scores=rows[1].astype(float), labels=rows[2]))
    return found


def same(found: list[Detections], boxes: np.ndarray, scores: np.ndarray) -> None:
    for one, *raw in zip(found, boxes, scores, strict=True):
        wanted = found_in(*raw)
        assert one.labels.tolist() == wanted.labels.tolist()
        np.testing.assert_array_equal(one.scores, wanted.scores)
        np.testing.assert_array_equal(one.boxes, wanted.boxes)


@pytest.mark.parametrize("opset", [20, 17])
@pytest.mark.parametrize(("num", "anchors", "classes"), [(1, 1, 1), (2, 30, 1), (3, 500, 4), (1, 900, 20)])
def test_a_graph_finds_what_the_host_finds(num: int, anchors: int, classes: int, opset: int) -> None:
    random = np.random.default_rng(anchors)
    corners = random.random((num, anchors, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=2)
    scores = random.random((num, anchors, classes)).astype(np.float32) ** 3
    same(run(boxes, scores, opset), boxes, scores)


def test_equal_scores_empty_and_reversed_boxes_are_as_on_the_host() -> None:
    random = np.random.default_rng(0)
    boxes = random.random((1, 40, 4)).astype(np.float32)  # half of them end before they begin
    boxes[0, :5] = boxes[0, 5:10]
    boxes[0, 10:14, 2:] = boxes[0, 10:14, :2]
    scores = random.choice(np.asarray([0.005, 0.01, 0.5, 1.0], np.float32), (1, 40, 3))
    same(run(boxes, scores), boxes, scores)


def test_nothing_is_found_in_nothing() -> None:
    boxes, scores = np.ones((2, 6, 4), np.float32), np.zeros((2, 6, 2), np.float32)
    assert [len(one.scores) for one in run(boxes, scores)] == [0, 0]


def test_outputs_of_another_network_are_refused() -> None:
    tail = suppressing_tail(passing(("boxes", [1, 6, 4]), ("scores", [1, 6, 2])), **BOUNDS)
    with pytest.raises(GraphMismatchError, match=r"outputs are .* and detections are read from \[\[1, 6, 4\]"):
        with_tail(passing(("boxes", [1, 5, 4]), ("scores", [1, 5, 2])), tail)
