"""The ranges of a network's tensors on examples, measured with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from halp_trt.errors import BuildError, NonFiniteError

__all__ = ["tensor_ranges"]


def tensor_ranges(model: onnx.ModelProto, examples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The largest absolute value of every fp32 tensor that a node writes, over all examples.

    Raises:
        NonFiniteError: a tensor is NaN or infinite already in fp32.
        BuildError: ONNX Runtime refuses the network or an example.
    """
    import onnxruntime as ort  # beside its own runtime, only what looks into a network needs it

    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    known = {output.name for output in inferred.graph.output}
    names = [
        name
        for node in inferred.graph.node
        for name in node.output
        if name in known or kinds.get(name) == onnx.TensorProto.FLOAT
    ]
    inferred.graph.output.extend(value for value in inferred.graph.value_info if value.name in set(names) - known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(inferred.SerializeToString(), options, providers=["CPUExecutionProvider"])
        runs = (session.run(names, dict(example)) for example in examples)
        return _largest(names, runs)
    except NonFiniteError:
        raise
    except Exception as error:  # its errors have no common root
        reason = " ".join(str(error).split())[:300]
        raise BuildError(
            f"ONNX Runtime cannot run the network to see how large its tensors become: {reason}; mend the model"
        ) from error


def _largest(names: Sequence[str], runs: Iterable[Sequence[Any]]) -> dict[str, float]:
    ranges = dict.fromkeys(names, 0.0)
    for values in runs:
        for name, value in zip(names, values, strict=True):
            largest = float(np.max(np.abs(value), initial=0.0))
            if not np.isfinite(largest):
                raise NonFiniteError(f"tensor {name!r} is NaN or infinite in fp32; check the weights and the examples")
            ranges[name] = max(ranges[name], largest)
    return ranges
