"""Pictures with a class for every pixel, in PASCAL VOC's layout or in folders of pictures and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from halp_trt.errors import DataError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.store import read_text
from halp_trt.tasks import SEGMENTATION
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import OnBadPicture, check_any, opened_or_skipped
from halp_trt.tasks.preparation import as_pixels

if TYPE_CHECKING:
    from PIL import Image

    from halp_trt.tasks.source import SourceOptions

__all__ = ["IGNORED", "MaskedPictures", "load_masks"]

IGNORED = 255
"""The value of pixels that do not count."""
_SHAPE = (3, 320, 320)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedPictures:
    """Pictures and their masks, decoded on every read and resized as a whole; half of those for training are flipped.

    Attributes:
        files, masks: paths of the pictures, and of the PNG masks, whose values are classes.
        shape: channels, height and width that they are brought to.
        on_bad_picture: ``refuse`` or ``skip``.
    """

    files: Sequence[Path]
    masks: Sequence[Path]
    shape: tuple[int, int, int]
    on_bad_picture: OnBadPicture = "refuse"

    def __len__(self) -> int:
        return len(self.files)

    def read(
        self, indices: Sequence[int] | npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The pixels ``[N, C, H, W]`` and the classes ``[N, H, W]``; skipped pictures make N smaller.

        Raises:
            DataError: a picture or a mask cannot be decoded and ``on_bad_picture`` is ``refuse``.
            EmptyBatchError: none of the batch can be decoded.
        """
        return self._read(indices, [False] * len(indices))

    def draw(
        self, indices: Sequence[int] | npt.NDArray[np.int64], seeds: Sequence[int]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """The pixels and classes as ``read`` gives them, each picture flipped or not, as its seed says."""
        return self._read(indices, [bool(np.random.default_rng(seed).integers(2)) for seed in seeds])

    def _read(
        self, indices: Sequence[int] | npt.NDArray[np.int64], is_flipped: Sequence[bool]
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        from PIL import Image

        pixels, classes = [], []
        size = (self.shape[2], self.shape[1])
        for index, flip in zip(indices, is_flipped, strict=True):
            path = self.files[index]
            picture = opened_or_skipped(path, str(path), self.shape[0], self.on_bad_picture)
            if picture is None:
                continue
            mask = _mask(self.masks[index], picture.size)
            one = as_pixels(picture.resize(size, Image.Resampling.BILINEAR))
            found = np.asarray(mask.resize(size, Image.Resampling.NEAREST))
            pixels.append(one[:, :, ::-1] if flip else one)
            classes.append(found[:, ::-1] if flip else found)
        check_any(pixels, indices, self.files)
        return np.stack(pixels), np.stack(classes)


def _mask(path: Path, size: tuple[int, int]) -> Image.Image:
    """A mask as classes.

    Raises:
        DataError: it cannot be decoded, has colours instead of classes, or another size than its picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.load()
            found = opened.copy()
    except Exception as cause:
        raise_if_stopped(cause)
        raise DataError(f"mask {path} cannot be read ({type(cause).__name__}: {cause}); replace it") from cause
    if found.mode not in ("L", "P", "1"):
        raise DataError(f"mask {path} has colours ({found.mode}), expected a PNG whose values are classes")
    if found.size != size:
        raise DataError(
            f"mask {path} has {found.size[0]}x{found.size[1]} pixels and its picture {size[0]}x{size[1]}; resize it"
        )
    return found


def load_masks(reading: SourceOptions) -> DataSet:
    """The data set of a folder in VOC's layout (``ImageSets/Segmentation``, ``JPEGImages``, ``SegmentationClass``).

    The classes are the values in the masks of both splits: 0 to the largest but 255, or the names in ``classes.txt``.

    Raises:
        DataError: a list, a picture or a mask is missing or damaged, or a list is empty.
    """
    path = reading.path
    splits = [_split(path, names) for names in (("trainval", "train"), ("test", "val"))]
    if splits[1][2] == "val" and splits[0][2] == "trainval" and (path / "ImageSets/Segmentation/train.txt").is_file():
        splits[0] = _split(path, ("train",))
    shape = reading.input_shape or _SHAPE
    classes = _classes(path, [mask for _, masks, _ in splits for mask in masks])
    train, test = (
        MaskedPictures(files=files, masks=masks, shape=shape, on_bad_picture=reading.on_bad_picture)
        for files, masks, _ in splits
    )
    is_grey = shape[0] == 1
    return DataSet(
        name=f"masks:{path}",
        train=train,
        test=test,
        classes=classes,
        input_shape=shape,
        mean=(sum(_MEAN) / 3,) if is_grey else _MEAN,
        std=(sum(_STD) / 3,) if is_grey else _STD,
        task=SEGMENTATION,
        fingerprint=""
        if reading.is_glance
        else _fingerprint(classes, [*train.files, *train.masks, *test.files, *test.masks]),
    )


def _split(path: Path, names: Sequence[str]) -> tuple[list[Path], list[Path], str]:
    """The pictures, the masks and the name of the first list that is there."""
    lists = path / "ImageSets" / "Segmentation"
    name = next((name for name in names if (lists / f"{name}.txt").is_file()), None)
    if name is None:
        raise DataError(f"{lists} has none of {', '.join(f'{one}.txt' for one in names)}; add the list of pictures")
    stems = [line.strip() for line in read_text(lists / f"{name}.txt").splitlines() if line.strip()]
    if not stems:
        raise DataError(f"{lists / name}.txt names no picture; expected one name in a line")
    files, masks = [], []
    for stem in stems:
        found = next(
            (path / f"JPEGImages/{stem}{end}" for end in _PICTURES if (path / f"JPEGImages/{stem}{end}").is_file()),
            None,
        )
        mask = path / f"SegmentationClass/{stem}.png"
        if found is None or not mask.is_file():
            missing = mask if found is not None else path / f"JPEGImages/{stem}.jpg"
            raise DataError(f"{missing} is missing, and {lists / name}.txt names it; add it, or take it off the list")
        files.append(found)
        masks.append(mask)
    return files, masks, name


def _classes(path: Path, masks: Sequence[Path]) -> tuple[str, ...]:
    """The names of the classes."""
    told = path / "classes.txt"
    if told.is_file():
        return tuple(line.strip() for line in read_text(told).splitlines() if line.strip())
    from PIL import Image

    largest = 0
    for mask in masks:
        with Image.open(mask) as opened:
            values = np.unique(np.asarray(opened))
        largest = max(largest, int(values[values != IGNORED].max(initial=0)))
    return tuple(map(str, range(largest + 1)))


def _fingerprint(classes: Sequence[str], files: Sequence[Path]) -> str:
    return hashlib.sha256(repr((classes, [(file.name, file.stat().st_size) for file in files])).encode()).hexdigest()
