"""CIFAR-10, or a data set with its layout, from a folder or a tar archive of pictures, decoded once into memory."""

from __future__ import annotations

import io
import lzma
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from halp_trt.errors import DataError
from halp_trt.store import sha256_bytes, sha256_file, write_bytes
from halp_trt.tasks import augment
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.files import scan_folder
from halp_trt.tasks.pictures import ArrayPictures, FolderPictures, OnBadPicture, decode_or_skip, in_memory

if TYPE_CHECKING:
    from halp_trt.tasks.source import SourceOptions

__all__ = ["load_cifar", "load_cifar10"]

_SHAPE = (3, 32, 32)
"""Channels, height and width of the decoded pictures."""
_MEAN = (0.4914, 0.4822, 0.4465)
"""Mean per channel of CIFAR-10's training pixels in 0..1."""
_STD = (0.2470, 0.2435, 0.2616)
"""Standard deviation per channel of CIFAR-10's training pixels in 0..1."""
_Splits = tuple[tuple[str, ...], ArrayPictures, ArrayPictures]
"""Names of the classes, training pictures and test pictures."""


def load_cifar10(reading: SourceOptions) -> DataSet:
    """The data set of CIFAR-10, or of a folder or archive with its layout: 32x32 pictures.

    Raises:
        DataError: as :func:`load_cifar`.
    """
    (classes, train, test), fingerprint = load_cifar(reading.path, reading.on_bad_picture, reading.cache)
    return DataSet(
        name=f"cifar10:{reading.path}",
        train=train,
        test=test,
        classes=classes,
        input_shape=reading.input_shape or (3, 32, 32),
        mean=_MEAN,
        std=_STD,
        augmentation=augment.shift_and_flip,
        fingerprint=fingerprint,
    )


def load_cifar(path: Path, on_bad_picture: OnBadPicture, cache: Path | None) -> tuple[_Splits, str]:
    """The classes, the training and test pictures ``[N, 3, 32, 32]``, and a fingerprint of their source.

    A folder and an archive of the same pictures give the same arrays: pictures are ordered by class and name.

    Args:
        path: a folder with ``train/<class>/`` and ``test/<class>/``, or a tar archive of one.
        on_bad_picture: ``refuse`` or ``skip`` for a picture that cannot be decoded.
        cache: an ``.npz`` file that keeps the decoded pictures; written if missing or made from other pictures.

    Raises:
        DataError: the path is missing, no archive or truncated, a split is empty, or a picture is bad.
    """
    if path.is_dir():
        listing = sorted((p.relative_to(path).as_posix(), p.stat().st_size) for p in path.rglob("*") if p.is_file())
        fingerprint = sha256_bytes(repr(listing).encode())
    elif path.is_file():
        fingerprint = sha256_file(path)
    else:
        raise DataError(f"CIFAR-10 is not at {path}; give its folder (train/<class>/, test/<class>/) or its .tar.xz")
    splits = _read_cache(cache, fingerprint) if cache is not None else None
    if splits is None:
        splits = _from_folder(path, on_bad_picture) if path.is_dir() else _from_archive(path, on_bad_picture)
        if cache is not None:
            _write_cache(cache, fingerprint, splits)
    return splits, fingerprint


def _from_folder(path: Path, on_bad_picture: OnBadPicture) -> _Splits:
    """The splits of a folder, decoded."""
    classes, files, labels = scan_folder(path / "train")
    _, test_files, test_labels = scan_folder(path / "test", classes)
    train, test = (
        in_memory(FolderPictures(files=f, labels=y, shape=_SHAPE, on_bad_picture=on_bad_picture))
        for f, y in ((files, labels), (test_files, test_labels))
    )
    return classes, train, test


def _members(path: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """Yields ``(split, class, name, bytes)`` of each picture in the archive, in its own order.

    Raises:
        DataError: the archive cannot be read.
    """
    try:
        with tarfile.open(path, mode="r|*") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.isfile() and len(parts) >= 3 and parts[-3] in ("train", "test"):
                    file = archive.extractfile(member)
                    if file is not None:
                        yield parts[-3], parts[-2], parts[-1], file.read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as cause:
        raise DataError(
            f"archive {path} cannot be read ({type(cause).__name__}: {cause}); it must be a complete tar archive, "
            f"download it again"
        ) from cause


def _from_archive(path: Path, on_bad_picture: OnBadPicture) -> _Splits:
    """The splits of an archive, decoded in one pass over it.

    Raises:
        DataError: the archive cannot be read, lacks a split, or tests a class without training pictures.
    """
    decoded: dict[str, list[tuple[str, str, np.ndarray]]] = {"train": [], "test": []}
    for split, label, name, data in _members(path):
        pixels = decode_or_skip(io.BytesIO(data), f"{split}/{label}/{name} of {path}", _SHAPE, on_bad_picture)
        if pixels is not None:
            decoded[split].append((label, name, pixels))
    for split, pictures in decoded.items():
        if not pictures:
            raise DataError(f"archive {path} holds no {split} pictures; expected {split}/<class>/<picture>.jpg in it")
    classes = tuple(sorted({label for label, _, _ in decoded["train"]}))
    strangers = sorted({label for label, _, _ in decoded["test"]} - set(classes))
    if strangers:
        raise DataError(f"{path} tests class {strangers[0]!r}, which its training pictures lack; repair the archive")

    def stack(split: str) -> ArrayPictures:
        ordered = sorted(decoded[split], key=lambda item: item[:2])
        return ArrayPictures(
            pixels=np.stack([pixels for _, _, pixels in ordered]),
            labels=np.array([classes.index(label) for label, _, _ in ordered], dtype=np.int64),
        )

    return classes, stack("train"), stack("test")


def _read_cache(cache: Path, fingerprint: str) -> _Splits | None:
    """The pictures in a cache; None if it is missing, damaged or made from other pictures."""
    if not cache.exists():
        return None
    try:
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != fingerprint:
                return None
            return (
                tuple(str(name) for name in stored["classes"]),
                ArrayPictures(pixels=stored["train_pixels"], labels=stored["train_labels"]),
                ArrayPictures(pixels=stored["test_pixels"], labels=stored["test_labels"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as cause:
        warnings.warn(f"picture cache {cache} is damaged ({cause}); decoding again", stacklevel=2)
        return None


def _write_cache(cache: Path, fingerprint: str, splits: _Splits) -> None:
    """Writes the pictures and the fingerprint of their source."""
    classes, train, test = splits
    buffer = io.BytesIO()
    np.savez(
        buffer,
        fingerprint=np.array(fingerprint),
        classes=np.array(classes),
        train_pixels=train.pixels,
        train_labels=train.labels,
        test_pixels=test.pixels,
        test_labels=test.labels,
    )
    write_bytes(cache, buffer.getvalue())
