"""The trainings of a run as text: where each phase ended, and its best score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import groupby

from halp_trt.report import units
from halp_trt.report.shown import shown
from halp_trt.specs import TrainingRow

__all__ = ["describe_training"]


def describe_training(rows: Sequence[TrainingRow]) -> str:
    """A line for each phase of a run: its epochs or steps, its last loss and score, and its best score."""
    lines: list[Sequence[str]] = [("training", "epochs", "minibatches", "loss", "score", "best")]
    for phase, found in groupby(shown(list(rows)), key=lambda row: row.phase):
        of_phase = list(found)
        last, best = of_phase[-1], _best(of_phase)
        epochs = "–" if last.epoch is None else units.count(last.epoch)
        loss = "–" if last.loss is None else f"{last.loss:.4g}"
        lines.append((phase, epochs, units.count(last.step), loss, _score(last), _score(best)))
    return units.columns(lines)


def _score(row: TrainingRow | None) -> str:
    if row is None or row.score is None:
        return "–"
    return f"{row.score.name} {units.score(row.score)}"


def _best(rows: Sequence[TrainingRow]) -> TrainingRow | None:
    """The first of the rows with the best score; None if none was scored."""
    scored = [row for row in rows if row.score is not None]
    return reduce(lambda one, other: other if _is_better(other, one) else one, scored) if scored else None


def _is_better(row: TrainingRow, other: TrainingRow) -> bool:
    assert row.score is not None
    assert other.score is not None
    value, before = row.score.value, other.score.value
    return value > before if row.score.higher_is_better else value < before
