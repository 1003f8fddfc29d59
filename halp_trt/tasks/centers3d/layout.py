"""Frames of points with boxes, in three files of a folder.

``points.npy`` has the points of all frames, ``[N, 3 or more]``: x, y, z, and what else was measured of each.
``offsets.npy`` has one whole number more than there are frames: frame f has the points ``offsets[f]`` up to
``offsets[f + 1]``. ``frames.jsonl`` has a line for each frame: ``{"split": "train" or "test", "boxes": [[class, x, y,
z, length, width, height, yaw], ...]}``, and in ``"frame"`` its name, if it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import ArtefactError, DataError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.store import check_file, parse_json, read_bytes
from halp_trt.tasks.centers3d.objects import Objects

__all__ = ["FARTHEST_M", "Layout", "SpatialSplit", "read_layout"]

_MOST_POINTS_BYTES, _MOST_JSON_BYTES = 2**42, 2 * 1024**3
"""The largest files that are read."""
FARTHEST_M = 1e6
"""The largest number of metres that is taken for one."""
_SPLITS = ("train", "test")
_BOX = "class, x, y, z, length, width, height, yaw"
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpatialSplit:
    """The frames of one split: the number of each in the files, its name, and the objects in it."""

    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    objects: tuple[Objects, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """Frames of points with boxes.

    Attributes:
        points: points of all frames, ``[N, 3 or more]``, read from the file when they are needed.
        offsets: the first point of each frame, and N.
        classes: names of the classes.
        train, test: the two splits.
        digest: SHA-256 of the frames and of the points' number and shape, not of the points themselves.
    """

    points: Array
    offsets: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    train: SpatialSplit
    test: SpatialSplit
    digest: str


def read_layout(path: Path) -> Layout:
    """The frames in a folder.

    Raises:
        DataError: a file is missing, damaged or of another kind, a split is empty, or a box is none.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder; expected one with points.npy, offsets.npy and frames.jsonl")
    points, offsets = _array(path / "points.npy"), _array(path / "offsets.npy")
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != "f":
        raise DataError(
            f"{path / 'points.npy'} has {points.dtype} {points.shape}; expected floating-point points [N, 3 or more]"
        )
    try:
        text = read_bytes(path / "frames.jsonl", _MOST_JSON_BYTES)
    except ArtefactError as error:
        raise DataError(f"the frames of {path} cannot be read: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    starts = _checked(offsets, len(points), len(lines), path / "offsets.npy")
    rows = [_Row.of(line, f"{path / 'frames.jsonl'} in line {number}") for number, line in enumerate(lines, 1)]
    classes = tuple(sorted({name for row in rows for name in row.classes}))
    if not classes:
        raise DataError(f"{path / 'frames.jsonl'} has no box in any frame; expected some to learn from")
    train, test = (_split(rows, name, classes, path) for name in _SPLITS)
    digest = hashlib.sha256(text + starts.tobytes() + repr((points.shape, points.dtype.str)).encode()).hexdigest()
    return Layout(points=points, offsets=starts, classes=classes, train=train, test=test, digest=digest)


def _array(file: Path) -> Array:
    """The array in a file, mapped into memory."""
    try:
        check_file(file, _MOST_POINTS_BYTES)
        return np.lib.format.open_memmap(file, mode="r")
    except ArtefactError as error:
        raise DataError(f"{file.name} of {file.parent} is needed: {error}") from error
    except Exception as cause:  # damaged files fail in many ways
        raise_if_stopped(cause)
        raise DataError(f"{file} is no array ({type(cause).__name__}: {cause}); save it by numpy.save") from cause


def _checked(offsets: Array, num_points: int, num_frames: int, file: Path) -> npt.NDArray[np.int64]:
    """The offsets.

    Raises:
        DataError: they are not the frames' or not the points'.
    """
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise DataError(f"{file} has no list of whole numbers; expected the first point of each frame, and their count")
    if len(offsets) != num_frames + 1:
        raise DataError(
            f"{file} has {len(offsets)} numbers and frames.jsonl {num_frames} lines; expected one more than lines"
        )
    starts = offsets.astype(np.int64)
    if starts[0] != 0 or starts[-1] != num_points or (np.diff(starts) < 0).any():
        raise DataError(
            f"{file} leads from {starts[0]} to {starts[-1]} and points.npy has {num_points}; expected numbers that "
            f"rise from 0 to the number of points"
        )
    return starts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A line of ``frames.jsonl``."""

    name: str
    split: str
    classes: tuple[str, ...]
    boxes: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, line: bytes, place: str) -> _Row:
        """The line as a value.

        Raises:
            DataError: it is none; ``place`` names it.
        """
        try:
            found = parse_json(line)
        except ArtefactError as error:
            raise DataError(f"{place} is no JSON ({error}); mend it") from error
        boxes = found.get("boxes") if isinstance(found, dict) else None
        if not isinstance(boxes, list):
            raise DataError(f'{place} has no list of boxes; expected {{"split": ..., "boxes": [[{_BOX}], ...]}}')
        if found.get("split") not in _SPLITS:
            raise DataError(f"{place} is of the split {str(found.get('split'))[:40]}; expected train or test")
        checked = [_box(one, place) for one in boxes]
        return cls(
            name=str(found.get("frame", place.rpartition(" ")[2]))[:200],
            split=found["split"],
            classes=tuple(name for name, _ in checked),
            boxes=tuple(numbers for _, numbers in checked),
        )


def _box(one: object, place: str) -> tuple[str, tuple[float, ...]]:
    """The class and the seven numbers of a box."""
    shown = f"{place} has the box {str(one)[:80]}"
    if not isinstance(one, list) or len(one) != 8 or not isinstance(one[0], str) or not one[0]:
        raise DataError(f"{shown}; expected [{_BOX}]")
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= FARTHEST_M for n in one[1:]):
        raise DataError(f"{shown}; expected numbers after its class, of metres and radians")
    if min(one[4:7]) <= 0:
        raise DataError(f"{shown}, which is empty; expected a length, a width and a height above 0")
    return one[0], tuple(map(float, one[1:]))


def _split(rows: Sequence[_Row], name: str, classes: Sequence[str], path: Path) -> SpatialSplit:
    numbers = [number for number, row in enumerate(rows) if row.split == name]
    if not numbers:
        raise DataError(f"{path / 'frames.jsonl'} has no frame of the split {name}; expected some of train and of test")
    labels = {one: label for label, one in enumerate(classes)}
    return SpatialSplit(
        numbers=np.asarray(numbers, dtype=np.int64),
        names=tuple(rows[number].name for number in numbers),
        objects=tuple(
            Objects(
                boxes=np.asarray(rows[number].boxes, dtype=np.float64).reshape(-1, 7),
                labels=np.asarray([labels[one] for one in rows[number].classes], dtype=np.int64),
            )
            for number in numbers
        ),
    )
