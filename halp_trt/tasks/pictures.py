"""Pictures of a split, in memory or as files decoded on demand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from halp_trt.errors import DataError, EmptyBatchError, ShareWarning
from halp_trt.interrupts import raise_if_stopped
from halp_trt.tasks.preparation import PLAIN, Preparation, as_pixels, fitted
from halp_trt.texts import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

__all__ = [
    "ArrayPictures",
    "ChangingPictures",
    "DrawnPictures",
    "FilePictures",
    "FolderPictures",
    "Inputs",
    "OnBadPicture",
    "Pictures",
    "check_any",
    "decode",
    "decode_or_skip",
    "in_memory",
    "opened_or_skipped",
]

Inputs = npt.NDArray[Any]
"""uint8 pixels, or float32 numbers as the network reads them."""
OnBadPicture = Literal["refuse", "skip"]
"""The treatment of a picture that cannot be decoded: an error, or left out with a warning."""


class Pictures(Protocol):
    """The pictures of one split, and their targets."""

    def __len__(self) -> int:
        """Number of pictures."""

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[Inputs, Any]:
        """Returns the pixels ``[N, C, H, W]`` of these pictures, and their targets: arrays, or containers of arrays."""


@runtime_checkable
class FilePictures(Pictures, Protocol):
    """Pictures that are decoded from files on every read."""

    @property
    def files(self) -> Sequence[Path]:
        """Path of each picture."""


@runtime_checkable
class DrawnPictures(Pictures, Protocol):
    """Pictures that change at random one by one, each by a seed of its own, whatever else is in the batch."""

    def draw(self, indices: Sequence[int] | npt.NDArray[np.int64], seeds: Sequence[int]) -> tuple[Inputs, Any]:
        """Returns what ``read`` does, each picture changed as its seed says."""


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
        preparation: the way to that shape.
    """

    files: Sequence[Path]
    labels: npt.NDArray[np.int64]
    shape: tuple[int, int, int]
    on_bad_picture: OnBadPicture = "refuse"
    preparation: Preparation = PLAIN

    def __len__(self) -> int:
        return len(self.files)

    def read(
        self, indices: Sequence[int] | npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The pixels ``[N, C, H, W]`` and labels ``[N]``; skipped pictures make N smaller than asked for.

        Raises:
            DataError: a picture cannot be decoded and ``on_bad_picture`` is ``refuse``.
            EmptyBatchError: none of the batch can be decoded.
        """
        return self._read(indices, [self._fit] * len(indices))

    def _fit(self, picture: Image.Image) -> npt.NDArray[np.uint8]:
        return as_pixels(fitted(picture, self.shape[1:], self.preparation))

    def _read(
        self,
        indices: Sequence[int] | npt.NDArray[np.int64],
        prepare: Sequence[Callable[[Image.Image], npt.NDArray[np.uint8]]],
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The pixels and labels of pictures that can be decoded, each prepared by its own function."""
        pixels, labels = [], []
        for index, bring in zip(indices, prepare, strict=True):
            path = self.files[index]
            picture = opened_or_skipped(path, str(path), self.shape[0], self.on_bad_picture)
            if picture is not None:
                pixels.append(bring(picture))
                labels.append(self.labels[index])
        check_any(pixels, indices, self.files)
        return np.stack(pixels), np.asarray(labels, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChangingPictures(FolderPictures):
    """Pictures decoded from their files on every read, and changed at random for training, each by its own seed."""

    def draw(
        self, indices: Sequence[int] | npt.NDArray[np.int64], seeds: Sequence[int]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The pixels and labels as ``read`` gives them, each picture changed by ``preparation``.

        Raises:
            DataError: as ``read``.
        """
        change, size = self.preparation.change, self.shape[1:]
        return self._read(indices, [partial(change, size=size, how=self.preparation, seed=seed) for seed in seeds])


def check_any(found: Sequence[object], indices: Sequence[int] | npt.NDArray[np.int64], files: Sequence[Path]) -> None:
    """Refuses a batch of which no picture is left.

    Args:
        found: its pictures that can be read.
        indices: numbers of all its pictures.
        files: path of each picture.

    Raises:
        EmptyBatchError: none can be read.
    """
    if not found:
        raise EmptyBatchError(
            f"none of the {counted(len(indices), 'picture')} of a batch can be read, the first is "
            f"{files[indices[0]]}; replace the files"
        )


def decode(source: Path | IO[bytes], name: str, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """One picture as uint8 ``[C, H, W]``, resized to cover ``shape`` and cropped in the centre.

    Args:
        source: an encoded picture.
        name: its name in errors.
        shape: 1 (grey) or 3 (RGB) channels, height and width.

    Raises:
        DataError: the picture cannot be decoded.
    """
    return as_pixels(fitted(_opened(source, name, shape[0]), shape[1:], PLAIN))


def _opened(source: Path | IO[bytes], name: str, channels: int) -> Image.Image:
    """One picture, decoded, of 8 bits and 1 (grey) or 3 (RGB) channels.

    Raises:
        DataError: the picture cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(source) as opened:
            return _eight_bit(opened).convert("L" if channels == 1 else "RGB")
    except Exception as cause:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error ...
        raise_if_stopped(cause)
        raise DataError(
            f"picture {name} cannot be read ({type(cause).__name__}: {cause}); replace it, or skip bad pictures"
        ) from cause


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
    picture = opened_or_skipped(source, name, shape[0], on_bad_picture)
    return None if picture is None else as_pixels(fitted(picture, shape[1:], PLAIN))


def opened_or_skipped(
    source: Path | IO[bytes], name: str, channels: int, on_bad_picture: OnBadPicture
) -> Image.Image | None:
    """One picture, decoded, grey or RGB; None, after a warning that names it, if it is bad and to be skipped.

    Raises:
        DataError: the picture cannot be decoded and ``on_bad_picture`` is ``refuse``.
    """
    try:
        return _opened(source, name, channels)
    except DataError as bad:
        if on_bad_picture == "refuse":
            raise
        warnings.warn(f"skipped: {bad}", ShareWarning, stacklevel=2)
        return None


def in_memory(pictures: FolderPictures) -> ArrayPictures:
    """Decodes all pictures at once and returns them in memory.

    Raises:
        DataError: as :meth:`FolderPictures.read`.
    """
    if not pictures.files:
        return ArrayPictures(pixels=np.zeros((0, *pictures.shape), np.uint8), labels=np.zeros(0, np.int64))
    pixels, labels = pictures.read(range(len(pictures)))
    return ArrayPictures(pixels=pixels, labels=labels)
