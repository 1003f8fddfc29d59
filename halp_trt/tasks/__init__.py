"""What is learnt: data sets, and the tasks that say how outputs are judged.

A data set reads its examples and puts them into batches, targets of whatever kind included; a :class:`Task` is what is
left: the loss of a batch, the answers in raw outputs, and the score of all answers. A new task is a class and a row::

    TASKS["detection"] = "my_package.detection:Detection"

and a data set that names it. Nothing here needs torch before a task is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from halp_trt.errors import UsageError
from halp_trt.rows import load_row
from halp_trt.specs import Score

if TYPE_CHECKING:
    import torch
    from torch import nn

    from halp_trt.tasks.dataset import DataSet
    from halp_trt.training.settings import TrainSettings
    from halp_trt.training.step import Lesson

__all__ = ["CLASSIFICATION", "TASKS", "Outputs", "Task", "lesson_of", "task_of"]

Outputs = Mapping[str, npt.NDArray[Any]]
"""Raw outputs of a batch: the network's own names (keys of its mappings, positions in its tuples, joined with dots;
``output`` where there is one tensor alone), in the network's order."""


class Task(Protocol):
    """How the outputs of a network are judged on one data set. Targets are the task's own: nothing else reads them."""

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """The loss of a batch, a scalar with gradients.

        Args:
            outputs: what the module returned, as it returned it.
            targets: of the batch, on the module's device.
            settings: how it is trained.
            taught: what a teacher returned for the same pictures, weighted ``settings.distillation``; None without one.

        Raises:
            ModelError: the outputs are not those of such a task.
        """

    def predict(self, outputs: Outputs) -> Sequence[Any] | npt.NDArray[Any]:
        """The answers in the raw outputs of a batch, one for each picture: a class, a list of boxes, a map.

        Raises:
            ModelError: the outputs are not those of such a task.
        """

    def metric(self, answers: Iterable[tuple[Sequence[Any] | npt.NDArray[Any], Any]]) -> Score:
        """The score over a whole split.

        Args:
            answers: for each batch the answers and the targets, of which every example counts once.
        """


CLASSIFICATION = "classification"
TASKS: dict[str, Callable[[DataSet], Task] | str] = {CLASSIFICATION: "halp_trt.tasks.classification:Classification"}
"""What makes the task of a data set, by the name that the data set has for it."""


def task_of(data: DataSet) -> Task:
    """The task that a data set is for.

    Raises:
        UsageError: there is no such task.
        DataError: the data set does not suit it.
    """
    if data.task not in TASKS:
        raise UsageError(
            f"task {data.task!r} of data set {data.name!r} is not known; expected one of {', '.join(TASKS)}, or a row "
            f"of your own in halp_trt.tasks.TASKS"
        )
    return load_row(TASKS[data.task])(data)


def lesson_of(data: DataSet, settings: TrainSettings, *, teacher: nn.Module | None = None) -> Lesson:
    """What a network learns from a data set by the loss of its task.

    Raises:
        UsageError, DataError: as :func:`task_of`.
    """
    from halp_trt.training.step import Lesson

    return Lesson(data=data, settings=settings, loss=task_of(data).loss, teacher=teacher)
