"""Small frames of points with cars and cyclists in them, and a small network of pillars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from halp_trt.models.detection.pillars import PillarNet

Box = tuple[str, float, float, float, float, float, float, float]
"""Class, x, y, z, length, width, height and yaw."""
SHAPE = (9, 32, 16)
"""The small network's input: two points of a pillar, 16x16 cells."""


def network(num_classes: int = 2) -> PillarNet:
    return PillarNet(num_classes, SHAPE, num_points=2, canvas=32, widths=(32, 32, 48), joined=32)


def scene(seed: int) -> tuple[np.ndarray, list[Box]]:
    """Clutter of low power, and strong points in a car and a cyclist."""
    random = np.random.default_rng(seed)
    boxes: list[Box] = []
    clouds = [np.column_stack([
        random.uniform(0, 25.6, 80), random.uniform(-12.8, 12.8, 80), random.normal(0, 1, 80),
        random.normal(5, 2, 80), random.normal(0, 1, 80),
    ])]  # fmt: skip
    for name, length, width, side in (("Car", 4.0, 2.0, -1), ("Cyclist", 2.0, 0.8, 1)):
        x, y, yaw = random.uniform(3, 22), side * random.uniform(2, 10), random.choice([0.0, np.pi / 2])
        boxes.append((name, x, y, -0.8, length, width, 1.8, yaw))
        own = random.uniform(-0.5, 0.5, (24, 2)) * (length, width)
        turned = own @ np.asarray([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
        power = np.full(24, 25.0 if name == "Car" else 18.0)
        clouds.append(
            np.column_stack(
                [turned[:, 0] + x, turned[:, 1] + y, random.normal(-0.8, 0.3, 24), power, np.full(24, side * 3.0)]
            )
        )
    return np.concatenate(clouds), boxes


def write(folder: Path, frames: Sequence[tuple[np.ndarray, Sequence[Box], str]]) -> Path:
    """Writes frames, each with its points, boxes and split."""
    folder.mkdir(parents=True, exist_ok=True)
    clouds = [np.asarray(points, dtype=np.float16) for points, _, _ in frames]
    np.save(folder / "points.npy", np.concatenate(clouds))
    np.save(folder / "offsets.npy", np.cumsum([0, *map(len, clouds)]))
    lines = [
        json.dumps({"frame": f"{number:06}", "split": split, "boxes": boxes})
        for number, (_, boxes, split) in enumerate(frames)
    ]
    (folder / "frames.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def scenes(folder: Path, *, num_train: int = 8, num_test: int = 4) -> Path:
    splits = ["train"] * num_train + ["test"] * num_test
    return write(folder, [(*scene(seed), split) for seed, split in enumerate(splits)])
