"""The figure of a run's trainings: loss and score over the minibatches, phase by phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from halp_trt.report import units
from halp_trt.report.canvas import FAINT, MEASURED, PRUNED, STYLE, THIRD, Tip, svg
from halp_trt.report.shown import shown
from halp_trt.specs import TrainingRow

__all__ = ["training_figure"]

_PHASES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"train": ("dense training", THIRD), "prune": ("pruning", MEASURED), "tune": ("fine-tuning", PRUNED)}
)
"""The title and the colour of each phase."""
Placed = tuple[float, TrainingRow]
"""A row, and the minibatches of all phases that came before it and of its own."""


def training_figure(rows: Sequence[TrainingRow]) -> str | None:
    """Loss and score over the minibatches of a run, whose phases follow each other; None without rows."""
    placed = _placed([row for row in rows if row.phase in _PHASES])
    scored = [(place, row) for place, row in placed if row.score is not None]
    lossy = [(place, row) for place, row in placed if row.loss is not None]
    if not lossy and not scored:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.1), layout="constrained")
        panels = figure.subplots(1, 2 if lossy and scored else 1, squeeze=False)[0]
        tips = []
        if lossy:
            tips += _draw(panels[0], [(place, row, float(row.loss or 0)) for place, row in lossy])
            panels[0].set_title("mean loss of an epoch")
            losses = [row.loss for _, row in lossy if row.loss is not None]
            if min(losses) >= 0 and max(losses) > 0:
                panels[0].set_ylim(0, 1.12 * max(losses))
        if scored:
            values = [(place, row, _value(row)) for place, row in scored]
            tips += _draw(panels[-1], values)
            panels[-1].set_title(_title(scored[0][1]))
        panels[0].legend(labelcolor=FAINT)
        return svg(figure, tips)


def _placed(rows: Sequence[TrainingRow]) -> list[Placed]:
    """The rows, each with its place on an axis on which phases follow each other."""
    found: list[Placed] = []
    for _, phase in groupby(rows, key=lambda row: row.phase):
        start = found[-1][0] if found else 0.0
        found += [(start + row.step, row) for row in phase]
    return found


def _draw(axes: Axes, values: Sequence[tuple[float, TrainingRow, float]]) -> list[Tip]:
    """Draws a line for each phase, and returns the numbers of its points."""
    for phase, points in groupby(values, key=lambda point: point[1].phase):
        title, colour = _PHASES[phase]
        places, _, heights = zip(*points, strict=True)
        axes.plot(places, heights, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=title)
    axes.set_xlabel("minibatches")
    axes.margins(y=0.12)
    return [Tip(axes=axes, x=place, y=height, text=_text(row)) for place, row, height in values]


def _value(row: TrainingRow) -> float:
    """A score as it is drawn: a share in percent."""
    assert row.score is not None
    return row.score.value * (100 if row.score.is_fraction else 1)


def _title(row: TrainingRow) -> str:
    assert row.score is not None
    score = shown(row.score)
    unit = "%" if score.is_fraction else score.unit
    return f"{score.name} in {unit}" if unit else score.name


def _text(row: TrainingRow) -> str:
    """The numbers of a row, one on a line."""
    title, _ = _PHASES[row.phase]
    place = f"epoch {row.epoch}" if row.epoch is not None else f"step {row.pruning_step}"
    lines = [f"{title}, {place}", f"{units.count(row.step)} minibatches"]
    if row.loss is not None:
        lines.append(f"loss {row.loss:.4g}")
    if row.score is not None:
        score = shown(row.score)
        lines.append(f"{score.name} {units.score(score)}")
    return "\n".join([*lines, f"learning rate {row.learning_rate:.3g}"])
