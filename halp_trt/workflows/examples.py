"""Test pictures with what both engines find in them, for a run's page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from halp_trt.errors import DataError
from halp_trt.runtimes import Session
from halp_trt.specs import ExamplePicture, Examples
from halp_trt.tasks import Draws, task_of
from halp_trt.tasks.dataset import DataSet
from halp_trt.workflows.reading import predict_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["draw_examples"]

_PICTURES = 4
"""Most pictures of a page."""
_QUALITY = 80
"""Quality of the JPEGs."""


def draw_examples(
    sessions: Mapping[str, Session],
    data: DataSet | None,
    output_names: Sequence[str],
    parents: Mapping[str, str],
) -> Examples | None:
    """Some test pictures, spread over the split, as they are labelled and with what each engine finds in them.

    Args:
        sessions: sessions of the engines by name, of one input each.
        data: the data set.
        output_names: the network's own names of its outputs, in the engines' order.
        parents: names and SHA-256 of the engines.

    Returns:
        The pictures; None without labelled data, and where the task draws nothing.

    Raises:
        ModelError, NonFiniteError: the outputs do not suit the task.
    """
    if data is None or not data.is_labelled or find_spec("PIL") is None:
        return None
    task = task_of(data)
    if not isinstance(task, Draws):
        return None
    chosen = dict.fromkeys(np.linspace(0, data.num_test - 1, min(_PICTURES, data.num_test)).astype(int).tolist())
    drawn = [_drawn(number, sessions, data, task, output_names) for number in chosen]
    return Examples(
        caption=task.caption,
        pictures=tuple(one for one in drawn if one is not None),
        legend=task.legend,
        parents=parents,
    )


def _drawn(
    number: int, sessions: Mapping[str, Session], data: DataSet, task: Draws, output_names: Sequence[str]
) -> ExamplePicture | None:
    """One test picture with its drawings; None if it cannot be read."""
    try:
        pixels, targets = data.test.read([number])
        pictures, _ = data.test_batch([number])
    except DataError:  # a bad one, which scoring told of already
        return None
    answers: dict[str, Any] = {"labelled": task.labelled(targets[0])}
    for name, session in sessions.items():
        (shape,) = session.input_shapes.values()
        answers[name] = task.predict(predict_of(session, output_names)(np.resize(pictures.numpy(), shape)))[0]
    return ExamplePicture(
        name=_name(data, number),
        drawings={name: _jpeg(task.draw(pixels[0], answer, targets[0])) for name, answer in answers.items()},
        counts={name: task.count(answer) for name, answer in answers.items()},
    )


def _name(data: DataSet, number: int) -> str:
    files: Sequence[Path] = getattr(data.test, "files", ())
    return files[number].name if files else f"test picture {number + 1}"


def _jpeg(picture: Image.Image) -> str:
    """A picture as JPEG in base64."""
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(written.getvalue()).decode()
