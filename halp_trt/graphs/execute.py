"""Runs an ONNX model on the processor, node by node, to look at the values of its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from halp_trt.errors import BuildError
from halp_trt.interrupts import raise_if_stopped

__all__ = ["Executor", "execute"]

_MOST_MESSAGE = 300
"""Longest part of ONNX Runtime's message that is quoted, in characters."""


class Executor:
    """A network in ONNX Runtime without its optimiser, so that every tensor has the value that its node computes."""

    def __init__(self, model: onnx.ModelProto, names: Sequence[str] | None = None) -> None:
        """Loads a network.

        Args:
            model: the network.
            names: names of its outputs, or of tensors that nodes write and whose types shape inference tells; None
                takes all outputs.

        Raises:
            BuildError: ONNX Runtime refuses the network.
        """
        import onnxruntime as ort  # beside its own runtime, only what looks into a network needs it

        outputs = [output.name for output in model.graph.output]
        self._names = outputs if names is None else list(names)
        extra = set(self._names) - set(outputs)
        if extra:
            model = onnx.shape_inference.infer_shapes(model)
            model.graph.output.extend(value for value in model.graph.value_info if value.name in extra)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common root
            raise_if_stopped(error)
            raise _refusal(error) from error

    def __call__(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The values of the tensors for some inputs; inputs that the network does not have are left out.

        Raises:
            BuildError: ONNX Runtime refuses the inputs or cannot compute a node.
        """
        try:
            fed = {given.name: np.asarray(inputs[given.name]) for given in self._session.get_inputs()}
            return dict(zip(self._names, self._session.run(self._names, fed), strict=True))
        except Exception as error:  # its errors have no common root
            raise_if_stopped(error)
            raise _refusal(error) from error


def _refusal(error: Exception) -> BuildError:
    reason = " ".join(str(error).split())[:_MOST_MESSAGE]
    return BuildError(f"ONNX Runtime cannot run the network: {reason}; mend the model")


def execute(model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The outputs of a network for some inputs, computed by ONNX Runtime node by node.

    Raises:
        BuildError: ONNX Runtime refuses the network or the inputs.
    """
    return Executor(model)(inputs)
