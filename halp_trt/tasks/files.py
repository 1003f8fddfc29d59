"""Names of picture files, held in few bytes, and the layout of folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from halp_trt.errors import DataError
from halp_trt.training.batches import Indices

__all__ = ["Files", "find_pictures", "scan_folder"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings of files that are pictures."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Files(Sequence[Path]):
    """Paths in a folder, as one text and its marks: a million take 50 MB, and workers share them with their parent.

    Attributes:
        folder: the folder.
        text: the paths below it, one after the other, as the file system encodes them.
        ends: end of each in the text.
    """

    folder: Path
    text: bytes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, names: Iterable[str]) -> Files:
        """The files of these names, each a path below the folder."""
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(folder=folder, text=b"".join(encoded), ends=ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Files: ...

    def __getitem__(self, index: int | slice) -> Path | Files:
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self.folder / self.name(range(len(self))[index])

    def name(self, index: int) -> str:
        """The path of a file below the folder, with slashes."""
        return os.fsdecode(self.text[self.ends[index - 1] if index else 0 : self.ends[index]])

    def take(self, indices: Indices) -> Files:
        """The files of these numbers."""
        return Files.of(self.folder, (self.name(int(index)) for index in indices))


def find_pictures(folder: Path) -> list[str]:
    """The pictures below a folder, as paths from it, in the order of their parts."""
    return sorted(_pictures(str(folder), ""), key=lambda name: name.split("/"))


def _pictures(folder: str, above: str) -> Iterator[str]:
    """Yields the pictures below a folder; folders that are links are left alone."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _pictures(entry.path, f"{above}{entry.name}/")
            elif os.path.splitext(entry.name)[1].lower() in _SUFFIXES and entry.is_file():
                yield above + entry.name


def scan_folder(
    folder: Path, classes: Sequence[str] | None = None
) -> tuple[tuple[str, ...], Files, npt.NDArray[np.int64]]:
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
    found = {name: find_pictures(folder / name) if name in names else [] for name in known}
    files = Files.of(folder, (f"{name}/{picture}" for name, pictures in found.items() for picture in pictures))
    if not files:
        raise DataError(
            f"data folder {folder} holds no picture; expected {folder}/<class>/<picture>.jpg, or pictures:{folder} for "
            f"pictures without classes"
        )
    empty = [name for name, pictures in found.items() if not pictures]
    if empty and classes is None:
        warnings.warn(
            f"class folder {folder / empty[0]} holds no picture; the network gets a class that is never seen",
            stacklevel=2,
        )
    return known, files, np.repeat(np.arange(len(known)), [len(pictures) for pictures in found.values()])
