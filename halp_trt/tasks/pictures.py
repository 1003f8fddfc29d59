"""Pictures of a split, in memory or as files decoded on demand, and the layout of folders."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from halp_trt.errors import DataError
from halp_trt.interrupts import raise_if_stopped

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ArrayPictures", "FolderPictures", "OnBadPicture", "Pictures", "decode", "in_memory", "scan_folder"]

OnBadPicture = Literal["refuse", "skip"]
"""The treatment of a picture that cannot be decoded: an error, or left out with a warning."""
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings of files that are pictures."""


class Pictures(Protocol):
    """The pictures of one split, and their targets."""

    def __len__(self) -> int:
        """Number of pictures."""

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], Any]:
        """Returns the pixels ``[N, C, H, W]`` of these pictures, and their targets: arrays, or containers of arrays."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayPictures:
    """Pictures in memory.

    Attributes:
        pixels: uint8 ``[N, C, H, W]``.
        labels: label of each picture: int64 classes ``[N]``, or ``[N, ...]`` for another task.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or self.labels.shape[:1] != self.pixels.shape[:1]:
            raise DataError(
                f"pictures must be uint8 [N, C, H, W] with N labels, got {self.pixels.dtype} {self.pixels.shape} and "
                f"labels {self.labels.shape}; convert them first"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
        """The pixels ``[N, C, H, W]`` and labels ``[N, ...]`` of these pictures."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self.pixels[chosen], self.labels[chosen]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderPictures:
    """Pictures decoded from their files on every read.

    Attributes:
        files: path of each picture.
        labels: class of each picture, int64 ``[N]``.
        shape: channels, height and width that every picture is brought to.
        on_bad_picture: ``refuse`` if a file that cannot be decoded is an error, ``skip`` if it is left out of its batch
            with a warning.
    """

    files: tuple[Path, ...]
    labels: npt.NDArray[np.int64]
    shape: tuple[int, int, int]
    on_bad_picture: OnBadPicture = "refuse"

    def __len__(self) -> int:
        return len(self.files)

    def read(
        self, indices: Sequence[int] | npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The pixels ``[N, C, H, W]`` and labels ``[N]``; skipped pictures make N smaller than asked for.

        Raises:
            DataError: a picture cannot be decoded and ``on_bad_picture`` is ``refuse``, or none of the batch can.
        """
        pixels, labels = [], []
        for index in indices:
            picture = decode_or_skip(self.files[index], str(self.files[index]), self.shape, self.on_bad_picture)
            if picture is not None:
                pixels.append(picture)
                labels.append(self.labels[index])
        if not pixels:
            raise DataError(
                f"none of the {len(indices)} pictures of a batch can be read, the first is {self.files[indices[0]]}; "
                f"replace the files"
            )
        return np.stack(pixels), np.asarray(labels, dtype=np.int64)


def decode(source: Path | IO[bytes], name: str, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """One picture as uint8 ``[C, H, W]``, resized to cover ``shape`` and cropped in the centre.

    Args:
        source: an encoded picture.
        name: its name in errors.
        shape: 1 (grey) or 3 (RGB) channels, height and width.

    Raises:
        DataError: the picture cannot be decoded.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(source) as opened:
            picture = _eight_bit(opened).convert("L" if shape[0] == 1 else "RGB")
    except Exception as cause:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error ...
        raise_if_stopped(cause)
        raise DataError(
            f"picture {name} cannot be read ({type(cause).__name__}: {cause}); replace it, or skip bad pictures"
        ) from cause
    size = (shape[2], shape[1])
    if picture.size != size:
        picture = ImageOps.fit(picture, size, method=Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if shape[0] == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bit(picture: Image.Image) -> Image.Image:
    """The picture at 8 bits or fewer per channel; Pillow itself would clip 16 bits at 255, almost all of it to white.

    Raises:
        ValueError: the pixels are 32-bit numbers, of unknown range.
    """
    from PIL import Image

    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {picture.mode}), expected 8 or 16 bits")
    return picture


def decode_or_skip(
    source: Path | IO[bytes], name: str, shape: tuple[int, int, int], on_bad_picture: OnBadPicture
) -> npt.NDArray[np.uint8] | None:
    """One picture as :func:`decode` gives it; None, after a warning that names it, if it is bad and to be skipped.

    Raises:
        DataError: the picture cannot be decoded and ``on_bad_picture`` is ``refuse``.
    """
    try:
        return decode(source, name, shape)
    except DataError as bad:
        if on_bad_picture == "refuse":
            raise
        warnings.warn(f"skipped: {bad}", stacklevel=2)
        return None


def scan_folder(folder: Path, classes: Sequence[str] | None = None) -> tuple[tuple[str, ...], list[Path], list[int]]:
    """The classes, files and labels of a folder with one sub-folder of pictures per class, in sorted order.

    Args:
        folder: the folder of the class folders.
        classes: the known classes; None takes the folders' names.

    Raises:
        DataError: the folder is missing, holds no picture, or holds an unknown class.
    """
    if not folder.is_dir():
        raise DataError(f"data folder {folder} does not exist; give a folder with one sub-folder of pictures per class")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    known = tuple(classes) if classes is not None else tuple(names)
    strangers = sorted(set(names) - set(known))
    if strangers:
        raise DataError(f"{folder} holds class {strangers[0]!r}, which the training pictures lack; remove or rename it")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(known):
        paths = sorted(
            path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
        )
        files.extend(paths)
        labels.extend([label] * len(paths))
    if not files:
        raise DataError(f"data folder {folder} holds no picture; expected {folder}/<class>/<picture>.jpg")
    empty = [name for label, name in enumerate(known) if label not in set(labels)]
    if empty and classes is None:
        warnings.warn(
            f"class folder {folder / empty[0]} holds no picture; the network gets a class that is never seen",
            stacklevel=2,
        )
    return known, files, labels


def in_memory(pictures: FolderPictures) -> ArrayPictures:
    """Decodes all pictures at once and returns them in memory.

    Raises:
        DataError: as :meth:`FolderPictures.read`.
    """
    if not pictures.files:
        return ArrayPictures(pixels=np.zeros((0, *pictures.shape), np.uint8), labels=np.zeros(0, np.int64))
    pixels, labels = pictures.read(range(len(pictures)))
    return ArrayPictures(pixels=pixels, labels=labels)
