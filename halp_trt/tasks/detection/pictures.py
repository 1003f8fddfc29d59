"""Pictures with boxes, read from files on demand and brought to the network's input size, boxes and all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from halp_trt.tasks.detection.change import changed
from halp_trt.tasks.detection.objects import Objects, Split
from halp_trt.tasks.pictures import OnBadPicture, check_any, opened_or_skipped
from halp_trt.tasks.preparation import as_pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["BoxPictures", "Target"]

Target = Mapping[str, npt.NDArray[Any]]
"""The objects of a picture: ``boxes`` float32 ``[n, 4]`` in pixels of the picture as it was before it was resized,
``labels`` int64 ``[n]``, ``is_ignored`` bool ``[n]``, and ``size``, int64, that picture's height and width."""
Change = Callable[["Image.Image", Objects], "tuple[Image.Image, Objects]"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoxPictures:
    """Pictures decoded from their files on every read; each is resized as a whole, its proportions are not kept.

    Attributes:
        split: the files, and the objects in each.
        shape: channels, height and width that every picture is brought to.
        on_bad_picture: ``refuse`` if a file that cannot be decoded is an error, ``skip`` if it is left out of its batch
            with a warning.
    """

    split: Split
    shape: tuple[int, int, int]
    on_bad_picture: OnBadPicture = "refuse"

    @property
    def files(self) -> Sequence[Path]:
        """Path of each picture."""
        return self.split.files

    def __len__(self) -> int:
        return len(self.split.files)

    def read(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.uint8], list[Target]]:
        """The pixels ``[N, C, H, W]`` and the targets; skipped pictures make N smaller than asked for.

        Raises:
            DataError: a picture cannot be decoded and ``on_bad_picture`` is ``refuse``.
            EmptyBatchError: none of the batch can be decoded.
        """
        return self._read(indices, [_as_it_is] * len(indices))

    def draw(
        self, indices: Sequence[int] | npt.NDArray[np.int64], seeds: Sequence[int]
    ) -> tuple[npt.NDArray[np.uint8], list[Target]]:
        """The pixels and targets as ``read`` gives them, each picture changed as its seed says, its boxes with it."""
        return self._read(indices, [partial(changed, seed=seed) for seed in seeds])

    def _read(
        self, indices: Sequence[int] | npt.NDArray[np.int64], changes: Sequence[Change]
    ) -> tuple[npt.NDArray[np.uint8], list[Target]]:
        pixels, targets = [], []
        for index, change in zip(indices, changes, strict=True):
            path = self.files[index]
            picture = opened_or_skipped(path, str(path), self.shape[0], self.on_bad_picture)
            if picture is None:
                continue
            picture, objects = change(picture, self.split.objects[index])
            targets.append(_target(picture, objects))
            pixels.append(as_pixels(_resized(picture, self.shape[1:])))
        check_any(pixels, indices, self.files)
        return np.stack(pixels), targets


def _as_it_is(picture: Image.Image, objects: Objects) -> tuple[Image.Image, Objects]:
    return picture, objects


def _target(picture: Image.Image, objects: Objects) -> Target:
    return {
        "boxes": objects.boxes.astype(np.float32),
        "labels": objects.labels,
        "is_ignored": objects.is_ignored,
        "size": np.asarray([picture.height, picture.width], dtype=np.int64),
    }


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    height, width = size
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.BILINEAR)
