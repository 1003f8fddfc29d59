"""Classification: one class for each picture, cross-entropy, soft labels of a teacher, and top-1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from halp_trt.errors import DataError, ModelError
from halp_trt.models.reference import flatten
from halp_trt.specs import Score
from halp_trt.tasks import Outputs
from halp_trt.training.settings import TrainSettings

if TYPE_CHECKING:
    from halp_trt.tasks.dataset import DataSet

__all__ = ["Classification", "logits_of", "soft_loss"]


class Classification:
    """The task of classification among the classes of a data set; targets are int64 labels ``[N]``.

    Raises:
        DataError: the data set has fewer than two classes.
    """

    def __init__(self, data: DataSet) -> None:
        if data.num_classes < 2:
            raise DataError(f"data set {data.name!r} needs at least two classes, got {list(data.classes)}")
        self._num_classes, self._name = data.num_classes, data.name

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """The cross-entropy with label smoothing, mixed with ``T² KL(teacher || student)`` if there is a teacher.

        Raises:
            ModelError: the first output is not one logit per class and picture, or the teacher has other classes.
        """
        logits = logits_of(outputs).float()
        self._check(logits)
        loss = F.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)
        if taught is None:
            return loss
        given = logits_of(taught).float()
        if given.shape != logits.shape:
            raise ModelError(
                f"the network has outputs {tuple(logits.shape)} and its teacher {tuple(given.shape)}; name a teacher "
                f"with the same classes"
            )
        soft = soft_loss(logits, given, settings.temperature)
        return (1 - settings.distillation) * loss + settings.distillation * soft

    def predict(self, outputs: Outputs) -> npt.NDArray[np.int64]:
        """The most likely class of every picture ``[N]``, from the first output.

        Raises:
            ModelError: the first output is not one logit per class and picture.
        """
        logits = np.asarray(next(iter(outputs.values())))
        if logits.ndim != 2 or logits.shape[1] < self._num_classes:
            raise ModelError(f"predictions are {logits.shape}, expected (pictures, at least {self._num_classes})")
        classes: npt.NDArray[np.int64] = logits.argmax(axis=1)
        return classes

    def metric(self, answers: Iterable[tuple[Sequence[Any] | npt.NDArray[Any], Any]]) -> Score:
        """The top-1 accuracy: the share of pictures whose most likely class is the labelled one."""
        num_correct = num_examples = 0
        for predicted, labels in answers:
            num_correct += int((np.asarray(predicted) == np.asarray(labels)).sum())
            num_examples += len(labels)
        return Score(name="top-1", value=num_correct / num_examples, unit="fraction", num_examples=num_examples)

    def _check(self, logits: torch.Tensor) -> None:
        if logits.ndim != 2:
            raise ModelError(
                f"the network's first output is {tuple(logits.shape)}, expected one row of logits per picture: the "
                f"data are for a classifier; use data none, or data of another task"
            )
        if logits.shape[1] < self._num_classes:
            raise ModelError(
                f"the network's output is {tuple(logits.shape)}, but {self._name!r} has {self._num_classes} classes; "
                f"set the number of classes of the model"
            )


def logits_of(outputs: object) -> torch.Tensor:
    """The class logits among a network's outputs: the tensor itself, or the first of several.

    Raises:
        ModelError: the outputs hold no tensor.
    """
    tensors = flatten(outputs)
    if not tensors:
        raise ModelError(
            f"the network returned {type(outputs).__name__}; expected logits [N, classes] as its first output"
        )
    return tensors[0]


def soft_loss(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """The loss ``T² KL(teacher || student)`` of the softened predictions (arXiv 1503.02531, section 2.1)."""
    target = F.log_softmax(taught / temperature, dim=1)
    student = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2
