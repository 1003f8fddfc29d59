"""The cameras of a vehicle: what each sees, from a calibration or from a ring that needs none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from halp_trt.errors import ArtefactError, ModelError
from halp_trt.store import parse_json, read_bytes

__all__ = ["CALIBRATION", "Camera", "Fit", "camera_ring", "fit_of", "picture_file", "read_calibration"]

CALIBRATION = "info.json"
"""Name of the file with the calibration of a frame's cameras, in the form of mmdetection3d's nuScenes."""
_MOST_BYTES = 64 << 20
"""Largest calibration that is read: boxes and paths of a frame stand in it, too."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """One camera of a vehicle. Its own axes point right, down and forward, the vehicle's forward, left and up.

    Attributes:
        name: its name.
        size: width and height of its pictures, in pixels.
        intrinsics: ``[3, 3]``, from its axes to pixels.
        pose: ``[4, 4]``, from its axes to the vehicle's, in metres.
        picture: name of its picture's file, empty where the calibration tells none.
    """

    name: str
    size: tuple[int, int]
    intrinsics: Floats
    pose: Floats
    picture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The way of a camera's pictures to a network's input: scaled, then cropped.

    Attributes:
        scale: factor of both sides.
        left, top: pixels cut off there after scaling; what is too much on the other sides goes, too.
    """

    scale: float
    left: float
    top: float


def fit_of(camera: Camera, height: int, width: int) -> Fit:
    """The smallest scale at which a camera's pictures cover the input; both sides are cropped alike, and the top."""
    scale = max(width / camera.size[0], height / camera.size[1])
    left, top = scale * camera.size[0] - width, scale * camera.size[1] - height
    return Fit(scale=scale, left=left / 2, top=top)


def camera_ring(
    num_cameras: int = 6,
    *,
    size: tuple[int, int] = (1600, 900),
    opening_degrees: float = 70.0,
    height: float = 1.5,
    radius: float = 1.0,
) -> tuple[Camera, ...]:
    """Cameras that look around a vehicle at equal angles, the first one forward, the others to the right of it.

    Args:
        num_cameras: number of cameras.
        size: width and height of their pictures, in pixels.
        opening_degrees: horizontal angle of view of each.
        height: metres above the ground.
        radius: metres from the vehicle's middle.
    """
    focal = size[0] / 2 / math.tan(math.radians(opening_degrees) / 2)
    intrinsics = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    cameras = []
    for number in range(num_cameras):
        angle = -2 * math.pi * number / num_cameras
        forward = np.array([math.cos(angle), math.sin(angle), 0])
        right, down = np.array([forward[1], -forward[0], 0]), np.array([0, 0, -1])
        pose = np.eye(4)
        pose[:3] = np.column_stack([right, down, forward, radius * forward + np.array([0, 0, height])])
        cameras.append(Camera(name=f"ring {number}", size=size, intrinsics=intrinsics, pose=pose))
    return tuple(cameras)


# ---- from a file ----------------------------------------------------------------------------------------------------


def read_calibration(folder: Path) -> tuple[Camera, ...]:
    """The cameras of a nuScenes frame, in the order of its calibration.

    Args:
        folder: holds ``info.json`` and the frame's pictures. Their size comes from ``width`` and ``height`` beside a
            camera's matrices, else from its picture.

    Raises:
        ModelError: there is no calibration, it cannot be read, or a matrix or picture is missing or odd.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        raise ModelError(
            f"{folder} holds no calibration, expected {CALIBRATION} with the cameras' cam2img and cam2ego; name the "
            "folder of a nuScenes frame, or none for a ring of six cameras"
        )
    try:
        rows = _rows(parse_json(read_bytes(path, _MOST_BYTES), allows_nan=True), path)  # boxes without points have NaN
    except ArtefactError as error:
        raise ModelError(f"{path} cannot be read ({error}); convert the frame again") from error
    return tuple(
        Camera(
            name=name,
            size=_size(row, folder, name),
            intrinsics=_matrix(row, "cam2img", 3, f"{path}: {name}"),
            pose=_matrix(row, "cam2ego", 4, f"{path}: {name}"),
            picture=Path(str(row.get("img_path", ""))).name,
        )
        for name, row in rows.items()
    )


def picture_file(folder: Path, name: str, picture: str = "") -> Path:
    """The picture of a camera in a frame's folder: the file of that name, or the one with the camera's name in it.

    Raises:
        ModelError: there is none, or there are several.
    """
    if picture and (folder / picture).is_file():
        return folder / picture
    found = sorted(path for path in folder.glob("*.[jp][pn]g") if f"__{name}__" in path.name)
    if len(found) != 1:
        raise ModelError(
            f"{folder} holds {len(found)} pictures of the camera {name}, expected one *__{name}__*.jpg; put the "
            "frame's picture there"
        )
    return found[0]


def _rows(held: object, path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The rows of the cameras by name, of the first frame."""
    frames = held.get("data_list") if isinstance(held, Mapping) else None
    first = frames[0] if isinstance(frames, Sequence) and frames else None
    rows = first.get("images") if isinstance(first, Mapping) else None
    if not isinstance(rows, Mapping) or not rows or not all(isinstance(row, Mapping) for row in rows.values()):
        raise ModelError(
            f"{path} names no cameras, expected data_list[0].images with one entry for each; convert the frame with "
            "mmdetection3d"
        )
    return rows


def _matrix(row: Mapping[str, Any], key: str, size: int, where: str) -> Floats:
    """A square matrix of finite numbers."""
    try:
        matrix = np.asarray(row.get(key), dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        found = "none" if key not in row else f"of shape {matrix.shape}" if matrix.size else "no numbers"
        raise ModelError(f"{where}: {key} is {found}, expected {size}x{size} finite numbers; mend the calibration")
    if abs(np.linalg.det(matrix)) < 1e-9:
        raise ModelError(f"{where}: {key} has no inverse, expected one of a camera; mend the calibration")
    return matrix


def _size(row: Mapping[str, Any], folder: Path, name: str) -> tuple[int, int]:
    """Width and height of a camera's pictures."""
    stated = (row.get("width"), row.get("height"))
    if all(isinstance(side, int) and side > 0 for side in stated):
        return int(str(stated[0])), int(str(stated[1]))
    from halp_trt.models.cameras.frame import picture_size

    return picture_size(picture_file(folder, name, Path(str(row.get("img_path", ""))).name))
