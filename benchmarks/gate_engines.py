"""The engines of the gate's experiment: a network, and the same with further convolutions in front of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.runtimes import get_runtime
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import PruningPlan
from halp_trt.workflows.compare import Certainty, compare

WIDTHS = (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64)
"""Widths of the further convolutions among which calibration chooses."""


def network(source: str) -> bytes:
    """An engine of ONNX Runtime of a dense network with random weights."""
    loaded = load_model(source, weights=None, input_shape=None, num_classes=None, seed=0)
    model = export(loaded.module, loaded.example)
    graph = trace(loaded.module, loaded.example, source=source, model=model)
    return bytes(rewrite(model, PruningPlan.dense(graph)).SerializeToString())


def with_layers(model: bytes, width: int) -> bytes:
    """A model with two more convolutions in front: to ``width`` channels and back, at the input's size."""
    changed = onnx.load_from_string(model)
    graph = changed.graph
    weights = {weight.name for weight in graph.initializer}
    name = next(value for value in graph.input if value.name not in weights).name
    channels = next(v for v in graph.input if v.name == name).type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        node.input[:] = ["extra_out" if one == name else one for one in node.input]
    random = np.random.default_rng(0)
    for key, shape in {"extra_w0": (width, channels, 3, 3), "extra_w1": (channels, width, 3, 3)}.items():
        values = random.normal(size=shape, scale=0.1).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, key))
    first = helper.make_node("Conv", [name, "extra_w0"], ["extra_mid"], "extra_0", pads=[1] * 4)
    second = helper.make_node("Conv", ["extra_mid", "extra_w1"], ["extra_out"], "extra_1", pads=[1] * 4)
    for node in (second, first):
        graph.node.insert(0, node)
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return bytes(changed.SerializeToString())


def calibrated(model: bytes, wanted: Sequence[float], *, seconds: float, widths: Sequence[int] = WIDTHS) -> Any:
    """For each wanted ratio the model with further layers that comes nearest, with its measured ratio.

    A coarse comparison of all widths chooses; a second, longer one of the chosen alone says the true ratios.

    Returns:
        Rows with ``wanted``, ``width``, ``ratio``, ``error`` and ``model``.
    """
    models = {str(width): with_layers(model, width) for width in widths}
    coarse = _ratios(model, models, seconds / 2)
    chosen = {one: min(coarse, key=lambda name: abs(coarse[name][0] - one)) for one in wanted}
    fine = _ratios(model, {name: models[name] for name in set(chosen.values())}, seconds)
    return [
        {"wanted": one, "width": int(name), "ratio": fine[name][0], "error": fine[name][1], "model": models[name]}
        for one, name in chosen.items()
    ]


def _ratios(model: bytes, others: Mapping[str, bytes], seconds: float) -> dict[str, tuple[float, float]]:
    """Each engine's latency over the model's, with its standard error, from one comparison in turns."""
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", 1)
    sessions = {name: runtime.load(data, target) for name, data in {"base": model, **others}.items()}
    found = compare(sessions, random_inputs(sessions["base"].input_shapes), until=Certainty.lasting(seconds))
    return {name: (found.ratio_of(name), found.error_of(name)) for name in others}
