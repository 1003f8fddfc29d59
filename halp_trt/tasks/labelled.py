"""Labelled pictures in memory: digits, and arrays of a user's factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from halp_trt.errors import DataError
from halp_trt.models.factories import faults_of, import_factory
from halp_trt.store import sha256_bytes
from halp_trt.tasks import augment
from halp_trt.tasks.dataset import DataSet, InputShape
from halp_trt.tasks.pictures import ArrayPictures

if TYPE_CHECKING:
    from halp_trt.tasks.source import SourceOptions

__all__ = ["load_digits", "load_factory"]

_DIGITS_SPLIT_SEED = 0
"""Seed of the split of digits."""
_MAX_CLASSES = 10**6
"""Most classes of a factory's labels; more is a mistake, such as a label that is an identifier."""


def load_digits(reading: SourceOptions) -> DataSet:
    """The data set of 1,797 handwritten digits of 8x8 pixels; a fixed fifth of them are the test pictures.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as cause:
        raise DataError(
            "data 'digits' comes with scikit-learn, which is not installed; pip install scikit-learn"
        ) from cause
    pixels, labels = load_digits(return_X_y=True)
    pictures = np.round(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = np.asarray(labels, dtype=np.int64)
    order = np.random.default_rng(_DIGITS_SPLIT_SEED).permutation(len(labels))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    return DataSet(
        name="digits",
        train=ArrayPictures(pixels=pictures[train], labels=labels[train]),
        test=ArrayPictures(pixels=pictures[test], labels=labels[test]),
        classes=tuple("0123456789"),
        input_shape=reading.input_shape or (1, 8, 8),
        mean=(0.305,),
        std=(0.376,),
        augmentation=augment.shift,
        fingerprint=sha256_bytes(pictures.tobytes() + labels.tobytes()),
    )


def load_factory(source: str, input_shape: InputShape | None) -> DataSet:
    """The data set of a user's factory, which returns a data set or four arrays of labelled pictures.

    Raises:
        DataError: the factory fails, or returns something else.
    """
    factory = import_factory(source, DataError)
    with faults_of(source, DataError):
        result = factory()
    if isinstance(result, DataSet):
        return result
    if not isinstance(result, tuple) or len(result) != 4:
        raise DataError(
            f"{source!r} returned {type(result).__name__}; expected a DataSet or arrays "
            f"(train_pixels, train_labels, test_pixels, test_labels)"
        )
    train, test = _arrays(source, *result[:2]), _arrays(source, *result[2:])
    if len(train) == 0:
        raise DataError(f"{source!r} returned no training pictures; expected at least one")
    if len(test) and test.pixels.shape[1:] != train.pixels.shape[1:]:
        raise DataError(
            f"{source!r} returned training pictures {train.pixels.shape[1:]} and test pictures "
            f"{test.pixels.shape[1:]}; bring them to one shape"
        )
    channels, height, width = train.pixels.shape[1:]
    asked = channels if input_shape is None else input_shape[0]
    if asked != channels and not (asked in (1, 3) and 1 in (asked, channels)):
        raise DataError(
            f"{source!r} returned pictures of {channels} channels and the network reads {asked}; expected as many, or "
            f"1 or 3 channels that the others are made from"
        )
    return DataSet(
        name=source,
        train=train,
        test=test,
        classes=tuple(map(str, range(int(max(train.labels.max(), test.labels.max(initial=0))) + 1))),
        input_shape=input_shape or (channels, height, width),
        mean=tuple(float(m) / 255 for m in train.pixels.mean(axis=(0, 2, 3))),
        std=tuple(max(float(s) / 255, 1e-6) for s in train.pixels.std(axis=(0, 2, 3))),
    )


def _arrays(source: str, pixels: object, labels: object) -> ArrayPictures:
    """The pictures of one split from a factory.

    Raises:
        DataError: the pixels are no array of pictures, or the labels are not 0, 1, 2 ...
    """
    try:
        array, numbers = np.asarray(pixels), np.asarray(labels)
    except ValueError as cause:
        raise DataError(
            f"{source!r} returned pictures of several shapes ({cause}); expected one array [N, C, H, W]"
        ) from cause
    if not np.issubdtype(numbers.dtype, np.integer) and not (numbers.dtype.kind == "f" and (numbers % 1 == 0).all()):
        raise DataError(f"{source!r} returned labels of type {numbers.dtype}; expected whole numbers from 0")
    pictures = ArrayPictures(pixels=array, labels=numbers.astype(np.int64))
    if len(pictures) and not 0 <= pictures.labels.min() <= pictures.labels.max() < _MAX_CLASSES:
        raise DataError(
            f"{source!r} returned labels from {pictures.labels.min()} to {pictures.labels.max()}; expected 0, 1, 2 ..."
        )
    return pictures
