"""The decoding of a detector's raw outputs as a graph: the network's own ``detection.read``, exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
import torch
from torch import nn

from halp_trt.errors import ModelError, brief
from halp_trt.models.export_check import checked_export
from halp_trt.models.reference import named

__all__ = ["reading_graph"]


def reading_graph(module: nn.Module, example: Sequence[torch.Tensor], source: str) -> onnx.ModelProto:
    """The graph from a network's raw outputs, in their order, to boxes ``[N, A, 4]`` and scores ``[N, A, classes]``.

    Args:
        module: the network; its attribute ``detection`` reads the outputs.
        example: its example inputs; the batch becomes the graph's.
        source: name of the network for errors.

    Raises:
        ModelError: the network does not say how its raw outputs are read, or that cannot become a graph.
        RuntimeUnavailableError: ONNX Runtime, which compares the graph with the function, is not installed.
    """
    head = getattr(module, "detection", None)
    if not callable(getattr(head, "read", None)):
        raise ModelError(
            f"{source} does not say how boxes are read from its raw outputs; expected an attribute 'detection' with "
            f"read(outputs) (see halp_trt.models.detection.head.DetectionHead): set --nms host"
        )
    was_training = module.training
    module.eval()
    with torch.no_grad():
        outputs = named(module(*(x.clone() for x in example)))
    module.train(was_training)
    try:
        graph = checked_export(_Reading(head, tuple(outputs)), tuple(tensor.float() for tensor in outputs.values()))
    except ModelError as error:
        raise ModelError(
            f"detection.read of {source} cannot become a graph ({brief(str(error))}); write it with PyTorch's "
            f"operations on tensors alone, or set --nms host"
        ) from error
    _check(graph, source, num=len(example[0]))
    return graph


class _Reading(nn.Module):
    """A module from raw outputs to boxes and scores."""

    def __init__(self, head: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._head, self._names = head, names

    def forward(self, *outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes, scores = self._head.read(dict(zip(self._names, outputs, strict=True)))
        return boxes.float(), scores.float()


def _check(graph: onnx.ModelProto, source: str, *, num: int) -> None:
    """Compares the shapes with those of boxes and scores.

    Raises:
        ModelError: they are others.
    """
    shapes = [[size.dim_value for size in value.type.tensor_type.shape.dim] for value in graph.graph.output]
    boxes, scores = shapes if len(shapes) == 2 else ([], [])
    if not (len(boxes) == len(scores) == 3 and boxes[:2] == scores[:2] and boxes[0] == num and boxes[2] == 4):
        raise ModelError(
            f"detection.read of {source} gives {' and '.join(map(str, shapes))}, expected boxes [{num}, A, 4] and "
            f"scores [{num}, A, classes]; mend it, or set --nms host"
        )
