"""Latency over both widths of a layer, what was measured of it and how sure the rest is; the machine's drift."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from halp_trt.latency import Grid, LatencyTable, Surface
from halp_trt.report.canvas import DENSE, FAINT, INK, MEASURED, PRUNED, STYLE, THIRD, Tip, svg, time_unit
from halp_trt.report.coverage import cliffs, drift_fractions, heaviest, kernel_name, width_range
from halp_trt.report.units import latency

__all__ = ["drift_figure", "surface_figure", "surface_figures"]

_SLICES = (PRUNED, MEASURED, THIRD)
"""Colours of a panel's slices."""
_MOST_CLIFFS = 40
"""Lines that can still be told apart in a map."""
_LATENCIES = LinearSegmentedColormap.from_list("latencies", ["#f0fdfa", "#99d5cd", PRUNED, "#134e4a"])
_SIZE = (8.6, 2.75)
_PANELS = ((0.075, 0.19, 0.3, 0.63), (0.385, 0.19, 0.011, 0.63), (0.515, 0.19, 0.215, 0.63), (0.78, 0.19, 0.215, 0.63))
"""Map, its key, and two slices, in fractions of a figure: a layout fitted to each of many figures takes seconds."""
_WHOLE = (0.075, 0.19, 0.92, 0.63)
_ERROR_BARS: Any = {"linestyle": "", "marker": "o", "markersize": 2.8, "linewidth": 1, "capsize": 1.5, "zorder": 3}

Floats = npt.NDArray[np.float64]


def surface_figures(table: LatencyTable, most: int) -> list[str]:
    """A figure of each of the ``most`` surfaces whose layers take longest, the slowest first."""
    return [surface_figure(surface) for surface in heaviest(table)[:most]]


def surface_figure(surface: Surface) -> str:
    """One layer: latency over both widths as a map, and over each width at a few of the other; one line if it has one.

    Measured points are marked and have error bars; between them the interpolation is lighter, in its error band.
    """
    grid = surface.grid()
    ins, outs = surface.in_widths, surface.out_widths
    scale, unit = time_unit(float(grid.latency_us.max()))
    with matplotlib.rc_context(STYLE):
        is_map = min(len(ins), len(outs)) > 1
        figure = Figure(figsize=_SIZE)
        figure.suptitle(_title(surface), x=0.008, y=0.98, ha="left", va="top", color=INK, fontsize=10.5)
        if is_map:
            panels = [figure.add_axes(place) for place in _PANELS]
            _draw_map(figure, surface, grid, scale)
            panels[1].set_title(unit, loc="left", fontsize=9.5, color=FAINT)
            tips = _draw_slices(panels[2], grid, (ins, outs), "in", scale)
            tips += _draw_slices(panels[3], _turned(grid), (outs, ins), "out", scale)
            panels[2].set(xlabel="output channels", ylabel=unit)
            panels[3].set(xlabel="input channels")
        else:
            axes = figure.add_axes(_WHOLE)
            by_input = len(outs) < 2
            shown, widths = (_turned(grid), (outs or ins[:1], ins)) if by_input else (grid, (ins, outs))
            tips = _draw_slices(axes, shown, widths, "", scale)
            sides = "input" if by_input else "output"
            axes.set(xlabel=f"{sides} channels" if outs else "input and output channels", ylabel=unit)
        return svg(figure, tips)


def _title(surface: Surface) -> str:
    """The layer, its widths and the steps of its staircase."""
    sides = ("inputs", "outputs") if surface.out_widths else ("channels",)
    steps = [f"{step} {side}" for step, side in zip(surface.steps, sides, strict=False) if step > 1]
    found = f"steps of {' and '.join(steps)}" if steps else "no steps found"
    widths = " → ".join(width_range(side) for side in (surface.in_widths, surface.out_widths) if side)
    return f"{kernel_name(surface)}, {widths} channels: {found}"


def _turned(grid: Grid) -> Grid:
    """The same with the axes exchanged."""
    return Grid(latency_us=grid.latency_us.T, error_us=grid.error_us.T, is_measured=grid.is_measured.T)


# ---- both widths ----------------------------------------------------------------------------------------------------


