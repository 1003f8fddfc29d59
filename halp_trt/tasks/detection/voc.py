"""Data in the layout of PASCAL VOC: ``Annotations/*.xml``, ``ImageSets/Main/*.txt`` and ``JPEGImages/``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halp_trt.errors import DataError
from halp_trt.store import read_bytes, read_text
from halp_trt.tasks.detection.objects import Annotated, Objects, Split

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["read_voc"]

_MOST_XML_BYTES = 16 * 1024**2
_TRAIN, _TEST = ("trainval", "train"), ("test", "val")
"""Names of the lists of pictures, the first that is there is taken."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


def read_voc(path: Path) -> Annotated:
    """The pictures and objects of a folder.

    It trains on ``trainval.txt``, or ``train.txt`` without it, and tests on ``test.txt``; where that is missing on
    ``val.txt``, and trains on ``train.txt``.

    Raises:
        DataError: a list, an annotation or a picture is missing or damaged, a list is empty, or a box is none.
    """
    lists = path / "ImageSets" / "Main"
    if not lists.is_dir():
        raise DataError(
            f"{path} has no ImageSets/Main; expected a folder in VOC's layout, with the lists of pictures in it"
        )
    test = _first(lists, _TEST)
    train = _first(lists, _TRAIN if test.stem == "test" else _TRAIN[1:])
    train_names, test_names = _names(train), _names(test)
    train_rows, test_rows = ([_annotation(path, name) for name in names] for names in (train_names, test_names))
    classes = tuple(sorted({name for rows in (train_rows, test_rows) for _, found in rows for name, _, _ in found}))
    numbers = {name: number for number, name in enumerate(classes)}
    return Annotated(classes=classes, train=_split(train_rows, numbers), test=_split(test_rows, numbers))


def _first(lists: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (lists / f"{name}.txt").is_file():
            return lists / f"{name}.txt"
    raise DataError(f"{lists} has none of {', '.join(f'{name}.txt' for name in names)}; add the list of pictures")


def _names(path: Path) -> list[str]:
    """The names in a list; VOC's lists for one class have a second word in each line."""
    names = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path} names no picture; expected one name in a line")
    return names


def _annotation(path: Path, name: str) -> tuple[Path, list[tuple[str, list[float], bool]]]:
    """The picture of a name, and the class, the box and the difficulty of each object in it."""
    file = path / "Annotations" / f"{name}.xml"
    root = _parsed(file)
    picture = _picture(path, name, root)
    size = root.find("size")
    width, height = (_number(size, side, file) if size is not None else math.inf for side in ("width", "height"))
    return picture, [_object(one, file, width or math.inf, height or math.inf) for one in root.iter("object")]


def _parsed(file: Path) -> Element:
    from xml.etree import ElementTree
    from xml.parsers import expat

    if not file.is_file():
        raise DataError(f"annotation {file} is missing; add it, or take its picture off the list")
    try:
        return ElementTree.fromstring(read_bytes(file, _MOST_XML_BYTES))
    except (ElementTree.ParseError, expat.ExpatError, ValueError) as error:
        raise DataError(f"annotation {file} is no XML ({error}); mend it") from error


def _picture(path: Path, name: str, root: Element) -> Path:
    """The file of a picture: by the list's name, else as the annotation names it."""
    folder = path / "JPEGImages"
    for suffix in _SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    told = Path(root.findtext("filename", "").strip()).name
    if told and (folder / told).is_file():
        return folder / told
    raise DataError(f"annotation {name}.xml has no picture in {folder}; add {name}.jpg, or take it off the list")


def _object(one: Element, file: Path, width: float, height: float) -> tuple[str, list[float], bool]:
    name = one.findtext("name", "").strip()
    if not name:
        raise DataError(f"{file} has an object without a name; add its class")
    box = one.find("bndbox")
    if box is None:
        raise DataError(f"{file} has a {name!r} without a box; add its bndbox")
    left, top, right, bottom = (_number(box, side, file) for side in ("xmin", "ymin", "xmax", "ymax"))
    found = [left - 1, top - 1, right, bottom]
    if not (right >= left and bottom >= top):
        raise DataError(f"{file} has a {name!r} whose box {_words(box)} is empty; expected xmin <= xmax, ymin <= ymax")
    if found[0] >= width or found[1] >= height or found[2] <= 0 or found[3] <= 0:
        raise DataError(f"{file} has a {name!r} whose box {_words(box)} is outside its picture of {width:g}x{height:g}")
    clipped = [max(found[0], 0.0), max(found[1], 0.0), min(found[2], width), min(found[3], height)]
    return name, clipped, one.findtext("difficult", "0").strip() == "1"


def _number(parent: Element, name: str, file: Path) -> float:
    text = parent.findtext(name, "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file} has {text!r} for {name}; expected a number of pixels")
    return value


def _words(box: Any) -> str:
    return " ".join(f"{child.tag}={(child.text or '').strip()[:12]}" for child in list(box)[:4])


def _split(rows: Sequence[tuple[Path, list[tuple[str, list[float], bool]]]], numbers: dict[str, int]) -> Split:
    return Split(
        files=tuple(picture for picture, _ in rows),
        objects=tuple(
            Objects.of([box for _, box, _ in found], [numbers[name] for name, _, _ in found], [d for *_, d in found])
            for _, found in rows
        ),
    )
