"""The engines of the gate's experiment: a network, and the same with further convolutions in front of it."""

from __future__ import annotations

import multiprocessing
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

Size = tuple[int, int]
NARROW, WIDE = (1, 4, 8, 16, 24, 32), (1, 2, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128)
SIZES = tuple((width, 1) for width in NARROW) + tuple((width, 3) for width in WIDE)
"""Widths and kernel sizes of the further convolutions among which calibration chooses."""
NUM_GROUPS, NUM_PROCESSES = 6, 12
"""Groups in which sizes are tried, and fresh processes over which a true ratio is the mean: they differ by 1 %."""


def network(source: str) -> bytes:
    """An engine of ONNX Runtime of a dense network with random weights."""
    loaded = load_model(source, weights=None, input_shape=None, num_classes=None, seed=0)
    model = export(loaded.module, loaded.example)
    graph = trace(loaded.module, loaded.example, source=source, model=model)
    return bytes(rewrite(model, PruningPlan.dense(graph)).SerializeToString())


def with_layers(model: bytes, width: int, kernel: int = 3) -> bytes:
    """A model with two more convolutions in front: to ``width`` channels and back, at the input's size."""
    changed = onnx.load_from_string(model)
    graph = changed.graph
    weights = {weight.name for weight in graph.initializer}
    name = next(value for value in graph.input if value.name not in weights).name
    channels = next(v for v in graph.input if v.name == name).type.tensor_type.shape.dim[1].dim_value
    for node in graph.node:
        node.input[:] = ["extra_out" if one == name else one for one in node.input]
    random = np.random.default_rng(0)
    for key, shape in {"extra_w0": (width, channels), "extra_w1": (channels, width)}.items():
        values = random.normal(size=(*shape, kernel, kernel), scale=0.1).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, key))
    first = helper.make_node("Conv", [name, "extra_w0"], ["extra_mid"], "extra_0", pads=[kernel // 2] * 4)
    second = helper.make_node("Conv", ["extra_mid", "extra_w1"], ["extra_out"], "extra_1", pads=[kernel // 2] * 4)
    for node in (second, first):
        graph.node.insert(0, node)
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return bytes(changed.SerializeToString())


def calibrated(model: bytes, wanted: Sequence[float], *, seconds: float, sizes: Sequence[Size] = SIZES) -> Any:
    """For each wanted ratio the model with further layers that comes nearest, with its measured ratio.

    Every comparison has a fresh process. First the sizes are compared few at a time, since many engines in turns find
    the caches cold; of those that come nearest, comparisons alone then say the true ratios: their mean, with the
    standard error over processes.

    Returns:
        Rows with ``wanted``, ``width``, ``kernel``, ``ratio``, ``error`` and ``model``.
    """
    models = {size: with_layers(model, *size) for size in sizes}
    rounds = [list(sizes[start::NUM_GROUPS]) for start in range(NUM_GROUPS)] * 2
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:

        def compared(groups: Sequence[Sequence[Size]], seconds: float) -> dict[Size, list[float]]:
            tasks = [(model, {size: models[size] for size in group}, seconds / len(groups)) for group in groups]
            logs: dict[Size, list[float]] = {}
            for ratios in pool.starmap(_ratios, tasks, chunksize=1):
                for size, ratio in ratios.items():
                    logs.setdefault(size, []).append(float(np.log(ratio)))
            return logs

        coarse = {size: np.exp(np.mean(logs)) for size, logs in compared(rounds, seconds / 2).items()}
        chosen = {one: min(coarse, key=lambda size: abs(coarse[size] - one)) for one in wanted}
        fine = compared([sorted(set(chosen.values()))] * NUM_PROCESSES, seconds)
    rows = []
    for one, size in chosen.items():
        ratio, error = float(np.exp(np.mean(fine[size]))), float(np.std(fine[size], ddof=1) / NUM_PROCESSES**0.5)
        width, kernel = size
        rows.append({
            "wanted": one, "width": width, "kernel": kernel, "ratio": ratio, "error": error, "model": models[size]
        })  # fmt: skip
    return rows


def _ratios(model: bytes, others: Mapping[Size, bytes], seconds: float) -> dict[Size, float]:
    """Each engine's latency over the model's, from one comparison in turns."""
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", 1)
    names = {f"{width}, {kernel} x {kernel}": (width, kernel) for width, kernel in others}
    models = {"base": model, **{name: others[size] for name, size in names.items()}}
    sessions = {name: runtime.load(data, target) for name, data in models.items()}
    found = compare(sessions, random_inputs(sessions["base"].input_shapes), until=Certainty.lasting(seconds))
    return {size: found.ratio_of(name) for name, size in names.items()}
