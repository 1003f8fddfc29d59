"""Folds batch norms into the convolution before them, and constant sub-graphs, so no runtime has to compute them."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from halp_trt.errors import UnsupportedLayerError

_VIEWS = {"Transpose", "Reshape", "Unsqueeze", "Squeeze", "Flatten"}


def fold_batch_norms(graph: gs.Graph) -> None:
    """Folds every batch norm whose input is a convolution's (or linear layer's) only use, in float64.

    ``W' = W * gamma / sqrt(var + eps)``, ``b' = (b - mean) * gamma / sqrt(var + eps) + beta`` along the output axis.

    Raises:
        UnsupportedLayerError: a bias or a batch norm has another width than the layer.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    for norm in [n for n in graph.nodes if n.op == "BatchNormalization"]:
        data = norm.inputs[0]
        producer = data.inputs[0] if data.inputs else None
        if producer is None or producer.op not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        parts = [*producer.inputs[1:], *norm.inputs[1:5]]
        if len(data.outputs) != 1 or data.name in outputs or not all(isinstance(t, gs.Constant) for t in parts):
            continue
        if producer.op == "Gemm" and (float(producer.attrs.get("alpha", 1)), float(producer.attrs.get("beta", 1))) != (
            1,
            1,
        ):
            continue
        _check_widths(producer, norm)
        _fold(producer, norm)
    graph.cleanup()


def _check_widths(producer: gs.Node, norm: gs.Node) -> None:
    weight = producer.inputs[1].values.shape
    if producer.op == "ConvTranspose":
        width = weight[1] * int(producer.attrs.get("group", 1))
    else:
        width = weight[1] if producer.op == "Gemm" and not int(producer.attrs.get("transB", 0)) else weight[0]
    bias = producer.inputs[2].values.shape if len(producer.inputs) > 2 else (width,)
    fits = bias == (width,) or (producer.op == "Gemm" and bias[-1:] in ((), (1,), (width,)))
    for name, found, right in (
        (producer.name, bias, fits),
        *((norm.name, t.values.shape, t.values.shape == (width,)) for t in norm.inputs[1:5]),
    ):
        if not right:
            raise UnsupportedLayerError(
                f"node {name!r} adds numbers of shape {found} to {width} channels of {producer.name!r}, expected "
                f"({width},); export the network again"
            )


def _fold(producer: gs.Node, norm: gs.Node) -> None:
    gamma, beta, mean, variance = (t.values.astype(np.float64) for t in norm.inputs[1:5])
    scale = gamma / np.sqrt(variance + float(norm.attrs.get("epsilon", 1e-5)))
    weight = producer.inputs[1].values
    bias = producer.inputs[2].values.astype(np.float64) if len(producer.inputs) > 2 else np.zeros_like(mean)
    if producer.op == "ConvTranspose":
        groups = int(producer.attrs.get("group", 1))
        per_group = scale.reshape(groups, 1, -1).repeat(weight.shape[0] // groups, axis=1)
        shaped = per_group.reshape(weight.shape[0], weight.shape[1], *[1] * (weight.ndim - 2))
    elif producer.op == "Gemm" and not int(producer.attrs.get("transB", 0)):
        shaped = scale[None, :]
    else:
        shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    name = (
        producer.inputs[1].name
        if len(producer.inputs[1].outputs) == 1
        else f"{producer.inputs[1].name}@{producer.name}"
    )
    producer.inputs[1] = gs.Constant(name, np.ascontiguousarray(weight * shaped, dtype=weight.dtype))
    folded = gs.Constant(f"{producer.name}.folded_bias", ((bias - mean) * scale + beta).astype(weight.dtype))
    if len(producer.inputs) > 2:
        producer.inputs[2] = folded
    else:
        producer.inputs.append(folded)
    output = norm.outputs[0]
    norm.outputs.clear()
    producer.outputs[0] = output


def fold_constants(graph: gs.Graph) -> None:
    """Replaces views and transpositions of constants by constants."""
    for node in list(graph.nodes):
        if node.op not in _VIEWS or not all(isinstance(t, gs.Constant) or t.is_empty() for t in node.inputs):
            continue
        values, output = node.inputs[0].values, node.outputs[0]
        if node.op == "Transpose":
            values = np.transpose(values, node.attrs.get("perm"))
        elif node.op == "Reshape":
            sizes = [int(d) for d in node.inputs[1].values]
            values = values.reshape([values.shape[i] if d == 0 else d for i, d in enumerate(sizes)])
        else:
            continue
        folded = gs.Constant(output.name, np.ascontiguousarray(values))
        for consumer in list(output.outputs):
            consumer.inputs = [folded if t is output else t for t in consumer.inputs]
        node.outputs.clear()
    graph.cleanup()
