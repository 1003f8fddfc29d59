"""``deploy`` and ``verify``: the engines of a run that was pruned, built and compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from halp_trt.cli.config import config_option
from halp_trt.cli.kinds import Finite, Whole
from halp_trt.cli.output import print_result, progress_bars
from halp_trt.cli.parameters import PATH, engines_option, json_option, seconds_option
from halp_trt.cli.quiet import await_quiet, exit_code, quiet_option
from halp_trt.cli.settings import SettingsCommand, settings_of_run
from halp_trt.errors import UsageError
from halp_trt.texts import one_line
from halp_trt.workflows.folder import RunFolder

if TYPE_CHECKING:
    from halp_trt.specs import DeviceVerification, Verification
    from halp_trt.workflows.deploy import DeployOptions
    from halp_trt.workflows.settings import Settings

__all__ = ["deploy", "verify"]

_BUILDS = "Engines to build of each network, where TensorRT's differ; the one of median latency is kept."
_PORTABLE = "Let TensorRT engines load in later versions, on other GPUs, or both; they may be slower."
_COMMANDS = "Write networks and trtexec's commands for a device that has TensorRT alone, and build nothing here."
_FROM = "Judge by the files in this folder, which trtexec wrote on a device that is not here."
_MOST_BUILDS = 100
_MOST_MIB = 2**24
_PLACE = ("place.device", "place.runtime", "place.precision")

_MAX_DROP = "Largest drop of the score that still passes: percentage points, or its own unit if it is no fraction."

_run = click.argument("run", type=PATH)


@click.command(
    cls=SettingsCommand,
    takes=("network.model", "data.data", *_PLACE, "place.optimization_level", "deploy.nms"),
    of_run=True,
)
@config_option
@_run
@click.option("--out", type=PATH, default=Path("engines"), show_default=True, help="Folder of the engines.")
@click.option("--keep-fp32", "keep", multiple=True, metavar="NODE", help="Node that stays in fp32; several times.")
@click.option("--builds", default=1, show_default=True, type=Whole(1, _MOST_BUILDS), help=_BUILDS)
@click.option("--portable", type=click.Choice(["versions", "gpus", "both"]), help=_PORTABLE)
@click.option("--workspace", type=Whole(1, _MOST_MIB), metavar="MIB", help="Memory for kernels; by default all.")
@click.option("--force", is_flag=True, help="Overwrite engines of another run whose folder has the same name.")
@click.option("--commands", is_flag=True, help=_COMMANDS)
@json_option
def deploy(
    given: Mapping[str, Any],
    run: Path,
    out: Path,
    keep: tuple[str, ...],
    builds: int,
    portable: str | None,
    workspace: int | None,
    force: bool,
    commands: bool,
    as_json: bool,
) -> None:
    """Build the engines of a run, dense and pruned.

    RUN is a folder that prune wrote. If TensorRT is installed the pruned network also becomes a .plan. The number
    format of every engine is proven and recorded. For --nms onnx a network of one's own (module:factory) has to be
    named again with --model.

    With --commands nothing is built here: both networks and, for TensorRT 8.5, 10 and 11, a script of trtexec's
    commands are written, to be run on a device that has TensorRT alone. What they leave behind is judged by verify
    --from.

    A setting comes from the command line, else from halp.toml, else from the run, else it has its default.
    """
    from halp_trt.report import describe
    from halp_trt.runtimes import BuildOptions
    from halp_trt.workflows.deploy import DeployOptions
    from halp_trt.workflows.deploy_stage import deploy_alone
    from halp_trt.workflows.network import own_code

    folder = RunFolder(path=run)
    if commands:
        if builds != 1 or portable or workspace or force:
            raise UsageError("--commands builds nothing here; leave --builds, --portable, --workspace and --force out")
        _write_commands(folder, given, DeployOptions(engines=out, keep=keep), as_json=as_json)
        return
    settings = settings_of_run(folder, given)
    with progress_bars() as bar:
        options = BuildOptions(
            version_compatible=portable in ("versions", "both"),
            hardware_compatible=portable in ("gpus", "both"),
            workspace_bytes=workspace << 20 if workspace else None,
            progress=bar("deploy"),
        )
        order = DeployOptions(engines=out, keep=keep, options=options, num_builds=builds, overwrite=force)
        built = deploy_alone(folder, settings, order)
    records = list(built.records)
    named = [f"{option} {source}" for option, source in own_code(settings.network, settings.data).items()]
    parts = [
        *(describe(record) for record in records),
        one_line(built.note),
        one_line(" ".join(["next: halp-trt verify", str(run), *named])),
    ]
    text = "\n\n".join(part for part in parts if part)
    print_result({"engines": records, "note": built.note}, text, as_json=as_json)


def _settings_of_device(run: RunFolder, given: Mapping[str, Any]) -> Settings:
    """The settings of engines that trtexec builds, whatever the run was pruned for."""
    from halp_trt.workflows.device_commands import tensorrt_name

    return settings_of_run(run, {**given, "runtime": tensorrt_name()})


def _write_commands(run: RunFolder, given: Mapping[str, Any], order: DeployOptions, *, as_json: bool) -> None:
    """Writes the commands for a device with TensorRT alone, and says what to do with them."""
    from halp_trt.workflows.device_commands import write_commands

    settings = _settings_of_device(run, given)
    written = write_commands(run, settings, order)
    lines = [f"networks in {settings.place.precision} and trtexec's commands written to {written.folder}"]
    lines += [f"TensorRT {version}: {file}" for version, file in written.record.scripts.items()]
    lines += [f"TensorRT {version}: none, {reason}" for version, reason in written.left_out.items()]
    lines.append(
        f"next: copy the folder to the device and run its script there; then halp-trt verify {run.path} --from"
    )
    summary = {"folder": str(written.folder), "commands": written.record, "left_out": dict(written.left_out)}
    print_result(summary, "\n".join(map(one_line, lines)), as_json=as_json)


@click.command(cls=SettingsCommand, takes=("network.model", "data.data", *_PLACE, "table.lut"), of_run=True)
@config_option
@_run
@engines_option
@click.option(
    "--tolerance", type=Finite(), default=5.0, show_default=True, help="Percent above the budget that still pass."
)
@seconds_option
@quiet_option
@click.option("--max-drop", type=Finite(), metavar="POINTS", help=_MAX_DROP)
@click.option("--witness", is_flag=True, help="Compare outputs with ONNX Runtime's, too, through Polygraphy.")
@click.option("--from", "device_files", type=PATH, metavar="FOLDER", help=_FROM)
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    given: Mapping[str, Any],
    run: Path,
    engines: Path,
    tolerance: float,
    seconds: float,
    quiet_within: float | None,
    max_drop: float | None,
    witness: bool,
    device_files: Path | None,
    as_json: bool,
) -> None:
    """Compare the engines of a run on this device.

    It shows latency, throughput, score and prediction error, and compares the engine's outputs with the masked model's.
    Exit code 1 if the budget is missed, the outputs differ, or the score falls by more than --max-drop. RUN is a folder
    that prune wrote. For another runtime or precision than it was pruned for, predictions come from that target's own
    latency table, if there is one.

    With --from nothing runs here: a script of deploy --commands ran on a device with TensorRT alone, and the files that
    trtexec wrote there (--exportTimes, --exportProfile, --exportLayerInfo, logs) are judged: budget, throughput, number
    formats, and the prediction where there is a table of that device. Files that are not understood are named.

    A network or pictures of one's own (module:factory) have to be named again with --model and --data, or in halp.toml:
    a run's folder may be anybody's, and its code is not run.

    A setting comes from the command line, else from halp.toml, else from the run, else it has its default.
    """
    from halp_trt.report import describe, with_verdict
    from halp_trt.workflows.verify import Tolerances
    from halp_trt.workflows.verify_device import DeviceLimits, verify_device
    from halp_trt.workflows.verify_stage import verify_alone

    folder = RunFolder(path=run)
    limits = Tolerances(latency_fraction=tolerance / 100, seconds=seconds, max_drop=max_drop)
    result: Verification | DeviceVerification
    if device_files is None:
        settings = settings_of_run(folder, given)
        await_quiet(quiet_within)
        result = verify_alone(folder, settings, engines=engines, tolerances=limits, with_witness=witness)
    else:
        if witness or max_drop is not None:
            raise UsageError("--from judges files that hold no outputs; leave --witness and --max-drop out")
        settings = _settings_of_device(folder, given)
        device_limits = DeviceLimits(
            budget=settings.prune.budget, tolerance_fraction=limits.latency_fraction, table=str(given.get("lut", ""))
        )
        result = verify_device(folder, settings, device_files, device_limits)
    print_result(with_verdict(result), describe(result), as_json=as_json)
    ctx.exit(exit_code(result, quiet_within))
