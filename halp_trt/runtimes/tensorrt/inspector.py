"""Number formats as TensorRT's engine inspector tells them, see :mod:`halp_trt.store.inspected` for its schemas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from halp_trt.store.inspected import inspected_layers, number_format

__all__ = ["engine_formats", "engine_types", "number_format"]


def engine_types(inspected: Mapping[str, Any]) -> dict[str, str]:
    """The number format that each node's kernel computes in, by ONNX node, as far as the engine shows it.

    Nodes inside larger compiled regions, whose kernels bear names of their own, are missing. Kernels that round fp32 to
    tf32 are told by the names of their tactics.
    """
    return inspected_layers(inspected).types()


def engine_formats(inspected: Mapping[str, Any]) -> dict[str, str]:
    """Number format and memory layout of an engine's inputs and outputs, by name, in the inspector's own words."""
    return dict(inspected_layers(inspected).edges)
