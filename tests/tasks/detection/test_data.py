"""Pictures with boxes from folders: what is read, how boxes move with their pictures, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halp_trt.errors import DataError
from halp_trt.tasks.data import load_data
from halp_trt.tasks.detection.change import changed
from halp_trt.tasks.detection.objects import Objects
from tests.tasks.detection.folders import coco, picture, voc, xml

TRAIN = {"one": [("a", 1, 1, 10, 10, False)], "two": [("a", 21, 11, 40, 30, False), ("b", 5, 5, 9, 14, True)], "no": []}
TEST = {"three": [("b", 3, 4, 12, 13, False)]}


def test_a_voc_folder_is_read(tmp_path: Path) -> None:
    data = load_data(f"voc:{voc(tmp_path, TRAIN, TEST)}", input_shape=(3, 60, 80))
    assert (data.classes, data.num_train, data.num_test, data.task) == (("a", "b"), 3, 1, "detection")
    assert data.reads_files
    pictures, targets = data.train_batch([1, 2])
    assert pictures.shape == (2, 3, 60, 80)
    assert targets[0]["boxes"].tolist() == [[20, 10, 40, 30], [4, 4, 9, 14]]
    assert targets[0]["labels"].tolist() == [0, 1]
    assert targets[0]["is_ignored"].tolist() == [False, True]
    assert targets[0]["size"].tolist() == [30, 40]
    assert targets[1]["boxes"].shape == (0, 4), "a picture without boxes is legal"


def test_a_coco_file_is_read(tmp_path: Path) -> None:
    pictures, file = coco(tmp_path, {**TRAIN, **TEST, "four": [], "five": [("a", 1, 1, 4, 4, True)]})
    data = load_data(f"coco:{pictures},{file}")
    assert (data.classes, data.num_train, data.num_test, data.task) == (("a", "b"), 5, 1, "coco-detection")
    _, targets = data.train_batch([1])
    assert targets[0]["boxes"].tolist() == [[20, 10, 40, 30], [4, 4, 9, 14]]


def test_a_partner_with_val_in_its_name_is_the_test_split(tmp_path: Path) -> None:
    for split, found in (("train", TRAIN), ("val", {"x": TRAIN["two"]})):
        pictures, file = coco(tmp_path / f"{split}2017", found)
        pictures.rename(tmp_path / f"{split}.pictures")
        file.rename(tmp_path / f"instances_{split}.json")
    data = load_data(f"coco:{tmp_path}/train.pictures,{tmp_path}/instances_train.json")
    assert (data.num_train, data.num_test) == (3, 1)


def test_a_box_is_cut_at_its_pictures_edge(tmp_path: Path) -> None:
    folder = voc(tmp_path, TRAIN, TEST)
    (folder / "Annotations/one.xml").write_text(xml("one", [("a", -3, 5, 90, 90, False)]))
    _, (target,) = load_data(f"voc:{folder}").train_batch([0])
    assert target["boxes"].tolist() == [[0, 4, 40, 30]]


@pytest.mark.parametrize("seed", range(12))
def test_boxes_move_with_their_pictures(seed: int) -> None:
    box = ("a", 11, 6, 30, 25, False)
    found, objects = changed(picture([box]), Objects.of([[10, 5, 30, 25]], [0], [False]), seed=seed)
    again, _ = changed(picture([box]), Objects.of([[10, 5, 30, 25]], [0], [False]), seed=seed)
    assert np.array_equal(np.asarray(found), np.asarray(again)), "a pure function of the seed"
    assert len(objects.boxes) <= 1
    if not len(objects.boxes):
        return
    left, top, right, bottom = objects.boxes[0].round().astype(int)
    inside = np.asarray(found).astype(int)[top + 1 : bottom - 1, left + 1 : right - 1]
    spread = inside.max(axis=2) - inside.min(axis=2)
    assert np.median(spread) > 60, "the box holds the coloured square, whatever became of its colour"
    outside = np.asarray(found).astype(int).copy()
    outside[top:bottom, left:right] = 0
    assert (outside.max(axis=2) - outside.min(axis=2) > 150).mean() < 0.02, "and nothing of it is outside"


def _broken_voc(change: Callable[[Path], Any]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        change(voc(folder, TRAIN, TEST))
        return f"voc:{folder}"

    return make


def _broken_coco(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        pictures, file = coco(folder, TRAIN)
        found = json.loads(file.read_text())
        change(found)
        file.write_text(json.dumps(found))
        return f"coco:{pictures},{file}"

    return make


def _box(*corners: int | str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "Annotations/one.xml").write_text(xml("one", [("a", *corners, False)]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_broken_voc(lambda d: (d / "JPEGImages/one.jpg").unlink()), "annotation one.xml has no picture in"),
        (_broken_voc(lambda d: (d / "Annotations/one.xml").unlink()), "one.xml is missing; add it"),
        (_broken_voc(lambda d: (d / "Annotations/one.xml").write_text("<a>")), "one.xml is no XML"),
        (_broken_voc(lambda d: (d / "ImageSets/Main/test.txt").write_text("\n")), "test.txt names no picture"),
        (_broken_voc(lambda d: (d / "ImageSets/Main/trainval.txt").unlink()), "has none of trainval.txt, train.txt"),
        (_broken_voc(_box(9, 1, 5, 5)), "whose box xmin=9 ymin=1 xmax=5 ymax=5 is empty"),
        (_broken_voc(_box(41, 1, 45, 5)), "is outside its picture of 40x30"),
        (_broken_voc(_box(1, 1, "nan", 5)), "one.xml has 'nan' for xmax; expected a number of pixels"),
        (_broken_voc(lambda d: (d / "JPEGImages/one.jpg").write_text("no picture")), "one.jpg cannot be read"),
        (lambda d: f"voc:{d}", "has no ImageSets/Main"),
        (lambda d: f"coco:{d}", "names no annotation file"),
        (lambda d: f"coco:{d},{d}/x.json", "x.json is not there"),
        (_broken_coco(lambda f: f.pop("images")), "is no COCO detection file; expected lists of images"),
        (_broken_coco(lambda f: f["annotations"][0].update(bbox=[1, 1, 0, 5])), "which is empty"),
        (_broken_coco(lambda f: f["annotations"][0].update(bbox=[90, 1, 2, 5])), "which is outside its picture"),
        (_broken_coco(lambda f: f["annotations"][0].update(bbox="x")), "expected left, top, width and height"),
        (_broken_coco(lambda f: f["annotations"][0].update(category_id=77)), "of category 77, which it does not name"),
        (_broken_coco(lambda f: f["annotations"][0].update(image_id=77)), "in picture 77, which it does not name"),
        (_broken_coco(lambda f: f["images"][0].update(file_name="../../etc/passwd")), "which is not in"),
        (_broken_coco(lambda f: f["images"][0].update(id="1")), "id is 1, expected a whole number"),
        (_broken_coco(lambda f: f["images"].clear()), "names no picture; expected some"),
        (_broken_coco(lambda f: f["categories"].clear()), "names no category; expected some"),
        (_broken_coco(lambda f: f.update(categories=None)), "is no COCO detection file"),  # captions
        (_broken_coco(lambda f: f["annotations"][0].pop("bbox")), "the box None; expected left, top"),  # key points
        (_broken_coco(lambda f: f["annotations"][0].pop("category_id")), "category_id is None, expected"),  # panoptic
        (_broken_coco(lambda f: f["annotations"][0].update(bbox=[0, 0, math.nan, 5])), "is no COCO detection file: "),
        (_broken_coco(lambda f: None), "needs training and test pictures, got 3 and 0"),
    ],
)  # fmt: skip
def test_what_is_no_such_data_set_is_one_sentence(make: Callable[[Path], str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence.replace("(", r"\(")) as error:
        load_data(make(tmp_path)).train_batch([0])
    assert len(str(error.value).splitlines()) == 1
