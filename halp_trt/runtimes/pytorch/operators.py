"""ONNX operators as the calls of PyTorch that an eager network would make; one function each, no module state."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from halp_trt.runtimes.pytorch.call import Operator
from halp_trt.runtimes.pytorch.elementwise import ELEMENTWISE
from halp_trt.runtimes.pytorch.layers import LAYERS
from halp_trt.runtimes.pytorch.shapes import SHAPES

__all__ = ["OPERATORS"]

OPERATORS: Mapping[str, Operator] = MappingProxyType({**ELEMENTWISE, **LAYERS, **SHAPES})
"""The operators by their ONNX names."""
