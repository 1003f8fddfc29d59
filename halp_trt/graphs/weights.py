"""Puts trained weights into an exported graph, so that a network is exported once however often it is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx

from halp_trt.errors import GraphMismatchError


def with_weights(model: onnx.ModelProto, tensors: Mapping[str, npt.NDArray[np.generic]]) -> onnx.ModelProto:
    """A copy of an export whose initialisers hold these values; other initialisers stay as they are.

    Args:
        model: a dense export (``halp_trt.graphs.export``); its parameters keep their names.
        tensors: values by parameter name, of the dense shapes.

    Raises:
        GraphMismatchError: a shape differs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for initializer in copy.graph.initializer:
        values = tensors.get(initializer.name)
        if values is None:
            continue
        if tuple(values.shape) != tuple(initializer.dims):
            raise GraphMismatchError(
                f"weights {initializer.name!r} have shape {tuple(values.shape)}, the exported network expects "
                f"{tuple(initializer.dims)}; export the network that the weights belong to"
            )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(initializer.data_type)
        initializer.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, dtype), initializer.name))
    return copy
