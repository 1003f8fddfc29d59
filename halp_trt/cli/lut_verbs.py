"""``build-lut`` and ``merge-luts``: layers measured into a latency table, and tables brought together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from halp_trt.cli.config import config_option
from halp_trt.cli.kinds import Whole
from halp_trt.cli.output import print_result, progress_bars, stops_with
from halp_trt.cli.parameters import PATH, json_option, resume_option
from halp_trt.cli.quiet import await_quiet, quiet_option
from halp_trt.cli.settings import SettingsCommand, settings_from
from halp_trt.errors import UsageError
from halp_trt.texts import number_in, one_line

if TYPE_CHECKING:
    from halp_trt.latency import LatencyTable
    from halp_trt.planning.prunability import Prunability

__all__ = ["build_lut", "merge_luts", "print_table"]

_MOST_PROBES = 10**7
_TAKES = ("network", "data", "place", "table.width_step", "prune.frozen", "random")


@click.command("build-lut", cls=SettingsCommand, takes=_TAKES)
@config_option
@click.option("--out", type=PATH, help="File of the table; by default luts/<target>.jsonl.")
@click.option("--full-grid", is_flag=True, help="Measure every pair of widths instead of interpolating between few.")
@click.option(
    "--max-probes",
    type=Whole(1, _MOST_PROBES),
    help="Largest number of measured layers; by default 24 for every different layer, but at least 1000.",
)
@click.option(
    "--max-error",
    default="3%",
    show_default=True,
    help="Error of the interpolation above which more width pairs are measured nearby, as a share of the latency.",
)
@quiet_option
@resume_option
@json_option
def build_lut(
    given: Mapping[str, Any],
    out: Path | None,
    full_grid: bool,
    max_probes: int | None,
    max_error: str,
    quiet_within: float | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Measure single layers into a latency table.

    Every layer of the model is measured over its input and output widths, in steps. A few width pairs are measured
    first; more where interpolation is off by more than --max-error. Tables are shared by models: layers that are in the
    table already are not measured again, unless they were measured for a network of quite another size.
    """
    from halp_trt.latency import Effort
    from halp_trt.workflows.survey import Survey
    from halp_trt.workflows.table_stage import measure_alone

    if full_grid and max_probes:
        raise UsageError("--full-grid measures every pair of widths, so --max-probes has no use; leave one of them out")
    settings = settings_from(given)
    error = _share(max_error)
    survey = Survey(
        step=settings.table.width_step,
        effort=Effort(max_probes=max_probes, max_error_fraction=error) if max_probes else None,
        max_error_fraction=error,
        is_full=full_grid,
        seed=settings.random.seed,
    )
    with (
        stops_with("every measured layer is saved, run the same command with --resume to go on"),
        progress_bars() as bar,
    ):
        await_quiet(quiet_within)
        path, table, part = measure_alone(settings, survey, out, bar("build-lut"), resume=resume)
    print_table(path, table, part, as_json=as_json)


@click.command("merge-luts")
@click.argument("tables", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="File of the merged table.")
@json_option
def merge_luts(tables: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Merge latency tables of one target.

    TABLES were measured apart, on machines of a kind. If several have measured a layer, the last row counts.
    """
    from halp_trt.workflows import merge

    print_table(out, merge.merge_luts(tables, out), None, as_json=as_json)


def print_table(path: Path, table: LatencyTable, part: Prunability | None, *, as_json: bool) -> None:
    """Prints what a table that was written holds."""
    from halp_trt.report import describe
    from halp_trt.report.prunability import describe_prunability

    summary: dict[str, object] = {
        "file": str(path),
        "target": table.target,
        "num_rows": len(table.rows),
        "num_surfaces": len(table.surfaces),
        "num_entries": sum(surface.num_entries for surface in table.surfaces),
        "num_failures": len(table.failed),
    }
    parts = [describe(table), one_line(f"written to {path}")]
    if part is not None:
        summary["prunability"] = part
        parts.insert(1, describe_prunability(part))
    print_result(summary, "\n\n".join(parts), as_json=as_json)


def _share(text: str) -> float:
    """A share, read from a text in percent.

    Raises:
        UsageError: it is not one between 0 and 100 %.
    """
    percent = number_in(text.strip().removesuffix("%"))
    if percent is None or not 0 < percent < 100:
        raise UsageError(f"{text!r} is not a share between 0 and 100 %; try '3%'")
    return percent / 100
