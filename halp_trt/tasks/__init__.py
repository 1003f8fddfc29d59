"""Data sets, and tasks that judge a network's outputs on them.

A data set reads its examples and puts them into batches, with targets of any kind. A :class:`Task` has the rest: the
loss of a batch, the answers in raw outputs, and the score of all answers. A new task is a class and a row::

    TASKS["detection"] = "my_package.detection:Detection"

and a data set that names it. Nothing here imports torch before a task is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.rows import check_call, check_members, load_row
from halp_trt.specs import Score
from halp_trt.training.world import ALONE, World

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

    from halp_trt.tasks.dataset import DataSet
    from halp_trt.training.settings import TrainSettings
    from halp_trt.training.step import Lesson

__all__ = [
    "CENTERS3D",
    "CLASSIFICATION",
    "COCO_DETECTION",
    "DETECTION",
    "SEGMENTATION",
    "TASKS",
    "UNLABELLED",
    "Draws",
    "Outputs",
    "Reads",
    "Task",
    "lesson_of",
    "task_of",
]

Outputs = Mapping[str, npt.NDArray[Any]]
"""Raw outputs of a batch by name, in the network's order. Names are keys of its mappings and positions in its tuples,
joined with dots; a single tensor is named ``output``."""


class Task(Protocol):
    """The judge of a network's outputs on one data set; nothing else reads the targets."""

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """Returns the loss of a batch, a scalar with gradients.

        Args:
            outputs: the module's return value, unchanged.
            targets: targets of the batch, on the module's device.
            settings: settings of the training.
            taught: a teacher's return value for the same pictures, weighted ``settings.distillation``; None without a
                teacher.

        Raises:
            ModelError: the outputs do not suit the task.
        """

    def predict(self, outputs: Outputs) -> Sequence[Any] | npt.NDArray[Any]:
        """Returns the answers in the raw outputs of a batch, one for each picture: a class, a list of boxes, a map.

        Raises:
            ModelError: the outputs do not suit the task.
        """

    def metric(self, answers: Iterable[tuple[Sequence[Any] | npt.NDArray[Any], Any]]) -> Score:
        """Returns the score over a whole split.

        Args:
            answers: for each batch the answers and the targets; every example counts once.
        """


@runtime_checkable
class Reads(Protocol):
    """A task whose ``predict`` is worth a time of its own, because it decodes or suppresses.

    Attributes:
        reads: the name of that step.
    """

    reads: str

    def predict(self, outputs: Outputs) -> Sequence[Any] | npt.NDArray[Any]:
        """Returns the answers, as ``Task.predict``."""


@runtime_checkable
class Draws(Protocol):
    """A task whose answers can be drawn on their pictures.

    Attributes:
        caption: a sentence on how to read the drawings.
        legend: colour of each class as ``#rrggbb``; empty where drawings bear names.
    """

    caption: str
    legend: Mapping[str, str]

    def predict(self, outputs: Outputs) -> Sequence[Any] | npt.NDArray[Any]:
        """Returns the answers, as ``Task.predict``."""

    def labelled(self, target: Any) -> Any:
        """Returns the right answer to a picture, by its target."""

    def draw(self, pixels: npt.NDArray[Any], answer: Any, target: Any) -> Image.Image:
        """Returns a picture, uint8 ``[C, H, W]``, with an answer drawn on it."""

    def count(self, answer: Any) -> str:
        """Returns a few words on an answer, empty for none."""


CLASSIFICATION = "classification"
"""The name of the default task."""
DETECTION, COCO_DETECTION = "detection", "coco-detection"
"""The names of the tasks of detection, judged as VOC and as COCO judge it."""
CENTERS3D = "centers3d"
"""The name of the task of objects in three dimensions, judged by the distance of their centres."""
SEGMENTATION = "segmentation"
"""The name of the task of a class for every pixel."""
UNLABELLED = "unlabelled"
"""The name of the task of pictures without labels."""
TASKS: dict[str, Callable[[DataSet], Task] | str] = {
    CLASSIFICATION: "halp_trt.tasks.classification:Classification",
    DETECTION: "halp_trt.tasks.detection.task:Detection",
    COCO_DETECTION: "halp_trt.tasks.detection.task:CocoDetection",
    CENTERS3D: "halp_trt.tasks.centers3d.task:Centers3d",
    SEGMENTATION: "halp_trt.tasks.segmentation:Segmentation",
    UNLABELLED: "halp_trt.tasks.unlabelled:Unlabelled",
}
"""Makers of a data set's task by the task's name, each a function or its import path ``package.module:name``."""


def task_of(data: DataSet) -> Task:
    """The task named by a data set.

    Raises:
        UsageError: no task has this name, or its row makes none.
        DataError: the data set does not suit the task.
    """
    if data.task not in TASKS:
        raise UsageError(
            f"task {data.task!r} of data set {data.name!r} is not known; expected one of {', '.join(TASKS)}, or a row "
            f"of your own in halp_trt.tasks.TASKS"
        )
    make: Callable[[DataSet], Task] = load_row(TASKS[data.task])
    place = f"TASKS[{data.task!r}]"
    check_call(make, place, "data")
    task = make(data)
    check_members(task, Task, f"what {place} makes")
    return task


def lesson_of(
    data: DataSet, settings: TrainSettings, *, teacher: nn.Module | None = None, world: World = ALONE
) -> Lesson:
    """The lesson for a training on a data set, with the loss of its task.

    Raises:
        UsageError, DataError: as :func:`task_of`.
    """
    from halp_trt.training.step import Lesson

    return Lesson(data=data, settings=settings, loss=task_of(data).loss, teacher=teacher, world=world)
