"""The pages of times and profiles by trtexec: queries in order, and layers."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas

from halp_trt.gate.trtexec import LayerProfile, LayerProfiles, QueryRun, QueryRuns, QuerySummary
from halp_trt.report import units
from halp_trt.report.canvas import INK, PRUNED, STYLE, Tip, svg, time_unit
from halp_trt.report.parts import Figure, Parts, Table, Tile
from halp_trt.report.trtexec import AUTOCORRELATED, layer_rows, run_title

__all__ = ["profile_parts", "query_parts"]

_MOST_RUNS = 24
_MOST_DOTS = 4000
_MOST_BARS = 25
_DOTS = "#7f8da1"
"""Colour of a picture's dots, which is seen on a light and on a dark ground: pictures know no style sheet."""
_MOST_ROWS = 1000


def query_parts(value: QueryRuns) -> Parts:
    """The tiles and figures of a file of times."""
    figures = [
        Figure(
            title=run_title(value, number),
            caption="Latency of each query in order, and medians of ten consecutive parts. "
            f"{_autocorrelated(run.summary())}{AUTOCORRELATED}",
            svg=_run_figure(run),
        )
        for number, run in enumerate(value.runs[:_MOST_RUNS])
    ]
    only = value.runs[0] if len(value.runs) == 1 else None
    return Parts(tiles=list(_tiles(only.summary())) if only else (), figures=figures, with_text=len(value.runs) > 1)


def _autocorrelated(found: QuerySummary) -> str:
    if found.autocorrelation is None:
        return ""
    return f"Each query correlates with the next by {found.autocorrelation:.2f}. "


def _tiles(found: QuerySummary) -> Iterator[Tile]:
    spread = f"p10 {units.latency(found.p10_us)}, p90 {units.latency(found.p90_us)}"
    yield Tile(label="Median", value=units.latency(found.latency_us), detail=spread)
    if found.queries_per_second is not None:
        yield Tile(label="Throughput", value=f"{found.queries_per_second:,.1f}", detail="queries/s")
    yield Tile(label="Queries", value=units.count(found.num_queries), detail="in one process")
    if found.drift_fraction is not None:
        yield Tile(label="Drift", value=units.percent(found.drift_fraction), detail="between medians of ten parts")


def _run_figure(run: QueryRun) -> str:
    found, latencies = run.summary(), np.asarray(run.latencies_us)
    scale, unit = time_unit(float(np.median(latencies)))
    order = np.arange(1, len(latencies) + 1)
    shown = np.unique(np.linspace(0, len(order) - 1, min(len(order), _MOST_DOTS)).astype(int))
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(8.6, 2.8), layout="constrained")
        axes = canvas.add_subplot()
        axes.plot(
            order[shown], latencies[shown] / scale, linestyle="", marker=".", markersize=2.5, color=_DOTS,
            markeredgewidth=0, rasterized=True,
        )  # fmt: skip
        tips = []
        if found.parts_us:
            middles = (np.arange(10) + 0.5) * len(order) / 10
            axes.plot(middles, np.asarray(found.parts_us) / scale, color=PRUNED, marker="o", markersize=5)
            tips = [
                Tip(axes=axes, x=x, y=us / scale, text=f"part {number} of 10\nmedian {us / scale:.4g} {unit}")
                for number, (x, us) in enumerate(zip(middles, found.parts_us, strict=True), start=1)
            ]
        low, high = np.percentile(latencies, [0.5, 99.5]) / scale
        room = max(0.1 * (high - low), 0.005 * high, 1e-6)
        axes.set_ylim(low - room, high + room)
        axes.set(xlabel="query", ylabel=unit)
        return svg(canvas, tips)


def profile_parts(value: LayerProfiles) -> Parts:
    """The figures and tables of a file of profiles."""
    figures, tables = [], []
    for number, profile in enumerate(value.profiles[:_MOST_RUNS]):
        which = f", profile {number + 1} of {len(value.profiles)}" if len(value.profiles) > 1 else ""
        more = len(profile.layers) - _MOST_BARS
        rest = f" {more} more are in the table." if more > 0 else ""
        figures.append(
            Figure(
                title=f"The slowest layers{which}",
                caption=f"Mean time of a run by trtexec's profile, over {units.count(profile.num_runs)} runs; "
                f"{units.latency(profile.total_us)} in sum.{rest}",
                svg=_layers_figure(profile),
            )
        )
        rows = layer_rows(profile, _MOST_ROWS, longest=200)
        tables.append(Table(title=f"Layers{which}", caption="The slowest first.", rows=rows))
    return Parts(figures=figures, tables=tables)


def _layers_figure(profile: LayerProfile) -> str:
    slowest = profile.slowest()[:_MOST_BARS]
    scale, unit = time_unit(slowest[0][0].mean_us)
    names = [layer.name if len(layer.name) <= 44 else f"{layer.name[:43]}…" for layer, _ in slowest]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(8.6, 0.6 + 0.27 * len(slowest)), layout="constrained")
        axes = canvas.add_subplot()
        values = [layer.mean_us / scale for layer, _ in slowest]
        axes.barh(range(len(slowest)), values, color=PRUNED, height=0.66)
        axes.set_yticks(range(len(slowest)), names)
        axes.tick_params(axis="y", colors=INK)
        axes.set_ylim(len(slowest) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"mean in {unit}")
        tips = [
            Tip(
                axes=axes,
                x=layer.mean_us / scale,
                y=row,
                text=f"{layer.name}\n{units.latency(layer.mean_us)}, {units.percent(share, 1)}",
            )
            for row, (layer, share) in enumerate(slowest)
        ]
        return svg(canvas, tips)
