"""The page of the gate's history: throughput over time for each engine, and the newest results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from halp_trt.gate import CANNOT_TELL, SLOWER, WITHIN, EngineResult, History
from halp_trt.report import units
from halp_trt.report.bench_text import unknown_bounds
from halp_trt.report.canvas import DOUBTED, FAILED, FAINT, INK, MEASURED, PAPER, PRUNED, STYLE, Tip, svg
from halp_trt.report.history import (
    NO_BASELINE,
    EngineSeries,
    answer_of,
    bounds_of,
    date_of,
    engine_series,
    history_rows,
    level,
    limit_of,
    rate,
    ratios_of,
    throughput_of,
)
from halp_trt.report.parts import Figure, Parts, Table, Tile

__all__ = ["history_figure", "history_parts"]

_MOST_FIGURES = 24
_MOST_POINTS = 2000
_MOST_ROWS = 500
_MARKS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        SLOWER: ("v", FAILED, FAILED),
        CANNOT_TELL: ("D", DOUBTED, PAPER),
        WITHIN: ("o", PRUNED, PRUNED),
        NO_BASELINE: ("o", FAINT, PAPER),
    }
)
"""Shape, edge and face of each answer's mark: colours alone do not tell answers apart for everyone."""


def history_parts(history: History) -> Parts:
    """The tiles, figures and the table of a history's page."""
    series = engine_series(history)
    more = len(series) - _MOST_FIGURES
    which = f" The {_MOST_FIGURES} engines measured last; {more} more are in the file." if more > 0 else ""
    figures = [
        Figure(
            title="Throughput over time",
            caption="Each mark is a result with its 95 % interval, in the order of dates, at equal distances; one "
            "without an interval rests on a single process, or on such that differ too much. Below the dashed line "
            "the gate would call the engine slower. Vertical lines mark changes, with the level before and after; they "
            f"are found afterwards and judge nothing.{which}",
            svg="".join(history_figure(one) for one in series[:_MOST_FIGURES]),
        )
    ]
    newest = history.results[: -_MOST_ROWS - 1 : -1]
    earlier = len(history.results) - len(newest)
    note = f"; {units.count(earlier)} earlier ones are in the file" if earlier > 0 else ""
    rows = [[cell.replace(" ", "\N{NO-BREAK SPACE}"), *others] for cell, *others in history_rows(newest)]
    table = Table(title="Results", caption=f"The newest first{note}.", rows=rows, num_names=3)
    return Parts(tiles=list(_tiles(history)), figures=figures if series else (), tables=[table])


def _tiles(history: History) -> Iterator[Tile]:
    answers = Counter(answer_of(one) for one in history.results)
    number = len({one.name for one in history.results})
    yield Tile(
        label="Results",
        value=units.count(len(history.results)),
        detail=f"of {number} engine{'' if number == 1 else 's'}",
    )
    for answer, label in ((SLOWER, "Slower"), (CANNOT_TELL, "Cannot tell"), (WITHIN, "Within the limit")):
        detail = f"and {answers[NO_BASELINE]} without a baseline" if answer == WITHIN else "of all results"
        yield Tile(label=label, value=units.count(answers[answer]), detail=detail)


def history_figure(series: EngineSeries) -> str:
    """Throughput of one engine over its results, with intervals, the limit, changes and answers."""
    left_out = max(0, len(series.results) - _MOST_POINTS)
    results = series.results[left_out:]
    rates = np.array([(throughput_of(one), *(bounds_of(one) or (math.nan, math.nan))) for one in results])
    at = np.arange(len(results))
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(8.6, 2.7))
        axes = canvas.add_axes((0.085, 0.13, 0.905, 0.63))
        low, high = _bounds(rates)
        known = ~np.isnan(rates[:, 1])
        ends = np.maximum(rates[known, 1], low), np.minimum(rates[known, 2], high)
        axes.vlines(at[known], *ends, color=FAINT, linewidth=0.9)
        limits = [limit_of(one) or math.nan for one in results]
        if not np.isnan(limits).all():
            axes.plot(at, limits, color=MEASURED, linestyle=(0, (4, 2)), linewidth=1.3, label="limit", marker="_")
        edges = [0, *(one - left_out for one in series.changes() if one > left_out), len(results)]
        _draw_changes(axes, results, edges)
        size = 4 if len(results) <= 200 else 2.5
        for answer, (shape, edge, face) in _MARKS.items():
            chosen = [number for number, one in enumerate(results) if answer_of(one) == answer]
            if chosen:
                axes.plot(
                    chosen, rates[chosen, 0], linestyle="", marker=shape, color=edge, markerfacecolor=face,
                    markersize=size, label=answer, zorder=3,
                )  # fmt: skip
        axes.set_ylim(low, high)
        axes.set_xlim(-0.5, max(len(results) - 0.5, 0.5))
        axes.set_ylabel("images/s")
        _date(axes, results)
        title = series.title if len(series.title) <= 90 else f"{series.title[:89]}…"
        canvas.suptitle(title, x=0.008, y=0.985, ha="left", va="top", color=INK, fontsize=10.5)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.01), ncols=5, labelcolor=FAINT, borderpad=0, handletextpad=0.4,
            columnspacing=1.2, handlelength=1.6,
        )  # fmt: skip
        tips = [
            Tip(axes=axes, x=x, y=y, text=_tip(one))
            for x, y, one in zip(at.tolist(), rates[:, 0].tolist(), results, strict=True)
        ]
        return svg(canvas, tips)


def _bounds(rates: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the axis: all results, and the known intervals as far as they do not flatten them."""
    speeds = rates[:, 0]
    reach = max(float(np.ptp(speeds)), 0.02 * float(speeds.max()))
    bounded = rates[~np.isnan(rates[:, 1])]
    low = max(float(min([*speeds, *bounded[:, 1]])), float(speeds.min()) - reach)
    high = min(float(max([*speeds, *bounded[:, 2]])), float(speeds.max()) + reach)
    room = 0.12 * max(high - low, reach)
    return low - room, high + room


def _draw_changes(axes: Axes, results: Sequence[EngineResult], edges: Sequence[int]) -> None:
    """A line at each change, and the level of each part."""
    for number, (start, end) in enumerate(pairwise(edges)):
        if number:
            axes.axvline(start - 0.5, color=INK, linewidth=1.1)
        if len(edges) > 2:
            axes.hlines(level(results[start:end]), start - 0.5, end - 0.5, color=INK, linewidth=1.1)


def _date(axes: Axes, results: Sequence[EngineResult]) -> None:
    """Labels the axis with the dates of some results."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ticks = [int(tick) for tick in axes.get_xticks() if 0 <= tick < len(results)]
    axes.set_xticks(ticks, [results[tick].started[:10] for tick in ticks])


def _tip(result: EngineResult) -> str:
    bounds, ratios, worst = bounds_of(result), ratios_of(result), result.worst
    unknown = f"bounds {unknown_bounds(result, result.bounds_us)}"
    shown = f"{rate(bounds[0])} – {rate(bounds[1])}" if bounds else unknown
    lines = [date_of(result), f"{rate(throughput_of(result))} images/s ({shown})", units.latency(result.latency_us)]
    if worst is not None:
        shown = f"{ratios[0]:.4f} – {ratios[1]:.4f}" if ratios else f"bounds {unknown_bounds(result, worst.bounds)}"
        lines.append(f"{worst.ratio:.4f} of the baseline's latency ({shown})")
    lines.append(worst.said if worst else NO_BASELINE)
    return "\n".join(lines)
