"""Frames of points: what is read, how they come into pillars, how boxes move with them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from halp_trt.errors import DataError
from halp_trt.tasks.centers3d.change import changed
from halp_trt.tasks.centers3d.grid import PillarGrid, in_pillars
from halp_trt.tasks.centers3d.objects import Objects
from halp_trt.tasks.data import load_data
from tests.tasks.centers3d.scenes import SHAPE, scene, scenes, write

GRID = PillarGrid(x=(0.0, 4.0), y=(-1.0, 1.0), rows=4, columns=2, num_points=2)
PLAIN = np.zeros(2), np.ones(2)


def test_a_folder_is_read(tmp_path: Path) -> None:
    data = load_data(f"radar3d:{scenes(tmp_path)},points=2", input_shape=SHAPE)
    assert (data.classes, data.num_train, data.num_test, data.task) == (("Car", "Cyclist"), 8, 4, "centers3d")
    inputs, targets = data.train_batch([1, 5])
    assert inputs.shape == (2, *SHAPE)
    _, boxes = scene(1)
    np.testing.assert_allclose(targets[0]["boxes"], [box[1:] for box in boxes], rtol=1e-6)
    assert targets[0]["labels"].tolist() == [0, 1]
    assert targets[0]["range"].tolist() == [[0, pytest.approx(-12.8)], [pytest.approx(25.6), pytest.approx(12.8)]]
    assert load_data(f"radar3d:{tmp_path}").input_shape == (9, 512, 128)
    other = load_data(f"radar3d:{tmp_path},points=2,x=0:51.2,y=-25.6:25.6", input_shape=SHAPE)
    assert other.fingerprint != data.fingerprint
    assert other.train.grid.x == (0, 51.2)


def test_points_come_into_the_places_of_their_pillars() -> None:
    points = np.asarray([
        [2.5, -0.5, 3, 1], [2.25, -0.75, 4, 9], [2.75, -0.25, 5, 5],  # one pillar, the weakest has no place
        [0.0, 0.0, 1, 1], [3.999, 0.999, 1, 1],  # corners
        [4.0, 0.0, 1, 1], [-0.1, 0.0, 1, 1], [1.0, 1.0, 1, 1],  # outside
    ])  # fmt: skip
    found = in_pillars(points, GRID, *PLAIN)
    assert found.shape == (8, 8, 2)
    assert found[0].astype(int).tolist() == [[0, 1], [0, 0], [0, 0], [0, 0], [1, 0], [1, 0], [0, 1], [0, 0]]
    assert found[7, 4:6, 0].tolist() == [5, 5], "deviations are cut at 5"
    assert found[6, 4:6, 0].tolist() == [4, 5]
    np.testing.assert_allclose(found[:6, 4, 0], [1, -0.5, -0.5, 0.125, -0.75, np.log(4)], rtol=1e-6)
    assert not found[:, 7].any()
    assert not in_pillars(points[:0], GRID, *PLAIN).any(), "a frame may be empty"
    assert in_pillars(points[:, :3], GRID, np.zeros(1), np.ones(1)).shape == (7, 8, 2), "x, y and z suffice"


def test_numbers_of_points_have_a_mean_of_0_and_a_deviation_of_1(tmp_path: Path) -> None:
    data = load_data(f"radar3d:{scenes(tmp_path)},points=2", input_shape=SHAPE)
    points = np.concatenate([scene(seed)[0] for seed in range(8)])
    np.testing.assert_allclose(data.train.mean, points[:, 2:].mean(axis=0), atol=0.01)
    np.testing.assert_allclose(data.test.deviation, points[:, 2:].std(axis=0), rtol=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_move_with_their_points(seed: int) -> None:
    x, y, yaw = 10.0, 4.0, 0.7
    corners = np.asarray([[2, 1, 0.5], [-2, 1, -0.5], [2, -1, 0.5], [-2, -1, -0.5]])
    forward, left = np.asarray([np.cos(yaw), np.sin(yaw), 0]), np.asarray([-np.sin(yaw), np.cos(yaw), 0])
    places = np.asarray([x, y, 0]) + corners[:, :1] * forward + corners[:, 1:2] * left + corners[:, 2:] * [0, 0, 1]
    points = np.column_stack([places, np.full(4, 7.0)])
    objects = Objects(boxes=np.asarray([[x, y, 0, 4, 2, 1, yaw]]), labels=np.asarray([1]))
    moved, found = changed(points, objects, seed=seed)
    again, _ = changed(points, objects, seed=seed)
    np.testing.assert_array_equal(moved, again)
    assert moved[:, 3].tolist() == [7, 7, 7, 7]
    centre, (length, width, height), turn = found.boxes[0, :3], found.boxes[0, 3:6], found.boxes[0, 6]
    inside = (moved[:, :3] - centre) @ np.asarray(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    np.testing.assert_allclose(np.abs(inside), np.tile([length / 2, width / 2, height / 2], (4, 1)), atol=1e-9)
    assert 0.95 <= length / 4 <= 1.05
    assert abs(np.hypot(*centre[:2]) / np.hypot(x, y) - length / 4) < 1e-9, "turned around the sensor"


def test_frames_change_one_by_one_and_objects_that_leave_are_gone(tmp_path: Path) -> None:
    points, boxes = scene(0)
    edge = [*boxes, ("Car", 12.0, 12.7, -0.8, 4.0, 2.0, 1.8, 0.0), ("Car", 70.0, 0.0, -0.8, 4.0, 2.0, 1.8, 0.0)]
    folder = write(tmp_path, [(points, edge, "train"), (points[:0], [], "train"), (points, edge, "test")])
    data = load_data(f"radar3d:{folder},points=2", input_shape=SHAPE)
    _, targets = data.train_batch([0, 1])
    assert [len(target["boxes"]) for target in targets] == [3, 0], "an empty frame is legal"
    alone, _ = data.train_batch([0], augment_seed=3, epoch_seed=4)
    beside, _ = data.train_batch([1, 0], augment_seed=5, epoch_seed=4)
    assert (alone[0] == beside[1]).all()
    left = {len(data.train_batch([0], augment_seed=seed)[1][0]["boxes"]) for seed in range(12)}
    assert left == {2, 3}


def _frames(change: Callable[[list[dict]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
        change(rows)
        (folder / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return damage


def _box(*box: object) -> Callable[[Path], object]:
    return _frames(lambda rows: rows[1]["boxes"].append(list(box)))


def _array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        found = change(np.load(folder / name))
        (folder / name).unlink()
        np.save(folder / name, found)

    return damage


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no points": (lambda d: (d / "points.npy").unlink(), "points.npy of .* is needed: .*No such file"),
    "no frames": (lambda d: (d / "frames.jsonl").unlink(), "the frames of .* cannot be read"),
    "cut points": (
        lambda d: (d / "points.npy").write_bytes((d / "points.npy").read_bytes()[:999]),
        "points.npy is no array .*save it by numpy.save",
    ),
    "objects": (lambda d: np.save(d / "points.npy", np.asarray([{}], dtype=object)), "points.npy is no array"),
    "flat points": (_array("points.npy", np.ravel), r"has float16 \(\d+,\); expected floating-point points \[N, 3"),
    "whole points": (_array("points.npy", lambda a: a.astype(int)), r"has int64 .*; expected floating-point points"),
    "other offsets": (_array("offsets.npy", lambda a: a[:-1]), "has 12 numbers and frames.jsonl 12 lines"),
    "falling offsets": (_array("offsets.npy", lambda a: a[[0, 2, 1, *range(3, 13)]]), "expected numbers that rise"),
    "short offsets": (_array("offsets.npy", lambda a: a // 2), r"leads from 0 to \d+ and points.npy has \d+"),
    "offsets of floats": (_array("offsets.npy", lambda a: a / 1), "has no list of whole numbers"),
    "no JSON": (lambda d: (d / "frames.jsonl").write_text("{\n" * 12), "frames.jsonl in line 1 is no JSON"),
    "no split": (_frames(lambda rows: rows[2].pop("split")), "in line 3 is of the split None; expected train or test"),
    "no boxes": (_frames(lambda rows: rows[2].pop("boxes")), "in line 3 has no list of boxes"),
    "an empty split": (_frames(lambda rows: [row.update(split="train") for row in rows]), "no frame of the split test"),
    "no objects": (_frames(lambda rows: [row.update(boxes=[]) for row in rows]), "has no box in any frame"),
    "a short box": (_box("Car", 1, 2), r"in line 2 has the box \['Car', 1, 2\]; expected \[class, x, y, z, length"),
    "no class": (_box(3, 1, 2, 3, 4, 5, 6, 7), "expected .class, x"),
    "a box without size": (_box("Car", 1, 2, 3, 0, 1, 1, 0), "which is empty; expected a length"),
    "a word in a box": (_box("Car", 1, "2", 3, 1, 1, 1, 0), "expected numbers after its class, of metres"),
    "a giant": (_box("Car", 10**400, 2, 3, 1, 1, 1, 0), "expected numbers after its class|line 2 is no JSON"),
    "a point that is NaN": (
        _array("points.npy", lambda a: np.where(np.arange(len(a))[:, None] == 3, np.nan, a).astype(np.float16)),
        "frame 000000 has a point that is NaN",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_data_set_is_one_sentence(tmp_path: Path, name: str) -> None:
    damage, sentence = BROKEN[name]
    damage(scenes(tmp_path))
    with pytest.raises(DataError, match=sentence) as caught:
        load_data(f"radar3d:{tmp_path},points=2", input_shape=SHAPE).train_batch([0])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("", "make inputs of 9 channels and 4 rows for each cell forward, and the network's input is 3x32x16; set"),
        (",z=0:1", "has the option 'z=0:1'; expected radar3d:PATH"),
        (",x=0:1,x=0:2", "has the option 'x=0:2'"),
        (",x=5:1", "has the option 'x=5:1'; expected two numbers that rise"),
        (",y=nan:1", "expected two numbers that rise"),
        (",y=0:1e999", "expected two numbers that rise"),
        (",x=1", "expected two numbers that rise"),
        (",points=0", "expected points from 1 to 1024"),
        (",points=two", "expected points from 1 to 1024"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(tmp_path: Path, options: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        load_data(f"radar3d:{scenes(tmp_path)}{options}", input_shape=(3, 32, 16))


def test_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no folder; expected one with points\.npy"):
        load_data(f"radar3d:{tmp_path}/no")
