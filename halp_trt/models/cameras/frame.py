"""One frame of all cameras as a network's input; Pillow reads the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch

from halp_trt.errors import ModelError
from halp_trt.models.cameras.calibration import Camera, fit_of, picture_file, read_calibration

__all__ = ["picture_size", "read_frame"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation per channel that pictures are normalised by: ImageNet's."""


def read_frame(folder: Path, height: int, width: int) -> torch.Tensor:
    """The pictures of a nuScenes frame, ``[1, cameras, 3, height, width]``, in the order of its calibration.

    They are scaled and cropped as :func:`halp_trt.models.cameras.calibration.fit_of` says, and normalised.

    Raises:
        ModelError: as :func:`halp_trt.models.cameras.calibration.read_calibration`, or a picture cannot be read.
    """
    pictures = [_read(folder, camera, height, width) for camera in read_calibration(folder)]
    return torch.from_numpy(np.stack(pictures)[None])


def _read(folder: Path, camera: Camera, height: int, width: int) -> npt.NDArray[np.float32]:
    """One camera's picture, ``[3, height, width]``."""
    path, fit = picture_file(folder, camera.name, camera.picture), fit_of(camera, height, width)
    edges = (fit.left, fit.top, fit.left + width, fit.top + height)
    box = tuple(min(edge / fit.scale, most) for edge, most in zip(edges, camera.size * 2, strict=True))
    with _faults(path), _pillow().open(path) as picture:
        if picture.size == camera.size:
            small = picture.convert("RGB").resize((width, height), _pillow().Resampling.BILINEAR, box=box)
            mean, deviation = np.asarray(_MEAN, np.float32), np.asarray(_STD, np.float32)
            values = (np.asarray(small, np.float32) / np.float32(255) - mean) / deviation
            return np.ascontiguousarray(values.transpose(2, 0, 1), np.float32)
    found, expected = ("x".join(map(str, size)) for size in (picture.size, camera.size))
    raise ModelError(f"{path} has {found} pixels, its calibration says {expected}; use the frame's own picture")


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in a file.

    Raises:
        ModelError: it cannot be read.
    """
    with _faults(path), _pillow().open(path) as picture:
        return int(picture.width), int(picture.height)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turns whatever Pillow raises into one error."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, _pillow().DecompressionBombError) as cause:
        raise ModelError(f"{path} is no picture that can be read ({cause}); put the frame's picture there") from cause


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as cause:
        raise ModelError("pictures of cameras need Pillow, which is not installed; pip install pillow") from cause
    return Image
