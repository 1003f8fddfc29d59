"""Small data sets of pictures with boxes, in VOC's and in COCO's layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

Box = tuple[str, int, int, int, int, bool]
"""Class, left, top, right and bottom (VOC's corners, from 1, inside the box), and whether it is difficult."""


def xml(name: str, boxes: Sequence[Box], size: tuple[int, int] = (40, 30)) -> str:
    objects = "".join(
        f"<object><name>{escape(label)}</name><difficult>{int(hard)}</difficult><bndbox><xmin>{left}</xmin>"
        f"<ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for label, left, top, right, bottom, hard in boxes
    )
    width, height = size
    return (
        f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height></size>"
        f"{objects}</annotation>"
    )


def voc(folder: Path, train: dict[str, Sequence[Box]], test: dict[str, Sequence[Box]]) -> Path:
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, pictures in (("trainval", train), ("test", test)):
        (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{name}\n" for name in pictures))
        for name, boxes in pictures.items():
            (folder / f"Annotations/{name}.xml").write_text(xml(name, boxes))
            picture(boxes).save(folder / f"JPEGImages/{name}.jpg", quality=95)
    return folder


def picture(boxes: Sequence[Box], size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Noise with a bright red square for each box of class ``a``, a blue one for others."""
    random = np.random.default_rng(len(boxes))
    pixels = random.integers(0, 60, (size[1], size[0], 3)).astype(np.uint8)
    for label, left, top, right, bottom, _ in boxes:
        pixels[top - 1 : bottom, left - 1 : right, 0 if label == "a" else 2] = 250
    return Image.fromarray(pixels)


def coco(folder: Path, pictures: dict[str, Sequence[Box]]) -> tuple[Path, Path]:
    images, rows = [], []
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    names = sorted({box[0] for boxes in pictures.values() for box in boxes})
    for number, (name, boxes) in enumerate(pictures.items(), 11):
        picture(boxes).save(folder / f"pictures/{name}.png")
        images.append({"id": number, "file_name": f"{name}.png", "width": 40, "height": 30})
        for label, left, top, right, bottom, crowd in boxes:
            rows.append(
                {
                    "id": len(rows) + 1, "image_id": number, "category_id": 5 * names.index(label) + 2,
                    "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1], "iscrowd": int(crowd),
                }
            )  # fmt: skip
    categories = [{"id": 5 * number + 2, "name": name} for number, name in enumerate(names)]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return folder / "pictures", file
