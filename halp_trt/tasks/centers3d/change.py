"""Random changes of a training frame that its boxes follow: it is mirrored, turned a little, and scaled a little.

They are those of PointPillars (arXiv 1812.05784, section 3.2) without pasted objects, and smaller: a sensor that looks
forward sees a part of the plane alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.tasks.centers3d.objects import Objects

__all__ = ["changed"]

MOST_TURN = np.pi / 36
"""Largest turn to either side, in radians."""
LEAST_SCALE, MOST_SCALE = 0.95, 1.05


def changed(
    points: npt.NDArray[np.floating[Any]], objects: Objects, *, seed: int
) -> tuple[npt.NDArray[np.float64], Objects]:
    """The points and the objects after a random change, a pure function of the arguments.

    Numbers beside x, y and z stay as they are: the sensor is at the origin and moves with neither.
    """
    random = np.random.default_rng(seed)
    side = random.choice([-1.0, 1.0])
    turn = random.uniform(-MOST_TURN, MOST_TURN)
    scale = random.uniform(LEAST_SCALE, MOST_SCALE)
    matrix = scale * np.asarray(
        [[np.cos(turn), -side * np.sin(turn), 0], [np.sin(turn), side * np.cos(turn), 0], [0, 0, 1]]
    )
    moved = points.astype(np.float64)
    moved[:, :3] = moved[:, :3] @ matrix.T
    boxes = objects.boxes.copy()
    boxes[:, :3] = boxes[:, :3] @ matrix.T
    boxes[:, 3:6] *= scale
    boxes[:, 6] = side * boxes[:, 6] + turn
    return moved, Objects(boxes=boxes, labels=objects.labels)
