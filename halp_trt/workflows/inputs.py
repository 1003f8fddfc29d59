"""Inputs of engines: training pictures for calibration, test pictures or random numbers for comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch

from halp_trt.errors import DataError, UsageError
from halp_trt.graphs.reading import read_model
from halp_trt.runtimes import Array, Session
from halp_trt.runtimes.noise import random_inputs
from halp_trt.tasks.dataset import DataSet
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import load_pictures
from halp_trt.workflows.settings import NO_DATA, DataSettings

__all__ = ["calibration_inputs", "example_inputs", "pictures_of"]


def pictures_of(settings: DataSettings, run: RunFolder) -> DataSet | None:
    """The pictures of a run, in the shape its dense model reads."""
    if settings.data == NO_DATA:
        return None
    shape = _image_shape(read_model(run.dense_model))
    return load_pictures(settings, shape[1:])


def calibration_inputs(model: onnx.ModelProto, data: DataSet | None, num_pictures: int = 256) -> list[dict[str, Array]]:
    """Training pictures as inputs of a network, spread over the split; none where there are no data.

    Raises:
        DataError: they have not the shape that the network reads, or are not finite.
        UsageError: the network has several inputs.
    """
    if data is None:
        return []
    shape = _image_shape(model)
    num_batches = -(-min(num_pictures, data.num_train) // shape[0])
    picked = np.linspace(0, data.num_train - 1, num_batches * shape[0]).astype(np.int64).reshape(num_batches, -1)
    batches = []
    for indices in picked:
        pictures = data.train_batch(indices)[0].numpy()
        if pictures.shape[1:] != shape[1:] or not np.isfinite(pictures).all():
            found = (
                f"the shape {pictures.shape[1:]}" if pictures.shape[1:] != shape[1:] else "numbers that are not finite"
            )
            raise DataError(
                f"pictures of {data.name} have {found}, the network reads finite ones of {shape[1:]}; "
                "make them so, or name other --data"
            )
        batches.append({model.graph.input[0].name: np.resize(pictures, shape)})  # fewer where bad ones were skipped
    return batches


def _image_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    if len(model.graph.input) != 1:
        raise UsageError(
            f"calibrating needs a network with one input, this one has {len(model.graph.input)}; "
            "choose another precision"
        )
    return tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)


def example_inputs(session: Session, data: DataSet | None, example: Sequence[torch.Tensor] = ()) -> dict[str, Array]:
    """Test pictures for an engine's one input where there are data, else normal random numbers.

    An input of whole numbers or truth values (a mask, an index) gets the network's own example.
    """
    shapes = session.input_shapes
    if data is not None and len(shapes) == 1:
        (name, shape), *_ = shapes.items()
        pictures, _ = data.test_batch(np.arange(shape[0]) % data.num_test)
        return {name: pictures.numpy()}
    given = dict(zip(shapes, example, strict=True)) if len(example) == len(shapes) else {}
    whole = {name: value.numpy() for name, value in given.items() if not value.is_floating_point()}
    noise = random_inputs({name: shape for name, shape in shapes.items() if name not in whole})
    return {name: whole[name] if name in whole else noise[name] for name in shapes}
