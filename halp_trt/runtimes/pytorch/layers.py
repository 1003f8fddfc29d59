"""Operators that make an element out of many: products, norms, softmax, pools and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from halp_trt.errors import BuildError
from halp_trt.runtimes.pytorch.call import Call, Operator

__all__ = ["LAYERS"]


def _padding(call: Call, value: float = 0.0) -> tuple[Any, list[int]]:
    """The input and the symmetric padding that is left to the operator; uneven padding is done beforehand."""
    if call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise BuildError(f"node {call.node} pads by itself ({call.attributes['auto_pad']}); export with fixed padding")
    rank = len(call.shapes[0]) - 2
    pads = call.get("pads", [0] * 2 * rank)
    begins, ends = pads[:rank], pads[rank:]
    if begins == ends:
        return call.x, list(begins)
    widths = [side for pair in zip(reversed(begins), reversed(ends), strict=True) for side in pair]
    return functional.pad(call.x, widths, value=value), [0] * rank


def _conv(call: Call) -> Any:
    x, padding = _padding(call)
    rank = len(padding)
    function = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    return function(
        x,
        call.inputs[1],
        call.optional(2),
        stride=call.get("strides", [1] * rank),
        padding=padding,
        dilation=call.get("dilations", [1] * rank),
        groups=call.get("group", 1),
    )


def _conv_transpose(call: Call) -> Any:
    rank = len(call.shapes[0]) - 2
    pads = call.get("pads", [0] * 2 * rank)
    if pads[:rank] != pads[rank:] or call.get("auto_pad", "NOTSET") != "NOTSET":
        raise BuildError(f"node {call.node} crops its sides unevenly, which PyTorch cannot; choose another runtime")
    function = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[rank]
    return function(
        call.x,
        call.inputs[1],
        call.optional(2),
        stride=call.get("strides", [1] * rank),
        padding=pads[:rank],
        output_padding=call.get("output_padding", [0] * rank),
        groups=call.get("group", 1),
        dilation=call.get("dilations", [1] * rank),
    )


def _gemm(call: Call) -> Any:
    """A linear layer where it is one, else the general product."""
    x = call.x.t() if call.get("transA", 0) else call.x
    if (call.get("alpha", 1.0), call.get("beta", 1.0)) == (1.0, 1.0) and call.get("transB", 0):
        return functional.linear(x, call.inputs[1], call.optional(2))
    other = call.inputs[1].t() if call.get("transB", 0) else call.inputs[1]
    product = torch.matmul(x, other) * call.get("alpha", 1.0)
    return product + call.inputs[2] * call.get("beta", 1.0) if call.has(2) else product


def _batch_norm(call: Call) -> Any:
    scale, bias, mean, variance = call.inputs[1:5]
    return functional.batch_norm(call.x, mean, variance, scale, bias, eps=call.get("epsilon", 1e-5))


def _layer_norm(call: Call) -> Any:
    axis = call.get("axis", -1)
    return functional.layer_norm(
        call.x, call.shapes[0][axis:], call.inputs[1], call.optional(2), eps=call.get("epsilon", 1e-5)
    )


def _max_pool(call: Call) -> Any:
    x, padding = _padding(call, -math.inf)
    kernel = call.attributes["kernel_shape"]
    rank = len(kernel)
    function = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
    return function(
        x,
        kernel,
        stride=call.get("strides", [1] * rank),
        padding=padding,
        dilation=call.get("dilations", [1] * rank),
        ceil_mode=bool(call.get("ceil_mode", 0)),
    )


def _average_pool(call: Call) -> Any:
    kernel = call.attributes["kernel_shape"]
    rank, counts_padding = len(kernel), bool(call.get("count_include_pad", 0))
    pads = call.get("pads", [0] * 2 * rank)
    if pads[:rank] != pads[rank:] and not counts_padding:
        raise BuildError(f"node {call.node} averages over uneven padding, which PyTorch cannot; choose another runtime")
    x, padding = _padding(call)
    function: Any = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
    return function(
        x,
        kernel,
        stride=call.get("strides", [1] * rank),
        padding=padding,
        ceil_mode=bool(call.get("ceil_mode", 0)),
        count_include_pad=counts_padding,
    )


def _global_average(call: Call) -> Any:
    function: Any = {3: functional.adaptive_avg_pool1d, 4: functional.adaptive_avg_pool2d}.get(len(call.shapes[0]))
    if function is None:
        return call.x.mean(list(range(2, len(call.shapes[0]))), keepdim=True)
    return function(call.x, 1)


def _reduction(function: Callable[[Any, list[int], bool], Any]) -> Operator:
    def run(call: Call) -> Any:
        axes = call.ints(1, "axes")
        if not axes and call.get("noop_with_empty_axes", 0):
            return call.x
        return function(call.x, axes or list(range(len(call.shapes[0]))), bool(call.get("keepdims", 1)))

    return run


LAYERS: Mapping[str, Operator] = MappingProxyType(
    {
        "MatMul": lambda call: torch.matmul(call.x, call.inputs[1]),
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "Gemm": _gemm,
        "BatchNormalization": _batch_norm,
        "LayerNormalization": _layer_norm,
        "InstanceNormalization": lambda call: functional.instance_norm(
            call.x, weight=call.inputs[1], bias=call.inputs[2], eps=call.get("epsilon", 1e-5)
        ),
        "Softmax": lambda call: functional.softmax(call.x, call.get("axis", -1)),
        "LogSoftmax": lambda call: functional.log_softmax(call.x, call.get("axis", -1)),
        "MaxPool": _max_pool,
        "AveragePool": _average_pool,
        "GlobalAveragePool": _global_average,
        "GlobalMaxPool": lambda call: call.x.amax(list(range(2, len(call.shapes[0]))), keepdim=True),
        "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
        "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
        "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
        "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
        "ReduceL2": _reduction(lambda x, axes, keep: x.norm(dim=axes, keepdim=keep)),
    }
)
"""The operators of layers by their ONNX names."""
