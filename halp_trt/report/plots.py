"""The figures of a report, each a value in and one SVG out; the same value gives the same bytes."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from halp_trt.latency import LatencyTable
from halp_trt.planning.answer import Sweep
from halp_trt.report.units import latency
from halp_trt.specs import Layer, LayerSpec, Measurement, PruningPlan, Verification

__all__ = ["frontier_figure", "layers_figure", "staircases_figure", "steps_figure", "widths_figure"]

INK, FAINT, GRID = "#1e293b", "#64748b", "#e2e8f0"
DENSE, PRUNED, MEASURED = "#cbd5e1", "#0f766e", "#ea580c"
_MOST_STAIRCASES = 6
_FEWEST_POINTS = 4
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "halp-trt",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _time_unit(us: float) -> tuple[float, str]:
    return (1e3, "ms") if us >= 1e3 else (1.0, "µs")


# ---- steps ----------------------------------------------------------------------------------------------------------


def steps_figure(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Budget, predicted and measured share of the dense latency at every step, and the loss; None without steps."""
    rows = [row for row in log if row.get("dense_us") and row.get("latency_us")]
    if not rows:
        return None
    losses = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.1), layout="constrained")
        panels = figure.subplots(1, 2 if losses else 1, squeeze=False, width_ratios=[1.7, 1] if losses else [1])[0]
        _draw_shares(panels[0], rows)
        if losses:
            steps, values = zip(*losses, strict=True)
            panels[1].plot(steps, values, color=FAINT, marker="o", markersize=4.5, linewidth=1.4)
            panels[1].set_title("training loss at the step")
            panels[1].set_xlabel("pruning step")
            panels[1].margins(y=0.12)
            panels[1].set_ylim(bottom=0)
            panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def _draw_shares(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    def shares(name: str, dense: str) -> list[float]:
        return [100.0, *(100 * row[name] / row[dense] for row in rows)]

    steps = [0, *(row["step"] for row in rows)]
    axes.step(steps, shares("budget_us", "dense_us"), where="pre", color=DENSE, linewidth=1.6, label="budget")
    axes.plot(steps, shares("latency_us", "dense_us"), color=PRUNED, marker="o", markersize=5, label="predicted")
    if all(row.get("measured_us") and row.get("measured_dense_us") for row in rows):
        axes.plot(
            steps,
            shares("measured_us", "measured_dense_us"),
            color=MEASURED,
            marker="o",
            markersize=5,
            label="measured",
        )
    axes.set_title("latency in % of dense")
    axes.set_xlabel("pruning step")
    axes.set_ylim(0, 108)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left", labelcolor=FAINT)


# ---- frontier -------------------------------------------------------------------------------------------------------


def frontier_figure(sweep: Sweep) -> str:
    """Kept saliency against latency, in % of the dense network's latency."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        shares = [100 * point.latency_us / sweep.dense_us for point in sweep.points]
        values = [point.value for point in sweep.points]
        axes.plot(shares, values, color=PRUNED, marker="o", markersize=3.5, linewidth=1.4)
        axes.set_title(f"saliency that a latency can keep ({sweep.solver})")
        axes.set_xlabel(f"latency in % of dense ({latency(sweep.dense_us)})")
        axes.set_ylabel("kept saliency")
        axes.margins(y=0.1)
        return _svg(figure)


# ---- widths ---------------------------------------------------------------------------------------------------------


def widths_figure(plan: PruningPlan) -> str | None:
    """Kept channels of every prunable group against its dense width; None where nothing can be pruned."""
    groups, counts = plan.graph.prunable_groups, plan.counts()
    if not groups:
        return None
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 0.5 + 0.27 * len(groups)), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(groups))
        axes.barh(rows, [g.num_channels for g in groups], color=GRID, height=0.66, label="dense")
        axes.barh(rows, [counts[g.name] for g in groups], color=PRUNED, height=0.66, label="kept")
        for row, group in zip(rows, groups, strict=True):
            axes.annotate(
                f"{counts[group.name]} of {group.num_channels}",
                (group.num_channels, row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=FAINT,
                fontsize=8.5,
            )
        _name_rows(axes, [g.name for g in groups])
        axes.set_xlabel("channels")
        axes.margins(x=0.1)
        return _svg(figure)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", colors=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


# ---- predicted against measured -------------------------------------------------------------------------------------


def layers_figure(verification: Verification) -> str | None:
    """What the table predicted for each layer against the profile of the pruned engine; None without a profile."""
    layers = verification.layers
    if not layers:
        return None
    scale, unit = _time_unit(max(max(x.predicted_us, x.measured_us) for x in layers))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 0.8 + 0.27 * len(layers)), layout="constrained")
        axes = figure.add_subplot()
        for row, layer in enumerate(layers):
            pair = sorted((layer.predicted_us / scale, layer.measured_us / scale))
            axes.plot(pair, [row, row], color=DENSE, linewidth=3, solid_capstyle="round", zorder=1)
        rows = range(len(layers))
        axes.scatter(
            [x.predicted_us / scale for x in layers], rows, s=34, color=PRUNED, label="predicted by the table", zorder=3
        )
        axes.scatter(
            [x.measured_us / scale for x in layers],
            rows,
            s=34,
            color=MEASURED,
            label="measured in the engine",
            zorder=2,
        )
        _name_rows(axes, [layer.name for layer in layers])
        axes.set_xlim(left=0)
        axes.set_xlabel(f"latency in {unit}")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, labelcolor=FAINT, borderpad=0, handletextpad=0.2)
        return _svg(figure)


# ---- staircases -----------------------------------------------------------------------------------------------------


def staircases_figure(table: LatencyTable, plan: PruningPlan | None = None) -> str | None:
    """Measured latency over output width for the kernels that cost the most; None without a slice of a few widths."""
    curves = _curves(table, plan)[:_MOST_STAIRCASES]
    if not curves:
        return None
    num_columns = min(3, len(curves))
    num_rows = math.ceil(len(curves) / num_columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.6, 2.15 * num_rows + 0.2), layout="constrained")
        grid = figure.subplots(num_rows, num_columns, squeeze=False)
        for axes, (title, rows, marks) in zip(grid.flat, curves, strict=False):
            _draw_staircase(axes, title, rows, marks)
        for axes in list(grid.flat)[len(curves) :]:
            axes.set_axis_off()
        return _svg(figure)


_Rows = list[tuple[int, Measurement]]
_Marks = Mapping[str, int]


def _draw_staircase(axes: Axes, title: str, rows: _Rows, marks: _Marks) -> None:
    scale, unit = _time_unit(max(m.p90_us for _, m in rows))
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
            axes.scatter([width], [medians[width]], s=38, facecolor="white", edgecolor=color, linewidth=1.6, zorder=3)
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
    return f"{shape}{strided}, {num_inputs} inputs" + (f", {size}" if size else "")


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
