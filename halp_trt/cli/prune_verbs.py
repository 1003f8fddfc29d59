"""``prune`` and ``run``: from settings to a run's folder, one stage of it or all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from halp_trt.cli.config import config_argument, config_option
from halp_trt.cli.output import print_result, progress_bars, stops_with
from halp_trt.cli.parameters import PATH, engines_option, force_option, json_option, resume_option, seconds_option
from halp_trt.cli.processes import taking_part
from halp_trt.cli.quiet import await_quiet, exit_code, quiet_option
from halp_trt.cli.settings import SettingsCommand, settings_from
from halp_trt.cli.streams import say
from halp_trt.texts import one_line
from halp_trt.workflows.folder import RunFolder, slug
from halp_trt.workflows.settings import Settings

__all__ = ["prune", "run"]

_OUT = "The folder of this run; by default runs/<model>-<method>-<budget>."
_PRUNING = ("network", "data", "place", "table", "prune")
_out = click.option("--out", type=PATH, help=_OUT)


@click.command(cls=SettingsCommand, takes=(*_PRUNING, "tune", "random"))
@config_option
@_out
@quiet_option
@resume_option
@force_option
@json_option
def prune(
    given: Mapping[str, Any], out: Path | None, quiet_within: float | None, resume: bool, force: bool, as_json: bool
) -> None:
    """Prune a network to a latency budget.

    Step by step, with training in between and fine-tuning after; everything lands in the run's folder.
    """
    from halp_trt.report import describe
    from halp_trt.report.prunability import describe_prunability
    from halp_trt.store import encode
    from halp_trt.workflows.follow import follow_run
    from halp_trt.workflows.prune_stage import prune_alone
    from halp_trt.workflows.show import open_artefact

    asked = settings_from(given)
    run = _run_folder(out, asked)
    saved = f"every finished step is saved in {run.path}, add --resume to go on"
    with stops_with(saved), taking_part(asked, saved) as (settings, world), progress_bars() as bar:
        if not world.is_first:
            follow_run(settings, world, trains_dense=False)
            return
        await_quiet(quiet_within)
        plan = prune_alone(settings, run, bar("prune"), resume=resume, force=force, world=world)
    part = open_artefact(run.path).prunability
    parts = [describe(plan), *([describe_prunability(part)] if part is not None else [])]
    parts.append(one_line(f"written to {run.path}; next: halp-trt deploy {run.path}"))
    print_result({**encode(plan), "prunability": part}, "\n\n".join(parts), as_json=as_json)


@click.command(cls=SettingsCommand, takes=(*_PRUNING, "train", "tune", "deploy", "random"))
@config_argument
@_out
@engines_option
@seconds_option
@quiet_option
@resume_option
@force_option
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    given: Mapping[str, Any],
    out: Path | None,
    engines: Path,
    seconds: float,
    quiet_within: float | None,
    resume: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Do everything, from training to the report.

    CONFIG is a file of settings, by default halp.toml in this folder, where there is one.
    """
    from halp_trt.report import describe, with_verdict
    from halp_trt.workflows.follow import follow_run
    from halp_trt.workflows.run import run_all

    asked = settings_from(given)
    folder = _run_folder(out, asked)
    network, data, budget = asked.network.model, asked.data.data, asked.prune.budget.text
    saved = f"what is finished is saved in {folder.path}, add --resume to go on"
    with stops_with(saved), taking_part(asked, saved) as (settings, world), progress_bars() as bar:
        if not world.is_first:
            follow_run(settings, world, trains_dense=True)
            return
        await_quiet(quiet_within)
        _say(f"{network} on {data} to {budget}, in {folder.path}")
        result = run_all(
            settings,
            folder,
            engines=engines,
            seconds=seconds,
            resume=resume,
            force=force,
            bars=bar,
            say=_say,
            world=world,
        )
    text = "\n".join([describe(result.verification), "", one_line(result.note), one_line(f"report: {folder.page}")])
    summary = {"verification": with_verdict(result.verification), "seconds": result.seconds, "report": str(folder.page)}
    print_result(summary, text, as_json=as_json)
    ctx.exit(exit_code(result.verification, quiet_within))


def _say(line: str) -> None:
    say(one_line(line), err=True)


def _run_folder(path: Path | None, settings: Settings) -> RunFolder:
    name = slug(settings.network.model, settings.prune.method, settings.prune.budget.text)
    return RunFolder(path=Path("runs") / name if path is None else path)
