"""Pictures without labels: a network learns its teacher's outputs from them, and nothing is scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy.typing as npt
import torch
from torch.nn import functional as F

from halp_trt.errors import ModelError, UsageError
from halp_trt.models.reference import flatten
from halp_trt.specs import Score
from halp_trt.tasks import Outputs
from halp_trt.tasks.classification import soft_loss
from halp_trt.training.settings import TrainSettings

if TYPE_CHECKING:
    from halp_trt.tasks.dataset import DataSet

__all__ = ["Unlabelled"]


class Unlabelled:
    """The task of pictures without labels."""

    def __init__(self, data: DataSet) -> None:
        self._name, self._head = data.name, data.head

    def loss(self, outputs: Any, targets: Any, settings: TrainSettings, taught: Any = None) -> torch.Tensor:
        """The distance of the outputs from a teacher's.

        It is ``T² KL(teacher || student)`` of logits, the head's own distance of a detector, else the mean of squares.

        Raises:
            UsageError: there is no teacher.
            ModelError: the teacher has other outputs.
        """
        if taught is None:
            raise UsageError(
                f"{self._name} has no labels to learn from; set --distillation to learn from a teacher, or --epochs 0"
            )
        own, given = flatten(outputs), flatten(taught)
        if not own or [tensor.shape for tensor in own] != [tensor.shape for tensor in given]:
            raise ModelError(
                f"the network has outputs {[tuple(tensor.shape) for tensor in own]} and its teacher "
                f"{[tuple(tensor.shape) for tensor in given]}; choose a teacher with the same"
            )
        if self._head is not None:
            distance: torch.Tensor = self._head.distance(outputs, taught)
            return distance
        if own[0].ndim == 2:
            return soft_loss(own[0].float(), given[0].float(), settings.temperature)
        return torch.stack([F.mse_loss(a.float(), b.float()) for a, b in zip(own, given, strict=True)]).mean()

    def predict(self, outputs: Outputs) -> Sequence[Any]:
        """Raises UsageError: there is nothing to compare answers with."""
        self._refuse()

    def metric(self, answers: Iterable[tuple[Sequence[Any] | npt.NDArray[Any], Any]]) -> Score:
        """Raises UsageError: there is nothing to compare answers with."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(f"{self._name} has no labels, so nothing can be scored on it; name labelled pictures")
