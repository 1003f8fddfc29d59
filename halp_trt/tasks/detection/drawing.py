"""Detections drawn on their picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from halp_trt.tasks.detection.objects import Detections
from halp_trt.tasks.drawing import as_image, colour_of, legend_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["LEAST_SHOWN", "count_boxes", "draw_boxes", "labelled_boxes"]

LEAST_SHOWN = 0.3
"""The least score of a box that is drawn."""
_MOST_COUNTED = 4
"""Classes that are counted under a picture, the most frequent ones."""
_WIDTH = 2
"""Width of a box's lines, in pixels."""


def draw_boxes(
    pixels: npt.NDArray[np.uint8], found: Detections, size: npt.NDArray[Any], classes: Sequence[str]
) -> Image.Image:
    """The picture with the boxes that have a score of ``LEAST_SHOWN``, each in the colour of its class.

    Where there are too many classes for a legend, a box bears the name of its class.

    Args:
        pixels: uint8 ``[C, H, W]``.
        found: the detections, boxes in shares of the picture's sides.
        size: height and width of the picture as it was.
        classes: names of the classes.
    """
    from PIL import ImageDraw

    picture = as_image(pixels, size)
    pen, has_legend = ImageDraw.Draw(picture), bool(legend_of(classes))
    shown = _shown(found).scaled(picture.width - 1, picture.height - 1)
    for box, label in zip(shown.boxes[::-1], shown.labels[::-1], strict=True):
        left, top, right, bottom = map(float, box)
        corners = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        pen.rectangle(corners, outline=colour_of(int(label)), width=_WIDTH)
        if not has_legend:
            name = classes[int(label)].encode("ascii", "replace").decode()  # the built-in font has few letters
            place = (corners[0] + _WIDTH + 1, corners[1] + _WIDTH)
            pen.rectangle(pen.textbbox(place, name), fill=colour_of(int(label)))
            pen.text(place, name, fill="white")
    return picture


def labelled_boxes(target: Any) -> Detections:
    """The objects that count, as detections of score 1."""
    counts = ~np.asarray(target["is_ignored"])
    height, width = (float(side) for side in target["size"])
    boxes = np.asarray(target["boxes"], dtype=np.float64)[counts] / np.asarray([width, height] * 2)
    return Detections(boxes=boxes, scores=np.ones(len(boxes)), labels=np.asarray(target["labels"])[counts])


def count_boxes(found: Detections, classes: Sequence[str]) -> str:
    """The number of drawn boxes by class in words: ``11 RBC, 1 WBC``."""
    counts = Counter(classes[int(label)] for label in _shown(found).labels)
    words = [f"{number} {name}" for name, number in counts.most_common(_MOST_COUNTED)]
    rest = sum(counts.values()) - sum(number for _, number in counts.most_common(_MOST_COUNTED))
    return ", ".join([*words, f"{rest} more"] if rest else words) or "nothing"


def _shown(found: Detections) -> Detections:
    chosen = found.scores >= LEAST_SHOWN
    return Detections(boxes=found.boxes[chosen], scores=found.scores[chosen], labels=found.labels[chosen])
