"""Data sets of pictures with boxes: ``voc:PATH`` and ``coco:IMAGES,ANNOTATIONS.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from halp_trt.errors import DataError
from halp_trt.tasks import COCO_DETECTION, DETECTION
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.detection.coco import read_coco
from halp_trt.tasks.detection.objects import Annotated, Split
from halp_trt.tasks.detection.pictures import BoxPictures
from halp_trt.tasks.detection.voc import read_voc

if TYPE_CHECKING:
    from halp_trt.tasks.source import SourceOptions

__all__ = ["load_coco", "load_voc"]

_SHAPE = (3, 300, 300)
"""Channels, height and width if no network says otherwise."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation per channel of ImageNet's pixels in 0..1."""


def load_voc(reading: SourceOptions) -> DataSet:
    """The data set of a folder in PASCAL VOC's layout.

    Raises:
        DataError: as ``halp_trt.tasks.detection.voc.read_voc``.
    """
    return _data_set(f"voc:{reading.path}", read_voc(reading.path), DETECTION, reading)


def load_coco(reading: SourceOptions) -> DataSet:
    """The data set of a folder of pictures and a COCO annotation file, named ``IMAGES,ANNOTATIONS.json``.

    Raises:
        DataError: as ``halp_trt.tasks.detection.coco.read_coco``; or the name has no comma.
    """
    images, comma, annotations = str(reading.path).rpartition(",")
    if not comma:
        raise DataError(
            f"coco:{reading.path} names no annotation file; expected coco:FOLDER_OF_PICTURES,ANNOTATIONS.json"
        )
    found = read_coco(Path(images), Path(annotations).expanduser())
    return _data_set(f"coco:{reading.path}", found, COCO_DETECTION, reading)


def _data_set(name: str, found: Annotated, task: str, reading: SourceOptions) -> DataSet:
    shape = reading.input_shape or _SHAPE
    make: Callable[[Split], BoxPictures] = lambda split: BoxPictures(  # noqa: E731
        split=split, shape=shape, on_bad_picture=reading.on_bad_picture
    )
    is_grey = shape[0] == 1
    return DataSet(
        name=name,
        train=make(found.train),
        test=make(found.test),
        classes=found.classes,
        input_shape=shape,
        mean=(sum(_MEAN) / 3,) if is_grey else _MEAN,
        std=(sum(_STD) / 3,) if is_grey else _STD,
        task=task,
        fingerprint="" if reading.is_glance else _fingerprint(found),
    )


def _fingerprint(found: Annotated) -> str:
    """SHA-256 of the classes, and of the pictures' names and sizes and the objects in them."""
    digest = hashlib.sha256(repr(found.classes).encode())
    for split in (found.train, found.test):
        for file, objects in zip(split.files, split.objects, strict=True):
            digest.update(repr((file.name, file.stat().st_size)).encode())
            for array in (objects.boxes, objects.labels, objects.is_ignored):
                digest.update(array.tobytes())
    return digest.hexdigest()
