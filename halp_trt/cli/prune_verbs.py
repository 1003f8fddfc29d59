"""``prune`` and ``run``: from settings to a run's folder, one stage of it or all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from halp_trt.cli.output import EXIT_CHECK_FAILED, print_result, progress_bars, stops_with
from halp_trt.cli.parameters import NETWORK, TARGET, engines_option, json_option, resume_option
from halp_trt.cli.settings import config_argument, config_option, options
from halp_trt.cli.values import settings_from
from halp_trt.workflows.folder import RunFolder, Settings

__all__ = ["prune", "run"]

_LIMITS = ("max-prune", "max-prune-step", "frozen", "timing-seconds")
_PRUNING = ("lut", "step", "budget", "method", "saliency", "steps", "minibatches", *_LIMITS, "on-miss", "refine")
_TUNING = ("epochs", "tune-rate", "train-batch", "distillation", "seed", "run-dir")
_TRAINING = ("train-epochs", "train-rate")


@click.command()
@config_option
@options(*NETWORK, *TARGET, *_PRUNING, *_TUNING)
@resume_option
@json_option
def prune(resume: bool, as_json: bool, run_dir: Path | None, **values: Any) -> None:
    """Prune a network to a latency budget.

    Step by step, with training in between and fine-tuning after; everything lands in the run's folder.
    """
    from halp_trt.report import describe
    from halp_trt.workflows.prune_stage import prune_run

    settings = settings_from(values)
    run = _run_folder(run_dir, settings)
    with stops_with(f"every finished step is saved in {run.path}, add --resume to go on"), progress_bars() as bar:
        plan = prune_run(settings, run, bar("prune"), resume=resume)
    print_result(plan, f"{describe(plan)}\n\nwritten to {run.path}; next: halp-trt deploy {run.path}", as_json=as_json)


@click.command()
@config_argument
@options(*NETWORK, *TARGET, *_PRUNING, *_TRAINING, *_TUNING)
@engines_option
@resume_option
@json_option
@click.pass_context
def run(ctx: click.Context, /, run_dir: Path | None, engines: Path, resume: bool, as_json: bool, **values: Any) -> None:
    """Do everything, from training to the report.

    CONFIG is a file of settings, by default halp.toml in this folder, where there is one.
    """
    from halp_trt.report import describe, with_verdict
    from halp_trt.workflows.run import run_all

    settings = settings_from(values)
    folder = _run_folder(run_dir, settings)
    click.echo(f"{settings.model} on {settings.data} to {settings.budget}, in {folder.path}", err=True)
    with stops_with(f"what is finished is saved in {folder.path}, add --resume to go on"), progress_bars() as bar:
        result = run_all(settings, folder, engines=engines, resume=resume, bars=bar, say=_say)
    text = "\n".join([describe(result.verification), "", result.note, f"report: {folder.page}"])
    summary = {"verification": with_verdict(result.verification), "seconds": result.seconds, "report": str(folder.page)}
    print_result(summary, text, as_json=as_json)
    if not result.verification.passed:
        ctx.exit(EXIT_CHECK_FAILED)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _run_folder(path: Path | None, settings: Settings) -> RunFolder:
    words = f"{settings.model} {settings.method} {settings.budget}"
    name = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")
    return RunFolder(path=path or Path("runs") / name)
