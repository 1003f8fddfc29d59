"""ONNX operators as the calls of PyTorch that an eager network would make; one function each, no module state."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from halp_trt.errors import BuildError

__all__ = ["OPERATORS", "Call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One ONNX node on its way to PyTorch.

    Attributes:
        node: its name and operator, for messages.
        attributes: by name.
        inputs: tensors, or what stands for them while a graph is drawn; None where one is absent.
        constants: for every input its values, where they are known beforehand.
        shapes: for every input its static shape.
        num_outputs: how many tensors it writes.
    """

    node: str
    attributes: Mapping[str, Any]
    inputs: tuple[Any, ...]
    constants: tuple[torch.Tensor | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    num_outputs: int = 1

    @property
    def x(self) -> Any:
        """The first input."""
        return self.inputs[0]

    def has(self, index: int) -> bool:
        """Whether it has an input there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def optional(self, index: int) -> Any:
        """An input, or None where it is absent."""
        return self.inputs[index] if self.has(index) else None

    def constant(self, index: int) -> torch.Tensor:
        """An input's values.

        Raises:
            BuildError: they are computed at run time.
        """
        values = self.constants[index]
        if values is None:
            raise BuildError(f"node {self.node} computes its input {index} at run time; export with fixed shapes")
        return values

    def ints(self, index: int, attribute: str = "") -> list[int] | None:
        """Whole numbers that newer opsets have as an input and older ones as an attribute."""
        if self.has(index):
            return [int(value) for value in self.constant(index).reshape(-1).tolist()]
        found = self.attributes.get(attribute)
        return None if found is None else [int(value) for value in found]

    def get(self, attribute: str, default: Any) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(attribute, default)


Operator = Callable[[Call], Any]


def _unary(function: Callable[[Any], Any]) -> Operator:
    return lambda call: function(call.x)


def _fold(function: Callable[[Any, Any], Any]) -> Operator:
    def run(call: Call) -> Any:
        result = call.x
        for other in call.inputs[1:]:
            result = function(result, other)
        return result

    return run


# ---- products, norms, pools -----------------------------------------------------------------------------------------


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


# ---- activations ----------------------------------------------------------------------------------------------------


def _clip(call: Call) -> Any:
    """The bounds are numbers; the usual ones are the activations that they come from."""
    low, high = call.attributes.get("min"), call.attributes.get("max")
    low = float(call.constant(1)) if call.has(1) else low
    high = float(call.constant(2)) if call.has(2) else high
    return functional.relu6(call.x) if (low, high) == (0.0, 6.0) else torch.clamp(call.x, low, high)


def _hard_sigmoid(call: Call) -> Any:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid(call.x)
    return torch.clamp(call.x * alpha + beta, 0.0, 1.0)


def _prelu(call: Call) -> Any:
    slope = call.shapes[1]
    if math.prod(slope) in (1, call.shapes[0][1] if len(call.shapes[0]) > 1 else 1):
        return functional.prelu(call.x, call.inputs[1].reshape(-1))
    return torch.where(call.x < 0, call.x * call.inputs[1], call.x)


# ---- shapes ---------------------------------------------------------------------------------------------------------


def _reshape(call: Call) -> Any:
    wanted = call.ints(1, "shape") or []
    keeps = not call.get("allowzero", 0)
    return call.x.reshape([call.shapes[0][i] if size == 0 and keeps else size for i, size in enumerate(wanted)])


def _flatten(call: Call) -> Any:
    axis = call.get("axis", 1)
    return call.x.reshape([math.prod(call.shapes[0][:axis]), -1])


def _squeeze(call: Call) -> Any:
    axes = call.ints(1, "axes")
    return call.x.squeeze() if axes is None else call.x.squeeze(tuple(axes))


def _unsqueeze(call: Call) -> Any:
    axes, result = call.ints(1, "axes") or [], call.x
    for axis in sorted(axis % (len(call.shapes[0]) + len(axes)) for axis in axes):
        result = result.unsqueeze(axis)
    return result


def _slice(call: Call) -> Any:
    starts, stops = call.ints(1, "starts") or [], call.ints(2, "ends") or []
    axes, steps = call.ints(3, "axes") or list(range(len(starts))), call.ints(4) or [1] * len(starts)
    result = call.x
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        kept = range(*slice(start, stop, step).indices(call.shapes[0][axis]))
        if step == 1:
            result = result.narrow(axis, kept.start, len(kept))
        elif step == -1 and len(kept) == call.shapes[0][axis]:
            result = result.flip(axis)
        else:
            result = result.index_select(axis, _indices(result, list(kept)))
    return result


def _indices(like: Any, values: Sequence[int]) -> Any:
    """Constant positions, on the device of a tensor."""
    return torch.tensor(values, device=like.device) if isinstance(like, torch.Tensor) else like.new_tensor(
        values, dtype=torch.int64
    )  # fmt: skip


def _split(call: Call) -> Any:
    axis = call.get("axis", 0)
    sizes = call.ints(1, "split")
    if sizes is None:
        total, parts = call.shapes[0][axis], call.num_outputs
        size = -(-total // parts)
        sizes = [min(size, total - size * index) for index in range(parts)]
    return torch.split(call.x, sizes, axis)


def _gather(call: Call) -> Any:
    axis, indices = call.get("axis", 0), call.inputs[1]
    if call.shapes[1] == ():
        return call.x.select(axis, int(call.constant(1)))
    if len(call.shapes[1]) == 1:
        return call.x.index_select(axis, indices)
    raise BuildError(f"node {call.node} gathers by a table of indices; choose another runtime")


def _gather_nd(call: Call) -> Any:
    if call.get("batch_dims", 0) or call.shapes[1][-1] != 1:
        raise BuildError(f"node {call.node} gathers along several axes; choose another runtime")
    return call.x[call.inputs[1][..., 0]]


def _pad(call: Call) -> Any:
    if call.get("mode", "constant") not in ("constant", "reflect", "edge"):
        raise BuildError(f"node {call.node} pads by {call.attributes['mode']}; choose another runtime")
    pads, rank = call.ints(1, "pads") or [], len(call.shapes[0])
    axes = [axis % rank for axis in call.ints(3) or range(rank)]
    sides = {axis: (pads[i], pads[len(axes) + i]) for i, axis in enumerate(axes)}
    spatial = range(2, rank) if call.get("mode", "constant") != "constant" else range(rank)
    widths = [side for axis in reversed(spatial) for side in sides.get(axis, (0, 0))]
    value = float(call.constant(2)) if call.has(2) else 0.0
    mode = {"edge": "replicate"}.get(call.get("mode", "constant"), call.get("mode", "constant"))
    return functional.pad(call.x, widths, mode=mode, value=value if mode == "constant" else None)


def _resize(call: Call) -> Any:
    rank, mode = len(call.shapes[0]) - 2, call.get("mode", "nearest")
    how = call.get("coordinate_transformation_mode", "half_pixel")
    known = {
        ("nearest", "asymmetric"): ("nearest", None),
        ("nearest", "half_pixel"): ("nearest-exact", None),
        ("linear", "half_pixel"): ({1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank), False),
        ("linear", "pytorch_half_pixel"): ({1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank), False),
        ("linear", "align_corners"): ({1: "linear", 2: "bilinear", 3: "trilinear"}.get(rank), True),
        ("cubic", "half_pixel"): ("bicubic", False),
        ("cubic", "align_corners"): ("bicubic", True),
    }.get((mode, how))
    if known is None or known[0] is None or "axes" in call.attributes:
        raise BuildError(f"node {call.node} resizes by {mode} with {how}; choose another runtime")
    if call.has(3):
        size = [int(value) for value in call.constant(3).tolist()[2:]]
    else:
        scales = call.constant(2).tolist()[2:]
        size = [math.floor(n * scale) for n, scale in zip(call.shapes[0][2:], scales, strict=True)]
    return functional.interpolate(call.x, size=size, mode=known[0], align_corners=known[1])


_DTYPES = {
    1: torch.float32, 10: torch.float16, 16: torch.bfloat16, 11: torch.float64, 9: torch.bool, 3: torch.int8,
    2: torch.uint8, 6: torch.int32, 7: torch.int64,
}  # fmt: skip

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Add": _fold(operator.add), "Sub": _fold(operator.sub), "Mul": _fold(operator.mul), "Sum": _fold(operator.add),
        "Max": _fold(torch.maximum), "Min": _fold(torch.minimum), "Pow": _fold(torch.pow),
        "Div": _fold(operator.truediv), "Equal": _fold(operator.eq), "Less": _fold(operator.lt),
        "Greater": _fold(operator.gt), "And": _fold(torch.logical_and), "Or": _fold(torch.logical_or),
        "MatMul": _fold(torch.matmul), "Where": lambda call: torch.where(*call.inputs),
        "Relu": _unary(functional.relu), "Sigmoid": _unary(torch.sigmoid), "Tanh": _unary(torch.tanh),
        "Exp": _unary(torch.exp), "Log": _unary(torch.log), "Sqrt": _unary(torch.sqrt), "Abs": _unary(torch.abs),
        "Neg": _unary(operator.neg), "Erf": _unary(torch.erf), "Floor": _unary(torch.floor), "Ceil": _unary(torch.ceil),
        "Round": _unary(torch.round), "Reciprocal": _unary(torch.reciprocal), "Sign": _unary(torch.sign),
        "Sin": _unary(torch.sin), "Cos": _unary(torch.cos), "Not": _unary(torch.logical_not),
        "Softplus": _unary(functional.softplus), "Softsign": _unary(functional.softsign),
        "Mish": _unary(functional.mish), "HardSwish": _unary(functional.hardswish),
        "Identity": _unary(lambda x: x), "Dropout": _unary(lambda x: x),
        "LeakyRelu": lambda call: functional.leaky_relu(call.x, call.get("alpha", 0.01)),
        "Elu": lambda call: functional.elu(call.x, call.get("alpha", 1.0)),
        "Celu": lambda call: functional.celu(call.x, call.get("alpha", 1.0)),
        "Gelu": lambda call: functional.gelu(call.x, approximate=call.get("approximate", "none")),
        "Softmax": lambda call: functional.softmax(call.x, call.get("axis", -1)),
        "LogSoftmax": lambda call: functional.log_softmax(call.x, call.get("axis", -1)),
        "Cast": lambda call: call.x.to(_DTYPES[call.attributes["to"]]),
        "Clip": _clip, "HardSigmoid": _hard_sigmoid, "PRelu": _prelu,
        "Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm,
        "BatchNormalization": _batch_norm, "LayerNormalization": _layer_norm,
        "InstanceNormalization": lambda call: functional.instance_norm(
            call.x, weight=call.inputs[1], bias=call.inputs[2], eps=call.get("epsilon", 1e-5)
        ),
        "MaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _global_average,
        "GlobalMaxPool": lambda call: call.x.amax(list(range(2, len(call.shapes[0]))), keepdim=True),
        "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
        "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
        "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
        "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
        "ReduceL2": _reduction(lambda x, axes, keep: x.norm(dim=axes, keepdim=keep)),
        "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice,
        "Split": _split, "Gather": _gather, "GatherND": _gather_nd, "Pad": _pad, "Resize": _resize,
        "Concat": lambda call: torch.cat(call.inputs, call.attributes["axis"]),
        "Transpose": lambda call: call.x.permute(
            call.get("perm", list(range(len(call.shapes[0])))[::-1])
        ),
        "Expand": lambda call: _expand(call),
        "Tile": lambda call: call.x.repeat(call.ints(1) or []),
    }
)  # fmt: skip
"""The operators by their ONNX names."""


def _expand(call: Call) -> Any:
    """Broadcast both ways: the wanted shape may be shorter, or hold ones."""
    shape = torch.broadcast_shapes(call.shapes[0], tuple(call.ints(1) or ()))  # type: ignore[no-untyped-call]
    return call.x.expand(shape)
