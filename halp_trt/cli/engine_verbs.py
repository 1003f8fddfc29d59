"""``deploy`` and ``verify``: the engines of a run that was pruned, built and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from halp_trt.cli.output import EXIT_CHECK_FAILED, print_result, progress_bars
from halp_trt.cli.parameters import engines_option, json_option
from halp_trt.cli.settings import config_option, options
from halp_trt.workflows.folder import RunFolder, Settings

__all__ = ["deploy", "verify"]

_PLACE = ("runtime", "precision", "optimization_level")
_BUILDS = "Engines to build of each network, where TensorRT's differ; the one of median latency is kept."
_PORTABLE = "Let TensorRT engines load in later versions, on other GPUs, or both; they may be slower."

_MAX_DROP = "How much worse the score may become: percentage points, or its own unit where it is no fraction."

_run = click.argument("run", type=click.Path(path_type=Path))


@click.command()
@config_option
@_run
@options("runtime", "precision", "optimization-level", "data")
@engines_option
@click.option("--keep-fp32", "keep", multiple=True, metavar="NODE", help="Node that stays in fp32; several times.")
@click.option("--builds", default=1, show_default=True, type=click.IntRange(min=1), help=_BUILDS)
@click.option("--portable", type=click.Choice(["versions", "gpus", "both"]), help=_PORTABLE)
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Memory for kernels; by default all.")
@click.option("--force", is_flag=True, help="Overwrite engines of another run whose folder has the same name.")
@json_option
@click.pass_context
def deploy(
    ctx: click.Context,
    /,
    run: Path,
    engines: Path,
    keep: tuple[str, ...],
    builds: int,
    portable: str | None,
    workspace: int | None,
    force: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Build the engines of a run, dense and pruned.

    RUN is a folder that prune wrote. Where TensorRT is installed the pruned network also becomes a .plan. The number
    format of every engine is proven and recorded.
    """
    from halp_trt.report import describe
    from halp_trt.runtimes import BuildOptions
    from halp_trt.workflows.deploy import Order
    from halp_trt.workflows.deploy_stage import deploy_run

    folder = RunFolder(path=run)
    with progress_bars() as bar:
        options = BuildOptions(
            version_compatible=portable in ("versions", "both"),
            hardware_compatible=portable in ("gpus", "both"),
            workspace_bytes=workspace << 20 if workspace else None,
            progress=bar("deploy"),
        )
        order = Order(engines=engines, keep=keep, options=options, num_builds=builds, overwrite=force)
        built = deploy_run(folder, _overridden(ctx, folder, values), order)
    records = [record for record in (built.dense, built.pruned, built.plan) if record is not None]
    parts = [*(describe(record) for record in records), built.note, f"next: halp-trt verify {run}"]
    text = "\n\n".join(part for part in parts if part)
    print_result({"engines": records, "note": built.note}, text, as_json=as_json)


@click.command()
@config_option
@_run
@options("runtime", "precision", "lut")
@engines_option
@click.option("--tolerance", default=5.0, show_default=True, help="Percent above the budget that still pass.")
@click.option("--seconds", default=10.0, show_default=True, help="How long the engines are timed, about.")
@click.option("--max-drop", type=float, metavar="POINTS", help=_MAX_DROP)
@click.option("--witness", is_flag=True, help="Compare outputs with ONNX Runtime's, too, through Polygraphy.")
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    run: Path,
    engines: Path,
    tolerance: float,
    seconds: float,
    max_drop: float | None,
    witness: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Compare the engines of a run on this device.

    Latency, throughput, score, prediction error, and whether the engine still computes what the masked model does. Exit
    code 1 if the budget is missed, the outputs differ, or the score falls by more than --max-drop. RUN is a folder that
    prune wrote. With another runtime or precision than it was pruned for, predictions are by that target's own latency
    table, where there is one.
    """
    from halp_trt.report import describe, with_verdict
    from halp_trt.workflows.verify import Tolerances
    from halp_trt.workflows.verify_stage import verify_run

    folder = RunFolder(path=run)
    limits = Tolerances(latency_fraction=tolerance / 100, seconds=seconds, max_drop=max_drop)
    settings = _overridden(ctx, folder, values)
    result = verify_run(folder, settings, engines=engines, tolerances=limits, with_witness=witness)
    print_result(with_verdict(result), describe(result), as_json=as_json)
    if not result.passed:
        ctx.exit(EXIT_CHECK_FAILED)


def _overridden(ctx: click.Context, run: RunFolder, values: Mapping[str, Any]) -> Settings:
    """The settings that a run was pruned with, where the command line does not say otherwise.

    For another target the run's own latency table is forgotten.
    """
    typed: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    settings = run.read_settings()
    is_same_target = all(typed.get(name, getattr(settings, name)) == getattr(settings, name) for name in _PLACE)
    return replace(settings, **{**({} if is_same_target else {"lut": ""}), **typed})
