"""The metrics of a run's trainings as they are written, and the course of a training that makes them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from halp_trt.specs import Score, TrainingRow
from halp_trt.store import append_metrics, read_metrics, write_metrics
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.course import Course
from halp_trt.training.settings import BEST, TrainSettings
from halp_trt.training.world import ALONE, World

__all__ = ["PRUNE", "TRAIN", "TUNE", "Metrics", "course_of"]

TRAIN, PRUNE, TUNE = "train", "prune", "tune"
"""The phases of a run, in order: training the dense network, pruning it, fine-tuning."""
_PHASES = (TRAIN, PRUNE, TUNE)
_CHOSEN = (
    "the best weights are those with the best score on the test pictures, on which the engines are scored, too: their "
    "score is somewhat optimistic"
)
"""Said where weights are chosen by the split that is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The file of a run's metrics.

    Attributes:
        path: the file; it is made with the first row.
    """

    path: Path

    def add(self, row: TrainingRow) -> None:
        """Adds a row."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_metrics(self.path, row)

    def cut(self, phase: str, step: int, *, has_trained: bool = True) -> None:
        """Drops the rows of what has not been done yet, or will be done again, and a torn line.

        Args:
            phase: the phase of the run that begins or goes on.
            step: minibatches of it that are done; one fewer if the epoch that they end is still to be scored.
            has_trained: whether the run trained its dense network itself; rows of such a training are dropped if not.

        Raises:
            ArtefactError: the file is damaged, or cannot be written.
        """
        if not self.path.exists():
            return
        whole = [one for one in _PHASES[: _PHASES.index(phase)] if one != TRAIN or has_trained]
        kept = [
            row
            for row in (read_metrics(self.path) if whole or step else ())  # what nobody needs may be damaged
            if row.phase in whole or (row.phase == phase and row.step <= step)
        ]
        if kept:
            write_metrics(self.path, kept)
        else:
            self.path.unlink()


def course_of(
    data: DataSet, settings: TrainSettings, *, phase: str, metrics: Metrics | None = None, world: World = ALONE
) -> Course:
    """The course of a training on a data set, scored by its task; pictures without labels are not scored.

    Args:
        data: the data set.
        settings: settings of the training.
        phase: phase of the run.
        metrics: file that takes a row for each epoch; None for none.
        world: this process among those that train.
    """
    if settings.keep == BEST and settings.num_epochs > 0:
        warnings.warn(_CHOSEN, stacklevel=2)

    def score(module: nn.Module) -> Score:
        return evaluate(module_predict(module), data)

    return Course(
        settings,
        data,
        phase=phase,
        score=score if data.is_labelled else None,
        report=None if metrics is None else metrics.add,
        world=world,
    )
