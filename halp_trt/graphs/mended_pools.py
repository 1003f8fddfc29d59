"""Mends the pools of an export where PyTorch's exporter, or ONNX, computes others than PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir

from halp_trt.errors import ModelError

__all__ = ["mend_divisors", "mend_last_windows"]

_DIVISOR = 6
"""Place of ``divisor_override`` among the arguments of ``avg_pool2d`` and ``avg_pool3d``."""
_DIVIDED = {"aten::avg_pool2d": 2, "aten::avg_pool3d": 3}
"""Poolings that have a divisor, and how many of their axes are pooled."""


def mend_divisors(model: onnx_ir.Model, nodes: Sequence[Any]) -> None:
    """Average pools with ``divisor_override``, which the exporter drops, divide by it, in place.

    A pool then averages whole windows, padding counted, and is multiplied by ``window / divisor``. Windows that
    ``ceil_mode`` lets run over the edge become padding.

    Args:
        model: the export, its tensors still named like the nodes of the program.
        nodes: nodes of the program (``torch.fx``) that was exported.

    Raises:
        ModelError: the pool is not found in the export.
    """
    values = {value.name: value for node in model.graph for value in node.outputs}
    for node, rank in _divided_pools(nodes):
        value = values.get(node.name)
        pool = value.producer() if value is not None else None
        if pool is not None and pool.op_type == "Squeeze" and pool.inputs[0] is not None:
            pool = pool.inputs[0].producer()  # a picture without a batch axis
        if pool is None or pool.op_type != "AveragePool":
            raise ModelError(f"PyTorch's ONNX exporter drops divisor_override of {node.name!r}; leave it out")
        if pool.attributes["ceil_mode"].as_int():
            _pad_windows(pool, _sizes(node.args[0], rank), _sizes(node, rank))
        pool.attributes["count_include_pad"] = onnx_ir.AttrInt64("count_include_pad", 1)
        window = math.prod(pool.attributes["kernel_shape"].as_ints())
        _multiply(pool, window / _argument(node, _DIVISOR, "divisor_override"))


def mend_last_windows(model: onnx_ir.Model) -> None:
    """Drops windows of ``ceil_mode`` that begin in the padding, in place: PyTorch does, and ONNX does not."""
    for node in model.graph:
        if node.op_type not in ("AveragePool", "MaxPool") or not _ints(node, "ceil_mode", [0])[0]:
            continue
        sizes, pooled = (_spatial(values[0]) for values in (node.inputs, node.outputs))
        if sizes is None or pooled is None or len(sizes) != len(pooled):
            continue
        if any(found < size for found, size in zip(pooled, _onnx_sizes(node, sizes), strict=True)):
            _pad_windows(node, sizes, pooled)


def _divided_pools(nodes: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    for node in nodes:
        rank = _DIVIDED.get(node.target._schema.name) if hasattr(node.target, "_schema") else None
        if rank is not None and _argument(node, _DIVISOR, "divisor_override") is not None:
            yield node, rank


def _argument(node: Any, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _sizes(node: Any, rank: int) -> list[int]:
    return [int(size) for size in node.meta["val"].shape[-rank:]]


def _spatial(value: onnx_ir.Value | None) -> list[int] | None:
    """Sizes of a tensor behind batch and channels; None where they are unknown."""
    sizes = [] if value is None or value.shape is None else [size for size in value.shape if isinstance(size, int)]
    return sizes[2:] if value is not None and value.shape is not None and len(sizes) == len(value.shape) else None


def _ints(node: onnx_ir.Node, name: str, default: Sequence[int]) -> list[int]:
    attribute = node.attributes.get(name)
    if attribute is None:
        return list(default)
    return [attribute.as_int()] if attribute.type == onnx_ir.AttributeType.INT else list(attribute.as_ints())


def _windows(node: onnx_ir.Node, rank: int) -> tuple[list[int], list[int], list[int]]:
    """Extent, stride and padding of a pool's windows; the padding begins with that before each axis."""
    kernel, dilations = _ints(node, "kernel_shape", []), _ints(node, "dilations", [1] * rank)
    extents = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    return extents, _ints(node, "strides", [1] * rank), _ints(node, "pads", [0] * 2 * rank)


def _onnx_sizes(node: onnx_ir.Node, sizes: Sequence[int]) -> list[int]:
    rank = len(sizes)
    extents, strides, pads = _windows(node, rank)
    return [math.ceil((sizes[i] + pads[i] + pads[rank + i] - extents[i]) / strides[i]) + 1 for i in range(rank)]


def _pad_windows(node: onnx_ir.Node, sizes: Sequence[int], pooled: Sequence[int]) -> None:
    """Replaces ``ceil_mode`` by as much padding as the last window needs."""
    rank = len(sizes)
    extents, strides, pads = _windows(node, rank)
    for i in range(rank):
        pads[rank + i] = max((pooled[i] - 1) * strides[i] + extents[i] - sizes[i] - pads[i], 0)
    node.attributes["pads"] = onnx_ir.AttrInt64s("pads", pads)
    node.attributes["ceil_mode"] = onnx_ir.AttrInt64("ceil_mode", 0)


def _multiply(pool: onnx_ir.Node, factor: float) -> None:
    """Multiplies a pool's output; the product takes over its name."""
    mean, graph = pool.outputs[0], pool.graph
    assert graph is not None
    name, dtype = str(mean.name), mean.dtype.numpy() if mean.dtype is not None else np.float32
    value = onnx_ir.tensor(np.array(factor, dtype=dtype))
    number = onnx_ir.node("Constant", [], attributes={"value": value}, name=f"node_{name}_factor")
    product = onnx_ir.node("Mul", [mean, number.outputs[0]], name=f"node_{name}_divided")
    product.metadata_props.update(pool.metadata_props)
    number.outputs[0].name, mean.name, product.outputs[0].name = f"{name}_factor", f"{name}_mean", name
    product.outputs[0].shape, product.outputs[0].type = mean.shape, mean.type
    onnx_ir.convenience.replace_all_uses_with(mean, product.outputs[0], replace_graph_outputs=True)
    product.replace_input_with(0, mean)
    graph.insert_after(pool, [number, product])
