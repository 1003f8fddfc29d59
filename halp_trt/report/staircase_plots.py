"""Measured staircases: latency of single kernels over their output width."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from halp_trt.latency import LatencyTable
from halp_trt.report.canvas import INK, MEASURED, PAPER, PRUNED, STYLE, Tip, svg, time_unit
from halp_trt.report.units import latency, latency_range
from halp_trt.specs import Layer, LayerSpec, Measurement, PruningPlan
from halp_trt.texts import counted

__all__ = ["staircases_figure"]

_MOST_STAIRCASES = 6
_FEWEST_POINTS = 4


def staircases_figure(table: LatencyTable, plan: PruningPlan | None = None) -> str | None:
    """Measured latency over output width for the kernels that cost the most; None without a slice of a few widths."""
    curves = _curves(table, plan)[:_MOST_STAIRCASES]
    if not curves:
        return None
    num_columns = min(3, len(curves))
    num_rows = math.ceil(len(curves) / num_columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 2.15 * num_rows + 0.2), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        tips: list[Tip] = []
        for axes, (title, rows, marks) in zip(grid.flat, curves, strict=False):
            _draw_staircase(axes, title, rows, marks)
            tips += _tips(axes, rows)
        for axes in list(grid.flat)[len(curves) :]:
            axes.set_axis_off()
        return svg(figure, tips)


_Rows = list[tuple[int, Measurement]]
_Marks = Mapping[str, int]


def _draw_staircase(axes: Axes, title: str, rows: _Rows, marks: _Marks) -> None:
    scale, unit = time_unit(max(m.p90_us for _, m in rows))
    widths = [width for width, _ in rows]
    axes.fill_between(
        widths,
        [m.p10_us / scale for _, m in rows],
        [m.p90_us / scale for _, m in rows],
        color=PRUNED,
        alpha=0.15,
        linewidth=0,
    )
    medians = {width: m.latency_us / scale for width, m in rows}
    axes.plot(widths, list(medians.values()), color=PRUNED, linewidth=1.4, marker="o", markersize=2.6)
    same = marks.get("dense") == marks.get("kept")
    for name, width in marks.items():
        if width in medians and not (same and name == "kept"):
            color = MEASURED if name == "kept" else INK
            axes.scatter([width], [medians[width]], s=38, facecolor=PAPER, edgecolor=color, linewidth=1.6, zorder=3)
            axes.annotate(
                name,
                (width, medians[width]),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                color=color,
                fontsize=8,
            )
    axes.set_title(title)
    axes.set_xlabel("output channels", fontsize=8.5)
    axes.set_ylabel(unit, fontsize=8.5)
    axes.set_ylim(0, 1.4 * max(medians.values()))  # an outlying p90 must not flatten the curve


def _tips(axes: Axes, rows: _Rows) -> list[Tip]:
    """The numbers of each point."""
    scale, _ = time_unit(max(m.p90_us for _, m in rows))
    return [
        Tip(
            axes=axes,
            x=width,
            y=m.latency_us / scale,
            text=f"{width} output channels\n{latency(m.latency_us)}\np10 – p90: {latency_range(m)}",
        )
        for width, m in rows
    ]


def _curves(table: LatencyTable, plan: PruningPlan | None) -> list[tuple[str, _Rows, _Marks]]:
    """The best measured slice of every kernel: title, rows by output width, widths worth a mark."""
    slices: dict[LayerSpec, dict[int, list[tuple[int, Measurement]]]] = defaultdict(lambda: defaultdict(list))
    for spec, measurement in table.rows.items():
        if not spec.is_depthwise:
            slices[spec.with_widths(spec.conv_groups, spec.conv_groups)][spec.in_channels].append(
                (spec.out_channels, measurement)
            )
    marks = _marks(plan) if plan is not None else {}
    curves = []
    for kernel, by_input in slices.items():
        num_inputs, rows = max(by_input.items(), key=lambda item: (len(item[1]), item[0]))
        if len(rows) >= _FEWEST_POINTS:
            curves.append((_title(kernel, num_inputs), sorted(rows, key=lambda row: row[0]), marks.get(kernel, {})))
    return sorted(curves, key=lambda curve: -sum(m.latency_us for _, m in curve[1]))


def _title(kernel: LayerSpec, num_inputs: int) -> str:
    shape = "×".join(map(str, kernel.kernel_size)) or kernel.operator
    strided = f" /{kernel.stride[0]}" if kernel.stride and max(kernel.stride) > 1 else ""
    size = "×".join(map(str, kernel.in_size))
    batch = f", batch {kernel.batch}" if kernel.batch else ""
    return f"{shape}{strided}, {counted(num_inputs, 'input')}" + (f", {size}" if size else "") + batch


def _marks(plan: PruningPlan) -> dict[LayerSpec, dict[str, int]]:
    """The dense and the kept output width of the slowest layer of each kernel."""
    counts = plan.counts()
    marks: dict[LayerSpec, dict[str, int]] = {}
    layers: list[Layer] = sorted(plan.graph.layers, key=lambda layer: layer.spec.out_channels)
    for layer in layers:
        spec = layer.spec
        if not spec.is_depthwise:
            kernel = spec.with_widths(spec.conv_groups, spec.conv_groups)
            marks[kernel] = {
                "dense": spec.out_channels,
                "kept": layer.widths_at(counts)[1] if layer.lives_at(counts) else 0,
            }
    return marks
