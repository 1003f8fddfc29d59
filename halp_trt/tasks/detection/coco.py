"""Data in the form of COCO: a folder of pictures, and a JSON file with the boxes of the objects in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from halp_trt.errors import ArtefactError, DataError
from halp_trt.store import parse_json, read_bytes
from halp_trt.tasks.detection.objects import Annotated, Objects, Split

__all__ = ["read_coco"]

_MOST_JSON_BYTES = 2 * 1024**3
"""Largest annotation file; COCO's own of 118,000 pictures has 450 MB."""
_PARTS = ("images", "annotations", "categories")


def read_coco(images: Path, annotations: Path) -> Annotated:
    """The pictures of a folder, and the objects in them by an annotation file.

    Where the file's name has ``train`` in it, the same name with ``val`` is the file of the test split, and its
    pictures are looked for in a folder renamed alike. Without such a partner every fifth picture is tested on.

    Raises:
        DataError: a file or a picture is missing, the file is of another kind, or a box is none.
    """
    partner, beside = _partner(annotations), _partner(images)
    classes, files, objects = _read(images, annotations)
    if partner is None:
        held = [number % 5 == 4 for number in range(len(files))]
        return Annotated(
            classes=classes,
            train=_split(files, objects, [not one for one in held]),
            test=_split(files, objects, held),
        )
    others, test_files, test_objects = _read(beside or images, partner)
    if others != classes:
        raise DataError(f"{partner} has other classes than {annotations}; give both files the same categories")
    return Annotated(
        classes=classes,
        train=Split(files=tuple(files), objects=tuple(objects)),
        test=Split(files=tuple(test_files), objects=tuple(test_objects)),
    )


def _partner(path: Path) -> Path | None:
    """The file or folder of the test split beside one of the training split."""
    other = path.with_name(path.name.replace("train", "val"))
    return other if other != path and other.exists() else None


def _split(files: Sequence[Path], objects: Sequence[Objects], chosen: Sequence[bool]) -> Split:
    return Split(
        files=tuple(file for file, is_in in zip(files, chosen, strict=True) if is_in),
        objects=tuple(one for one, is_in in zip(objects, chosen, strict=True) if is_in),
    )


def _read(images: Path, annotations: Path) -> tuple[tuple[str, ...], list[Path], list[Objects]]:
    """The classes by their numbers, and the pictures in the file's order with the objects in each."""
    if not annotations.is_file() or not images.is_dir():
        missing = annotations if not annotations.is_file() else images
        raise DataError(f"{missing} is not there; expected coco:FOLDER_OF_PICTURES,ANNOTATIONS.json")
    try:
        found = parse_json(read_bytes(annotations, _MOST_JSON_BYTES))
    except ArtefactError as error:
        raise DataError(f"{annotations} is no COCO detection file: {error}; name another, or mend it") from error
    if not isinstance(found, dict) or not all(isinstance(found.get(part), list) for part in _PARTS):
        raise DataError(f"{annotations} is no COCO detection file; expected lists of {', '.join(_PARTS)}")
    categories = sorted(
        (_whole(one, "id", annotations), _text(one, "name", annotations)) for one in found["categories"]
    )
    numbers = {identity: number for number, (identity, _) in enumerate(categories)}
    pictures = {_whole(one, "id", annotations): one for one in found["images"]}
    if not pictures or not categories:
        raise DataError(f"{annotations} names no {'picture' if not pictures else 'category'}; expected some")
    rows: dict[int, list[tuple[list[float], int, bool]]] = {identity: [] for identity in pictures}
    for one in found["annotations"]:
        picture, category = _whole(one, "image_id", annotations), _whole(one, "category_id", annotations)
        if picture not in pictures:
            raise DataError(
                f"{annotations} has an object in picture {picture}, which it does not name; add it to images"
            )
        if category not in numbers:
            raise DataError(f"{annotations} has an object of category {category}, which it does not name; add it")
        rows[picture].append(
            (_box(one, pictures[picture], annotations), numbers[category], bool(one.get("iscrowd", 0)))
        )
    files = [_file(images, one, annotations) for one in pictures.values()]
    objects = [
        Objects.of(*zip(*rows[identity], strict=True)) if rows[identity] else Objects.of([], [], [])
        for identity in pictures
    ]
    return tuple(name for _, name in categories), files, objects


def _file(images: Path, one: Mapping[str, Any], annotations: Path) -> Path:
    name = _text(one, "file_name", annotations)
    path = images / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not path.is_file():
        raise DataError(f"{annotations} names picture {name[:200]!r}, which is not in {images}; add it, or take it out")
    return path


def _box(one: Mapping[str, Any], picture: Mapping[str, Any], annotations: Path) -> list[float]:
    """Left, top, right and bottom, inside the picture."""
    found = one.get("bbox")
    place = f"{annotations} has in annotation {str(one.get('id'))[:20]} the box {str(found)[:80]}"
    numbers = list(found) if isinstance(found, list) else []
    if len(numbers) != 4 or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise DataError(f"{place}; expected left, top, width and height in pixels")
    left, top, wide, high = map(float, numbers)
    if wide <= 0 or high <= 0:
        raise DataError(f"{place}, which is empty; expected a width and a height above 0")
    width, height = (_side(picture, name) for name in ("width", "height"))
    if left >= width or top >= height or left + wide <= 0 or top + high <= 0:
        raise DataError(f"{place}, which is outside its picture of {width:g}x{height:g}; mend it")
    return [max(left, 0.0), max(top, 0.0), min(left + wide, width), min(top + high, height)]


def _side(picture: Mapping[str, Any], name: str) -> float:
    value = picture.get(name)
    return float(value) if isinstance(value, int | float) and value > 0 else math.inf


def _whole(one: object, name: str, annotations: Path) -> int:
    value = one.get(name) if isinstance(one, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(
            f"{annotations} is no COCO detection file: {name} is {str(value)[:40]}, expected a whole number"
        )
    return value


def _text(one: object, name: str, annotations: Path) -> str:
    value = one.get(name) if isinstance(one, dict) else None
    if not isinstance(value, str) or not value:
        raise DataError(f"{annotations} is no COCO detection file: {name} is {str(value)[:40]}, expected a text")
    return value
