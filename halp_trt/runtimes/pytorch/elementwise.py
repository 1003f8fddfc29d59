"""Operators that see one element of each input at a time: arithmetic and activations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from halp_trt.runtimes.pytorch.call import Call, Operator

__all__ = ["ELEMENTWISE"]

_DTYPES = {
    1: torch.float32, 10: torch.float16, 16: torch.bfloat16, 11: torch.float64, 9: torch.bool, 3: torch.int8,
    2: torch.uint8, 6: torch.int32, 7: torch.int64,
}  # fmt: skip


def _unary(function: Callable[[Any], Any]) -> Operator:
    return lambda call: function(call.x)


def _fold(function: Callable[[Any, Any], Any]) -> Operator:
    def run(call: Call) -> Any:
        result = call.x
        for other in call.inputs[1:]:
            result = function(result, other)
        return result

    return run


def _clip(call: Call) -> Any:
    """The input clipped to constant bounds; with the bounds of ReLU6 it is that activation."""
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


ELEMENTWISE: Mapping[str, Operator] = MappingProxyType(
    {
        "Add": _fold(operator.add),
        "Sub": _fold(operator.sub),
        "Mul": _fold(operator.mul),
        "Sum": _fold(operator.add),
        "Max": _fold(torch.maximum),
        "Min": _fold(torch.minimum),
        "Pow": _fold(torch.pow),
        "Div": _fold(operator.truediv),
        "Equal": _fold(operator.eq),
        "Less": _fold(operator.lt),
        "Greater": _fold(operator.gt),
        "And": _fold(torch.logical_and),
        "Or": _fold(torch.logical_or),
        "Where": lambda call: torch.where(*call.inputs),
        "Relu": _unary(functional.relu),
        "Sigmoid": _unary(torch.sigmoid),
        "Tanh": _unary(torch.tanh),
        "Exp": _unary(torch.exp),
        "Log": _unary(torch.log),
        "Sqrt": _unary(torch.sqrt),
        "Abs": _unary(torch.abs),
        "Neg": _unary(operator.neg),
        "Erf": _unary(torch.erf),
        "Floor": _unary(torch.floor),
        "Ceil": _unary(torch.ceil),
        "Round": _unary(torch.round),
        "Reciprocal": _unary(torch.reciprocal),
        "Sign": _unary(torch.sign),
        "Sin": _unary(torch.sin),
        "Cos": _unary(torch.cos),
        "Not": _unary(torch.logical_not),
        "Softplus": _unary(functional.softplus),
        "Softsign": _unary(functional.softsign),
        "Mish": _unary(functional.mish),
        "HardSwish": _unary(functional.hardswish),
        "Identity": _unary(lambda x: x),
        "Dropout": _unary(lambda x: x),
        "LeakyRelu": lambda call: functional.leaky_relu(call.x, call.get("alpha", 0.01)),
        "Elu": lambda call: functional.elu(call.x, call.get("alpha", 1.0)),
        "Celu": lambda call: functional.celu(call.x, call.get("alpha", 1.0)),
        "Gelu": lambda call: functional.gelu(call.x, approximate=call.get("approximate", "none")),
        "Cast": lambda call: call.x.to(_DTYPES[call.attributes["to"]]),
        "Clip": _clip,
        "HardSigmoid": _hard_sigmoid,
        "PRelu": _prelu,
    }
)
"""The elementwise operators by their ONNX names."""
