"""Pictures to draw on, and a colour for each class."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["as_image", "colour_of", "legend_of"]

_SIDE = 320
"""Longer side of a drawn picture, in pixels."""
_COLOURS = ("#d6336c", "#1c7ed6", "#2b8a3e", "#e8590c", "#7048e8", "#0c8599", "#a61e4d", "#5c940d")
"""The colours of the first classes, apart from each other and readable on light and dark ground."""
_TURN = 0.61803398875
"""The step of hues for further classes: by the golden ratio they stay apart."""
_MOST_NAMED = 24
"""Most classes that a legend can name."""


def as_image(pixels: npt.NDArray[np.uint8], size: Sequence[int] | npt.NDArray[Any]) -> Image.Image:
    """A picture in colour, of the proportions of ``size``.

    Args:
        pixels: uint8 ``[C, H, W]``.
        size: height and width of the picture as it was before it was brought to the network's input.
    """
    from PIL import Image

    planes = pixels[:3] if len(pixels) >= 3 else np.repeat(pixels[:1], 3, axis=0)
    height, width = (float(side) for side in size)
    scale = _SIDE / max(height, width)
    wanted = (max(1, round(width * scale)), max(1, round(height * scale)))
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(planes, 0, 2))).resize(wanted, Image.Resampling.BILINEAR)


def colour_of(label: int) -> str:
    """The colour of a class, as ``#rrggbb``."""
    if label < len(_COLOURS):
        return _COLOURS[label]
    parts = colorsys.hls_to_rgb(label * _TURN % 1, 0.45, 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def legend_of(classes: Sequence[str]) -> Mapping[str, str]:
    """The colour of each class; none where there are too many to tell apart."""
    return {name: colour_of(label) for label, name in enumerate(classes)} if len(classes) <= _MOST_NAMED else {}
