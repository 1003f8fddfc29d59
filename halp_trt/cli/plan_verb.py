"""``plan``: widths by the numbers alone, nothing is pruned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from halp_trt.cli.config import config_option
from halp_trt.cli.kinds import Number, OneOf
from halp_trt.cli.output import print_result
from halp_trt.cli.parameters import PATH, json_option
from halp_trt.cli.settings import SettingsCommand
from halp_trt.errors import UsageError
from halp_trt.planning import SOLVERS
from halp_trt.texts import one_line
from halp_trt.workflows.settings import Settings

if TYPE_CHECKING:
    from halp_trt.solvers.answer import Sweep
    from halp_trt.workflows.plan import PlanRequest

__all__ = ["plan"]

_RESOURCES: Mapping[str, str] = MappingProxyType(
    {"memory": "memory_bytes", "parameters": "parameters", "flops": "flops"}
)
"""Resources with an option of their own, by the option."""
_MOST_SECONDS = 86_400.0
"""A day."""
_TAKES = ("prune.budget", "table.width_step", "prune.frozen", "prune.max_prune")


@click.command(cls=SettingsCommand, takes=_TAKES)
@config_option
@click.argument("source", type=PATH)
@click.option("--saliency", "saliency_file", type=PATH, help="The network's saliency, where SOURCE is a table.")
@click.option("--graph", type=PATH, help="The network's channel graph; by default graph.json beside the saliency.")
@click.option("--solver", type=OneOf(SOLVERS), default="joint", show_default=True, help="Solver of the plan.")
@click.option("--memory", help="Budget for weights and layer outputs: a share of the dense network's, or bytes.")
@click.option("--parameters", help="Budget for weights and biases: a share of the dense network's, or a number.")
@click.option("--flops", help="Budget for arithmetic: a share of the dense network's, or a number.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Budget for any resource, one's own included: a share of the dense network's, or a number.",
)
@click.option("--least", multiple=True, help="Least width of a layer's group as LAYER=WIDTH; WIDTH alone is for all.")
@click.option(
    "--gap",
    type=Number(0, 1000),
    default=1e-4,
    show_default=True,
    help="Largest distance of the bound above the plan, as a fraction of the plan's saliency.",
)
@click.option("--seconds", type=Number(0, _MOST_SECONDS, min_open=True), help="Time that the solver may take.")
@click.option(
    "--sweep",
    "sweep_range",
    metavar="LOW..HIGH",
    help="The frontier between two budgets, 20%..90%, instead of one plan for --budget.",
)
@click.option(
    "--plot",
    type=PATH,
    help="The frontier's picture (.svg) or page (.html); frontier.svg by default.",
)
@click.option("--out", type=PATH, help="Write the pruning plan to this file, where SOURCE is a table.")
@json_option
def plan(
    given: Mapping[str, Any],
    source: Path,
    as_json: bool,
    sweep_range: str | None,
    plot: Path | None,
    out: Path | None,
    **values: Any,
) -> None:
    """Plan widths without pruning: the most saliency within the budget.

    Every plan comes with a bound on what any plan could keep, and the gap to it.

    SOURCE is a planning instance (JSON), or a latency table that has every pair of widths of every layer, measured or
    interpolated by build-lut; a table needs the saliency and the channel graph, too.

    In an instance a group's choice 0 means removed: joint never takes it, joint-blocks for whole residual blocks, halp
    and exact for any group, as in the papers, even where that cuts the network in two.
    """
    from halp_trt.solvers.problem import limits_from
    from halp_trt.workflows.plan import PlanRequest

    settings = Settings.of(**given)
    request = PlanRequest(
        source=source,
        saliency=values["saliency_file"],
        graph=values["graph"],
        budget=settings.prune.budget,
        others=_others(values),
        solver=values["solver"],
        gap=values["gap"],
        seconds=values["seconds"],
        limits=limits_from(values["least"], settings.prune.frozen, settings.prune.max_prune / 100),
        step=settings.table.width_step,
    )
    if sweep_range is not None:
        _print_frontier(request, sweep_range, plot=plot, out=out, as_json=as_json)
    else:
        _print_plan(request, plot=plot, out=out, as_json=as_json)


def _others(values: Mapping[str, Any]) -> dict[str, str]:
    """The budgets of resources by their names in ``RESOURCES``, as texts.

    Raises:
        UsageError: a limit is not NAME=VALUE, or a resource has two budgets.
    """
    from halp_trt.planning.amounts import limits_in

    given = [f"{name}={values[option]}" for option, name in _RESOURCES.items() if values[option] is not None]
    return limits_in([*given, *values["limits"]])


def _print_frontier(
    request: PlanRequest, sweep_range: str, *, plot: Path | None, out: Path | None, as_json: bool
) -> None:
    from halp_trt.store import check_writable, hold
    from halp_trt.workflows.plan import parse_range, sweep

    if out is not None:
        raise UsageError("a sweep gives many plans, of which none can be written with --out; leave one of them out")
    plot = plot or Path("frontier.svg")
    kind = plot.suffix.lower()
    if kind not in (".svg", ".html"):
        raise UsageError(
            f"the frontier is a picture (.svg) or a page (.html), {plot} is named otherwise; end it in .svg or .html"
        )
    check_writable(plot, *request.files)
    with hold(plot):
        found = sweep(request, *parse_range(sweep_range))
        _show_frontier(found, request.source.name, plot, kind, as_json=as_json)


def _show_frontier(found: Sweep, source: str, plot: Path, kind: str, *, as_json: bool) -> None:
    from halp_trt.report.planning import describe_sweep
    from halp_trt.report.run_plots import frontier_figure
    from halp_trt.store import write_text
    from halp_trt.workflows.show import Opened, page_of

    summary = {
        "solver": found.solver,
        "dense_us": found.dense_us,
        "seconds": found.seconds,
        "points": found.points,
        "plot": str(plot),
    }
    word = "page" if kind == ".html" else "picture"
    print_result(summary, "\n\n".join([describe_sweep(found), one_line(f"{word}: {plot}")]), as_json=as_json)
    title = f"Frontier of {source}"
    page = page_of(Opened(title=title, value=found)) if kind == ".html" else frontier_figure(found)
    write_text(plot, page)  # the plans are not lost where it cannot be written


def _print_plan(request: PlanRequest, *, plot: Path | None, out: Path | None, as_json: bool) -> None:
    from halp_trt.report.planning import describe_answer
    from halp_trt.store import check_writable, hold, save
    from halp_trt.workflows.plan import make_plan

    if plot is not None:
        raise UsageError("only a frontier has a picture; add --sweep 20%..90%, or leave out --plot")
    if out is not None:
        check_writable(out, *request.files)
    with hold(out):
        answer, solution, pruning_plan, dense_us = make_plan(request)
        if out is not None:
            if pruning_plan is None:
                raise UsageError("only a plan for a network can be written with --out; SOURCE is a planning instance")
            save(pruning_plan, out)
    print_result(answer, describe_answer(answer, solution, dense_us), as_json=as_json)
