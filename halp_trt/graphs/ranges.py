"""The ranges of a network's tensors on examples, measured with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from halp_trt.errors import NonFiniteError
from halp_trt.graphs.execute import Executor

__all__ = ["tensor_ranges"]


def tensor_ranges(model: onnx.ModelProto, examples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The largest absolute value of every fp32 tensor that a node writes, over all examples.

    Raises:
        NonFiniteError: a tensor is NaN or infinite already in fp32.
        BuildError: ONNX Runtime refuses the network or an example.
    """
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    known = {output.name for output in inferred.graph.output}
    names = [
        name
        for node in inferred.graph.node
        for name in node.output
        if name in known or kinds.get(name) == onnx.TensorProto.FLOAT
    ]
    executor = Executor(inferred, names)
    return _largest(names, (executor(example) for example in examples))


def _largest(names: Sequence[str], runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    ranges = dict.fromkeys(names, 0.0)
    for values in runs:
        for name, value in values.items():
            largest = float(np.max(np.abs(value), initial=0.0))
            if not np.isfinite(largest):
                raise NonFiniteError(f"tensor {name!r} is NaN or infinite in fp32; check the weights and the examples")
            ranges[name] = max(ranges[name], largest)
    return ranges