def _draw_map(figure: Figure, surface: Surface, grid: Grid, scale: float) -> None:
    """The map in the first panel and its key in the second."""
    axes, key = figure.axes[:2]
    ins, outs = surface.in_widths, surface.out_widths
    mesh = axes.pcolormesh(outs, ins, grid.latency_us / scale, cmap=_LATENCIES, shading="nearest", rasterized=True)
    for draw, edges in ((axes.axhline, cliffs(ins, surface.steps[0])), (axes.axvline, cliffs(outs, surface.steps[1]))):
        if len(edges) <= _MOST_CLIFFS:
            for edge in edges:
                draw(edge, color="white", linewidth=0.35, alpha=0.7)
    rows, columns = np.nonzero(grid.is_measured)
    if not grid.is_measured.all():
        axes.scatter(
            np.asarray(outs)[columns],
            np.asarray(ins)[rows],
            s=7,
            facecolor=MEASURED,
            edgecolor="white",
            linewidth=0.4,
            zorder=3,
        )
    axes.grid(visible=False)
    axes.set(xlabel="output channels", ylabel="input channels")
    bar = figure.colorbar(mesh, cax=key)
    bar.outline.set_visible(False)


# ---- one width at a time --------------------------------------------------------------------------------------------


def _draw_slices(
    axes: Axes, grid: Grid, widths: tuple[Sequence[int], Sequence[int]], side: str, scale: float
) -> list[Tip]:
    """Latency over the second of ``widths`` at a few of the first, the rows of ``grid``; the numbers of its points."""
    fixed, along = widths
    tips: list[Tip] = []
    chosen = _worth_a_line(grid)
    for row, color in zip(chosen, _SLICES, strict=False):
        us, error = grid.latency_us[row] / scale, grid.error_us[row] / scale
        known = grid.is_measured[row]
        axes.fill_between(along, us - error, us + error, color=color, alpha=0.15, linewidth=0)
        axes.plot(along, us, color=color, alpha=0.85, linewidth=1.1, label=f"{fixed[row]} {side}")
        at = np.asarray(along)[known]
        axes.errorbar(at, us[known], error[known], color=color, **_ERROR_BARS)
        where = f", {fixed[row]} {side}" if side else ""
        tips += [
            Tip(axes=axes, x=x, y=y, text=f"{x} channels{where}\n{latency(y * scale)} ± {latency(e * scale)}")
            for x, y, e in zip(at.tolist(), us[known].tolist(), error[known].tolist(), strict=True)
        ]
    highest, with_error = grid.latency_us[chosen].max(), (grid.latency_us + grid.error_us)[chosen].max()
    axes.set_ylim(0, 1.1 * min(with_error, 1.5 * highest) / scale)  # a wide error bar must not flatten the curves
    axes.set_xlim(left=0)
    if side:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 0.99), ncols=3, fontsize=8, labelcolor=FAINT, handlelength=0.9,
            columnspacing=0.7, borderpad=0, handletextpad=0.3,
        )  # fmt: skip
    return tips


def _worth_a_line(grid: Grid) -> list[int]:
    """Up to as many rows as there are colours, widest first: the widest, and of the others those measured most."""
    last = len(grid.is_measured) - 1
    others = sorted(range(last), key=lambda row: (int(grid.is_measured[row].sum()), row), reverse=True)
    return sorted([last, *others[: len(_SLICES) - 1]], reverse=True)


# ---- drift ----------------------------------------------------------------------------------------------------------


def drift_figure(table: LatencyTable) -> str | None:
    """The reference's latency at every row, in the order taken, relative to its median; None where there was none.

    Rows not to be trusted are ringed, those that have no reference on the line of the median.
    """
    drift = drift_fractions(table)
    if drift is None:
        return None
    doubtful = np.array([not row.is_trusted for row in table.rows.values()])
    order = np.arange(1, len(drift) + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 2.4), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=DENSE, linewidth=1.2, zorder=0.9)  # the dots stand before it
        axes.scatter(order, 100 * drift, s=9, color=PRUNED, linewidth=0, label="reference")
        if doubtful.any():
            shown = np.where(np.isnan(drift), 0.0, drift)[doubtful]
            axes.scatter(
                order[doubtful], 100 * shown, s=30, facecolor="none", edgecolor=MEASURED, linewidth=1.3,
                label="row not to be trusted",
            )  # fmt: skip
            axes.legend(
                loc="lower left", bbox_to_anchor=(0, 0.99), ncols=2, labelcolor=FAINT, borderpad=0, handletextpad=0.2
            )
        axes.set(xlabel="row, in the order taken", ylabel="% of the median")
        axes.set_xlim(0, len(drift) + 1)
        axes.margins(y=0.12)
        return svg(figure)
