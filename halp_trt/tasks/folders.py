"""Folders of pictures: with a sub-folder for each class, or without labels."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import DataError
from halp_trt.rows import load_row
from halp_trt.store import sha256_bytes
from halp_trt.tasks import UNLABELLED, augment
from halp_trt.tasks.dataset import DataSet, InputShape
from halp_trt.tasks.files import Files, find_pictures, scan_folder
from halp_trt.tasks.pictures import ChangingPictures, FolderPictures, Pictures, in_memory
from halp_trt.tasks.preparation import PLAIN, Preparation

if TYPE_CHECKING:
    from pathlib import Path

    from halp_trt.tasks.source import SourceOptions

__all__ = ["load_imagefolder", "load_unlabelled"]

_MEMORY_LIMIT_BYTES = 512 * 1024**2
"""Largest size of a decoded split that is held in memory; a larger one is decoded batch by batch."""
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean per channel of ImageNet's pixels in 0..1."""
_IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation per channel of ImageNet's pixels in 0..1."""
_NO_LABEL = -1
"""The label of a picture without one."""


def load_imagefolder(reading: SourceOptions) -> DataSet:
    """The data set of a folder: ``train/`` with ``val/`` or ``test/``, or classes split four to one by file names.

    Raises:
        DataError: the folder is missing, has ``train/`` alone or holds no picture, or a picture is bad.
    """
    path = reading.path
    if (path / "train").is_dir():
        classes, files, labels = scan_folder(path / "train")
        held_out = next((path / name for name in ("val", "test") if (path / name).is_dir()), None)
        if held_out is None:
            raise DataError(f"{path} has train/ but neither val/ nor test/; add one of them")
        _, test_files, test_labels = scan_folder(held_out, classes)
    else:
        classes, every, its = scan_folder(path)
        train, test = _split(every, its)
        files, labels, test_files, test_labels = every.take(train), its[train], every.take(test), its[test]
    how = _settled(reading.preparation or PLAIN)
    return DataSet(
        name=f"imagefolder:{path}",
        train=_pictures(reading, how, files, labels, is_changing=True),
        test=_pictures(reading, how, test_files, test_labels, is_changing=False),
        classes=classes,
        **_facts(reading, how, files, test_files),
    )


def load_unlabelled(reading: SourceOptions) -> DataSet:
    """The data set of all pictures in a folder and the folders below; both splits are all of them.

    Raises:
        DataError: the folder is missing or holds no picture, or a picture is bad.
    """
    path = reading.path
    if not path.is_dir():
        raise DataError(f"data folder {path} does not exist; give a folder of pictures")
    files = Files.of(path, find_pictures(path))
    if not files:
        raise DataError(f"data folder {path} holds no picture; expected pictures in it, or in folders below it")
    how = _settled(reading.preparation or PLAIN)
    pictures = _pictures(reading, how, files, np.full(len(files), _NO_LABEL), is_changing=True)
    return DataSet(
        name=f"pictures:{path}",
        train=pictures,
        test=pictures,
        task=UNLABELLED,
        is_labelled=False,
        **_facts(reading, how, files),
    )


def _settled(how: Preparation) -> Preparation:
    """The preparation with the statistics and the augmentation that it leaves to the data set."""
    own = augment.shift_and_flip if how.is_for_memory else augment.keep
    return replace(
        how,
        mean=how.mean or _IMAGENET_MEAN,
        std=how.std or _IMAGENET_STD,
        augmentation=load_row(how.augmentation or own),
    )


def _shape(reading: SourceOptions) -> InputShape:
    return reading.input_shape or (3, 224, 224)


def _pictures(
    reading: SourceOptions, how: Preparation, files: Files, labels: npt.NDArray[np.int64], *, is_changing: bool
) -> Pictures:
    """The pictures of a split: in memory if they fit and keep their form, else decoded on demand.

    Args:
        reading: arguments of the source.
        how: the preparation.
        files, labels: the pictures and their labels.
        is_changing: True if they change at random for training.
    """
    kind = ChangingPictures if is_changing else FolderPictures
    shape = _shape(reading)
    on_demand = kind(files=files, labels=labels, shape=shape, on_bad_picture=reading.on_bad_picture, preparation=how)
    fits = len(files) * int(np.prod(shape)) <= _MEMORY_LIMIT_BYTES and (how.is_for_memory or not is_changing)
    if reading.is_glance:
        return on_demand
    how.import_all(shape[1:])
    return in_memory(on_demand) if fits else on_demand


def _facts(reading: SourceOptions, how: Preparation, *files: Files) -> dict[str, Any]:
    """The fields of a data set that follow from its pictures and their preparation."""
    shape = _shape(reading)
    is_grey = shape[0] == 1
    return {
        "input_shape": shape,
        "mean": (sum(how.mean) / len(how.mean),) if is_grey else how.mean,
        "std": (sum(how.std) / len(how.std),) if is_grey else how.std,
        "augmentation": how.augmentation,
        "fingerprint": "" if reading.is_glance else _fingerprint(reading.path, how, shape, files),
    }


def _fingerprint(path: Path, how: Preparation, shape: InputShape, splits: tuple[Files, ...]) -> str:
    """SHA-256 of the files' names and sizes, and of a preparation other than the plain one."""
    names: list[str] = []
    for files in splits:
        above = "" if files.folder == path else f"{files.folder.relative_to(path).as_posix()}/"
        names.extend(f"{above}{files.name(index)}" for index in range(len(files)))
    digest = hashlib.sha256(b"[")
    for index, name in enumerate(sorted(names)):
        digest.update(f"{', ' if index else ''}{(name, (path / name).stat().st_size)!r}".encode())
    digest.update(b"]")
    found = digest.hexdigest()
    is_plain = how == _settled(PLAIN)
    return found if is_plain else sha256_bytes(f"{found} {how.name} {how.text(shape[1:])}".encode())


def _split(files: Files, labels: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numbers of the training and of the test pictures: a fifth of each class, by the hashes of the names."""
    hashes = [hashlib.sha256(files.name(index).encode()).hexdigest() for index in range(len(files))]
    train: list[int] = []
    test: list[int] = []
    for label in np.unique(labels):
        ordered = sorted(np.flatnonzero(labels == label).tolist(), key=hashes.__getitem__)
        held = len(ordered) // 5 or int(len(ordered) > 1)
        test.extend(ordered[:held])
        train.extend(ordered[held:])
    return np.asarray(train, dtype=np.int64), np.asarray(test, dtype=np.int64)
