"""Plans and frontiers as plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from halp_trt.report import units
from halp_trt.report.parts import Figure, Parts, Table, Tile
from halp_trt.report.shown import shown
from halp_trt.solvers.answer import Answer, Sweep
from halp_trt.solvers.problem import Solution
from halp_trt.texts import counted

__all__ = ["describe_answer", "describe_sweep", "sweep_parts"]

_PROOFS = {
    "optimal": "proven optimal",
    "gap": "proven to the gap asked for",
    "limit": "not proven to the gap asked for",
}


def describe_answer(answer: Answer, solution: Solution, dense_us: float) -> str:
    """A plan in words: its widths, latency and saliency, and its gap to the bound."""
    answer, solution = shown(answer), shown(solution)
    share = units.percent(answer.latency_us / dense_us, 1)
    rows = [
        ("saliency", f"{answer.value:.6g}, {_PROOFS[solution.status]}: no plan keeps more than {answer.bound:.6g}"),
        ("gap", f"{answer.gap:.2e}"),
        ("latency", f"{units.latency(answer.latency_us)}, {share} of dense, budget {units.latency(answer.budget_us)}"),
    ]
    rows += [(name, f"{cost:.6g}") for name, cost in list(solution.costs.items())[1:]]
    rows += [("solved in", f"{answer.seconds:.2f} s"), ("", ""), ("group", "kept")]
    rows += [(group, str(kept)) for group, kept in answer.kept.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}".rstrip() for name, text in rows)


def describe_sweep(sweep: Sweep) -> str:
    """A frontier, one line for every percent of the dense latency: the last plan of each, which is the best."""
    shown, rows = _shown(sweep)
    every = "" if len(shown) == len(sweep.points) else "; all of them with --json"
    found = f"\n\n{counted(len(sweep.points), 'plan')} found in {sweep.seconds:.2f} s{every}"
    first = sweep.points[0]
    unmet = f"\n\nno plan was found below {units.percent(first.latency_us / sweep.dense_us, 1)} of dense"
    return units.columns(rows) + found + (unmet if first.latency_us > sweep.low_us else "")


def _shown(sweep: Sweep) -> tuple[list[Answer], list[Sequence[str]]]:
    """The last plan of every percent, and its row; the heading comes first."""
    shown = {math.floor(100 * point.latency_us / sweep.dense_us): point for point in sweep.points}
    rows: list[Sequence[str]] = [("of dense", "latency", "saliency", "gap")]
    rows += [
        (
            units.percent(point.latency_us / sweep.dense_us, 1),
            units.latency(point.latency_us),
            f"{point.value:.6g}",
            f"{point.gap:.1e}",
        )
        for point in shown.values()
    ]
    return list(shown.values()), rows


def sweep_parts(sweep: Sweep) -> Parts:
    """The parts of a frontier's page."""
    from halp_trt.report.run_plots import frontier_figure

    shown, rows = _shown(sweep)
    most = max(point.gap for point in sweep.points)
    return Parts(
        tiles=[
            Tile(label="Plans", value=units.count(len(sweep.points)), detail=f"found in {sweep.seconds:.2f} s"),
            Tile(label="Dense latency", value=units.latency(sweep.dense_us), detail="the budgets are shares of it"),
            Tile(label="Largest gap", value=f"{most:.1e}", detail="between a plan and the bound on any plan"),
        ],
        figures=[
            Figure(
                title="Frontier",
                caption="The most saliency that a latency can keep. Each point is a plan.",
                svg=frontier_figure(sweep),
            )
        ],
        tables=[Table(title="Plans", caption=f"The best of every percent: {counted(len(shown), 'plan')}.", rows=rows)],
    )
