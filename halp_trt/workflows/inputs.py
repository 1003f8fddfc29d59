"""Inputs of engines: training pictures for calibration, test pictures or random numbers for comparison."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np
import onnx
import torch

from halp_trt.errors import DataError, EmptyBatchError, UsageError
from halp_trt.graphs.reading import read_model
from halp_trt.runtimes import Array, Session
from halp_trt.runtimes.noise import random_inputs
from halp_trt.tasks.dataset import DataSet
from halp_trt.texts import counted
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import load_pictures, seen_by
from halp_trt.workflows.settings import NO_DATA, DataSettings

__all__ = ["calibration_inputs", "example_inputs", "pictures_of"]

_MOST_NUMBERS = 2**26
"""Most numbers of all inputs that calibrate a network: a quarter of a gigabyte."""
_LEAST_READ = 16
"""Fewest pictures that are read for an engine's batch: the first ones may be bad and skipped."""


def pictures_of(settings: DataSettings, run: RunFolder) -> DataSet | None:
    """The pictures of a run, in the shape its dense model reads, prepared as for the run's network."""
    if settings.data == NO_DATA:
        return None
    shape = _image_shape(read_model(run.dense_model))
    seen = seen_by(run.read_settings().network, settings) if run.settings.exists() else None
    return load_pictures(settings, shape[1:], seen=seen)


def calibration_inputs(model: onnx.ModelProto, data: DataSet | None, num_pictures: int = 256) -> list[dict[str, Array]]:
    """Training pictures as inputs of a network, spread over the split; none where there are no data.

    Raises:
        DataError: they have not the shape that the network reads, or are not finite.
        UsageError: the network has several inputs.
    """
    if data is None:
        return []
    shape = _image_shape(model)
    num_pictures = min(num_pictures, max(_LEAST_READ, _MOST_NUMBERS // math.prod(shape[1:])))
    num_batches = -(-min(num_pictures, data.num_train) // shape[0])
    picked = np.linspace(0, data.num_train - 1, num_batches * shape[0]).astype(np.int64)
    pictures = data.train_batch(picked).pictures.numpy()
    if pictures.shape[1:] != shape[1:] or not np.isfinite(pictures).all():
        found = f"the shape {pictures.shape[1:]}" if pictures.shape[1:] != shape[1:] else "numbers that are not finite"
        raise DataError(
            f"pictures of {data.name} have {found}, the network reads finite ones of {shape[1:]}; "
            "make them so, or name other --data"
        )
    name, firsts = model.graph.input[0].name, range(0, len(pictures), shape[0])
    return [{name: np.resize(pictures[i : i + shape[0]], shape)} for i in firsts]  # fewer where bad ones were skipped


def _first_pictures(data: DataSet, number: int) -> Array:
    """The first test pictures ``[N, C, H, W]`` that can be read, about so many.

    Raises:
        DataError: a picture cannot be read; where bad ones are skipped, none can.
    """
    for first in range(0, data.num_test, number):
        with contextlib.suppress(EmptyBatchError):
            return data.test_batch(np.arange(first, first + number) % data.num_test).pictures.numpy()
    raise DataError(
        f"none of the {counted(data.num_test, 'test picture')} of {data.name} can be read; replace the files"
    )


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
        pictures = _first_pictures(data, max(shape[0], _LEAST_READ))
        return {name: np.resize(pictures[: shape[0]], shape)}  # there may be fewer, as bad ones are skipped
    given = dict(zip(shapes, example, strict=True)) if len(example) == len(shapes) else {}
    whole = {name: value.numpy() for name, value in given.items() if not value.is_floating_point()}
    noise = random_inputs({name: shape for name, shape in shapes.items() if name not in whole})
    return {name: whole[name] if name in whole else noise[name] for name in shapes}
