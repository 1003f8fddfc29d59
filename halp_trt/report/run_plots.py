"""The figures of a run: its steps, the widths it kept, its frontier, and predictions against measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from halp_trt.report.canvas import DENSE, FAINT, INK, MEASURED, PRUNED, STYLE, Tip, svg, time_unit
from halp_trt.report.units import latency
from halp_trt.solvers.answer import Sweep
from halp_trt.specs import PruningPlan, Verification

__all__ = ["frontier_figure", "layers_figure", "steps_figure", "widths_figure"]

# ---- steps ----------------------------------------------------------------------------------------------------------


def steps_figure(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Budget, predicted and measured share of the dense latency at every step, and the loss; None without steps."""
    rows = [row for row in log if row.get("dense_us") and row.get("latency_us")]
    if not rows:
        return None
    losses = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.1), layout="constrained")
        panels = figure.subplots(1, 2 if losses else 1, squeeze=False, width_ratios=[1.7, 1] if losses else [1])[0]
        _draw_shares(panels[0], rows)
        if losses:
            steps, values = zip(*losses, strict=True)
            panels[1].plot(steps, values, color=FAINT, marker="o", markersize=4.5, linewidth=1.4)
            panels[1].set_title("training loss at the step")
            panels[1].set_xlabel("pruning step")
            if min(values) >= 0 and max(values) > 0:
                panels[1].set_ylim(0, 1.12 * max(values))
            panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg(figure)


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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        shares = [100 * point.latency_us / sweep.dense_us for point in sweep.points]
        values = [point.value for point in sweep.points]
        axes.plot(shares, values, color=PRUNED, marker="o", markersize=3.5, linewidth=1.4, drawstyle="steps-post")
        axes.set_title(f"saliency that a latency can keep ({sweep.solver})")
        axes.set_xlabel(f"latency in % of dense ({latency(sweep.dense_us)})")
        axes.set_ylabel("kept saliency")
        axes.margins(y=0.1)
        tips = [
            Tip(
                axes=axes,
                x=share,
                y=point.value,
                text=f"{share:.1f} % of dense, {latency(point.latency_us)}\nsaliency {point.value:.6g}\n"
                f"gap {point.gap:.1e}",
            )
            for share, point in zip(shares, sweep.points, strict=True)
        ]
        return svg(figure, tips)


# ---- widths ---------------------------------------------------------------------------------------------------------


def widths_figure(plan: PruningPlan) -> str | None:
    """Kept channels of every prunable group against its dense width; None where nothing can be pruned."""
    groups, counts = plan.graph.prunable_groups, plan.counts()
    if not groups:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 0.5 + 0.27 * len(groups)), layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(groups))
        axes.barh(rows, [g.num_channels for g in groups], color=DENSE, height=0.66, label="dense")
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
        return svg(figure)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", colors=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


# ---- predicted against measured -------------------------------------------------------------------------------------


def layers_figure(verification: Verification) -> str | None:
    """The table's prediction of each layer against the profile of the pruned engine; None without a profile."""
    layers = verification.layers
    if not layers:
        return None
    scale, unit = time_unit(max(max(x.predicted_us, x.measured_us) for x in layers))
    with matplotlib.rc_context(STYLE):
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
        return svg(figure)
