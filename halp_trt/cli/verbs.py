"""The verbs. Whatever needs more than numpy and click is imported inside them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import halp_trt
from halp_trt.cli.output import EXIT_CHECK_FAILED, VerbGroup, print_result, progress_bars, stops_with
from halp_trt.cli.settings import CONFIG_NAME, config_argument, config_option, example_toml, options
from halp_trt.errors import UsageError
from halp_trt.planning import SOLVERS
from halp_trt.runtimes import choose_runtime
from halp_trt.specs import Budget
from halp_trt.workflows.folder import RunFolder, Settings

__all__ = ["verbs"]

_NETWORK = ("model", "weights", "input", "classes", "data", "on-bad-picture")
_PLACE = ("runtime", "precision", "optimization_level")
_TARGET = ("runtime", "precision", "batch", "optimization-level")
_LIMITS = ("max-prune", "max-prune-step", "frozen")
_PRUNING = ("lut", "step", "budget", "method", "saliency", "steps", "minibatches", *_LIMITS, "on-miss", "refine")
_TUNING = ("epochs", "tune-rate", "train-batch", "distillation", "seed", "run-dir")
_TRAINING = ("train-epochs", "train-rate")
_PATH = click.Path(path_type=Path)
_BUILDS = "Engines to build of each network, where TensorRT's differ; the one of median latency is kept."
_PORTABLE = "Let TensorRT engines load in later versions, on other GPUs, or both; they may be slower."

_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_resume = click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
_engines = click.option("--engines", type=_PATH, default=Path("engines"), show_default=True, help="Folder of engines.")
_run = click.argument("run", type=_PATH)


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(halp_trt.__version__, prog_name="halp-trt")
def verbs() -> None:
    """Latency-aware pruning: a trained network, a latency budget and a device in; a faster engine and the proof out.

    Every verb reads halp.toml in the working folder; options override it. Exit codes: 0 done, 1 a check failed, 2 wrong
    usage or input.
    """


@verbs.command("build-lut")
@config_option
@options(*_NETWORK, *_TARGET, "step", "frozen", "seed")
@click.option("--out", type=_PATH, help="File of the table; by default luts/<target>.jsonl.")
@click.option("--full-grid", is_flag=True, help="Measure every pair of widths instead of interpolating between few.")
@click.option(
    "--max-probes",
    type=click.IntRange(1),
    help="Measured layers of the whole table; by default 1000, or 24 for every different layer where that is more.",
)
@click.option(
    "--max-error",
    default="3%",
    show_default=True,
    help="Miss of a test probe above which more are measured around it, as a share of the latency.",
)
@_resume
@_json
def build_lut(
    out: Path | None,
    full_grid: bool,
    max_probes: int | None,
    max_error: str,
    resume: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Measure single layers into a latency table.

    Every layer of the model over its input and output widths, in steps: measured at few pairs of widths, more where
    they do not explain each other, and interpolated between. Tables are shared by models: layers that are in the table
    already are not measured again.
    """
    from halp_trt.latency import Effort
    from halp_trt.report import describe
    from halp_trt.workflows.build_lut import Survey
    from halp_trt.workflows.stages import measure_table

    settings = _settings(values)
    error = _share(max_error)
    survey = Survey(
        step=settings.step,
        effort=Effort(max_probes=max_probes, max_error_fraction=error) if max_probes else None,
        max_error_fraction=error,
        is_full=full_grid,
        seed=settings.seed,
    )
    with (
        stops_with("every measured layer is saved, run the same command with --resume to go on"),
        progress_bars() as bar,
    ):
        path, table = measure_table(settings, survey, out, bar("build-lut"), resume=resume)
    summary = {
        "file": str(path),
        "target": table.target,
        "num_rows": len(table.rows),
        "num_surfaces": len(table.surfaces),
        "num_entries": sum(surface.num_entries for surface in table.surfaces),
    }
    print_result(summary, f"{describe(table)}\n\nwritten to {path}", as_json=as_json)


def _share(text: str) -> float:
    """A share in percent.

    Raises:
        UsageError: it is not one between 0 and 100 %.
    """
    try:
        value = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise UsageError(f"{text!r} is not a share between 0 and 100 %; try '3%'")
    return value


@verbs.command()
@config_option
@options(*_NETWORK, *_TARGET, *_PRUNING, *_TUNING)
@_resume
@_json
def prune(resume: bool, as_json: bool, run_dir: Path | None, **values: Any) -> None:
    """Prune a network to a latency budget.

    Step by step, with training in between and fine-tuning after; everything lands in the run's folder.
    """
    from halp_trt.report import describe
    from halp_trt.workflows.stages import prune_run

    settings = _settings(values)
    run = _run_folder(run_dir, settings)
    with stops_with(f"every finished step is saved in {run.path}, add --resume to go on"), progress_bars() as bar:
        plan = prune_run(settings, run, bar("prune"), resume=resume)
    print_result(plan, f"{describe(plan)}\n\nwritten to {run.path}; next: halp-trt deploy {run.path}", as_json=as_json)


@verbs.command()
@config_option
@click.argument("source", type=_PATH)
@options("budget", "step", "frozen", "max-prune")
@click.option("--saliency", "saliency_file", type=_PATH, help="The network's saliency, where SOURCE is a table.")
@click.option("--graph", type=_PATH, help="The network's channel graph; by default graph.json beside the saliency.")
@click.option("--solver", type=click.Choice(list(SOLVERS)), default="joint", show_default=True, help="How to plan.")
@click.option("--memory", help="Budget for weights and layer outputs: a share of the dense network's, or bytes.")
@click.option("--parameters", help="Budget for weights and biases: a share of the dense network's, or a number.")
@click.option("--flops", help="Budget for arithmetic: a share of the dense network's, or a number.")
@click.option("--least", multiple=True, help="GROUP=WIDTH that a group may not go below; WIDTH alone is for all.")
@click.option(
    "--gap",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="How far below its bound the plan may lie, as a fraction.",
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Time that the solver may take.")
@click.option(
    "--sweep",
    "sweep_range",
    metavar="LOW..HIGH",
    help="The frontier between two budgets, 20%..90%: both ends and the corners of its hull.",
)
@click.option(
    "--plot", type=_PATH, default=Path("frontier.svg"), show_default=True, help="The frontier's picture (SVG)."
)
@click.option("--out", type=_PATH, help="Write the pruning plan to this file, where SOURCE is a table.")
@_json
def plan(source: Path, as_json: bool, sweep_range: str | None, plot: Path, out: Path | None, **values: Any) -> None:
    """Plan widths without pruning: the most saliency within the budget.

    Every plan comes with a bound on what any plan could keep, and the gap to it.

    SOURCE is a planning instance (JSON), or a latency table whose rows or surfaces, as build-lut lays them, have every
    pair of widths that a layer may take; then the saliency and the channel graph are needed, too.
    """
    from halp_trt.planning.problem import limits_from
    from halp_trt.workflows.plan import PlanRequest, make_plan, parse_range, sweep

    names = {"memory": "memory_bytes", "parameters": "parameters", "flops": "flops"}
    request = PlanRequest(
        source=source,
        saliency=values["saliency_file"],
        graph=values["graph"],
        budget=values["budget"],
        others={name: values[option] for option, name in names.items() if values[option]},
        solver=values["solver"],
        gap=values["gap"],
        seconds=values["seconds"],
        limits=limits_from(values["least"], values["frozen"], values["max_prune"] / 100),
        step=values["step"],
    )
    from halp_trt.report.planning import describe_answer, describe_sweep

    if sweep_range is not None:
        from halp_trt.report.run_plots import frontier_figure
        from halp_trt.store import write_text

        if plot.suffix.lower() != ".svg":
            raise UsageError(f"the frontier's picture is an SVG, {plot} is named otherwise; end it in .svg")
        found = sweep(request, *parse_range(sweep_range))
        write_text(plot, frontier_figure(found))
        summary = {"solver": found.solver, "dense_us": found.dense_us, "points": found.points, "plot": str(plot)}
        print_result(summary, f"{describe_sweep(found)}\n\npicture: {plot}", as_json=as_json)
        return
    answer, solution, pruning_plan, dense_us = make_plan(request)
    if out is not None:
        from halp_trt.store import save

        if pruning_plan is None:
            raise UsageError("only a plan for a network can be written with --out; SOURCE is a planning instance")
        save(pruning_plan, out)
    print_result(answer, describe_answer(answer, solution, dense_us), as_json=as_json)


@verbs.command()
@config_option
@_run
@options("runtime", "precision", "optimization-level", "data")
@_engines
@click.option("--keep-fp32", "keep", multiple=True, metavar="NODE", help="Node that stays in fp32; several times.")
@click.option("--builds", default=1, show_default=True, type=click.IntRange(min=1), help=_BUILDS)
@click.option("--portable", type=click.Choice(["versions", "gpus", "both"]), help=_PORTABLE)
@click.option("--workspace", type=click.IntRange(min=1), metavar="MIB", help="Memory for kernels; by default all.")
@click.option("--force", is_flag=True, help="Overwrite engines of another run whose folder has the same name.")
@_json
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
    from halp_trt.workflows.stages import deploy_run

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


@verbs.command()
@config_option
@_run
@options("runtime", "precision", "lut")
@_engines
@click.option("--tolerance", default=5.0, show_default=True, help="Percent above the budget that still pass.")
@click.option("--seconds", default=10.0, show_default=True, help="How long the engines are timed, about.")
@click.option("--witness", is_flag=True, help="Compare outputs with ONNX Runtime's, too, through Polygraphy.")
@_json
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    run: Path,
    engines: Path,
    tolerance: float,
    seconds: float,
    witness: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Compare the engines of a run on this device.

    Latency, throughput, accuracy, prediction error, and whether the engine still computes what the masked model does.
    Exit code 1 if the budget is missed or the outputs differ. RUN is a folder that prune wrote. With another runtime or
    precision than it was pruned for, predictions are by that target's own latency table, where there is one.
    """
    from halp_trt.report import describe
    from halp_trt.workflows.stages import verify_run
    from halp_trt.workflows.verify import Tolerances

    folder = RunFolder(path=run)
    limits = Tolerances(latency_fraction=tolerance / 100, seconds=seconds)
    settings = _overridden(ctx, folder, values)
    result = verify_run(folder, settings, engines=engines, tolerances=limits, with_witness=witness)
    print_result(result, describe(result), as_json=as_json)
    if not result.passed:
        ctx.exit(EXIT_CHECK_FAILED)


@verbs.command()
@config_argument
@options(*_NETWORK, *_TARGET, *_PRUNING, *_TRAINING, *_TUNING)
@_engines
@_resume
@_json
@click.pass_context
def run(ctx: click.Context, /, run_dir: Path | None, engines: Path, resume: bool, as_json: bool, **values: Any) -> None:
    """Do everything, from training to the report.

    CONFIG is a file of settings, by default halp.toml in this folder, where there is one.
    """
    from halp_trt.report import describe
    from halp_trt.workflows.run import run_all

    settings = _settings(values)
    folder = _run_folder(run_dir, settings)
    click.echo(f"{settings.model} on {settings.data} to {settings.budget}, in {folder.path}", err=True)
    with stops_with(f"what is finished is saved in {folder.path}, add --resume to go on"), progress_bars() as bar:
        result = run_all(settings, folder, engines=engines, resume=resume, bars=bar, say=_say)
    text = "\n".join([describe(result.verification), "", result.note, f"report: {folder.page}"])
    summary = {"verification": result.verification, "seconds": result.seconds, "report": str(folder.page)}
    print_result(summary, text, as_json=as_json)
    if not result.verification.passed:
        ctx.exit(EXIT_CHECK_FAILED)


@verbs.command()
@click.argument("artefact", type=_PATH)
@click.option("--html", type=_PATH, help="Write a page to this file instead.")
@_json
def show(artefact: Path, html: Path | None, as_json: bool) -> None:
    """Show any artefact, readable.

    ARTEFACT is a latency table, graph, plan, engine record, verification, or a run's folder.
    """
    from halp_trt.workflows.show import open_artefact, page_of, text_of

    opened = open_artefact(artefact)
    if html is not None:
        from halp_trt.store import write_text

        write_text(html, page_of(opened))
        click.echo(f"written to {html}", err=True)
        return
    print_result(opened.values, text_of(opened), as_json=as_json)


@verbs.command()
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@_json
def init(force: bool, as_json: bool) -> None:
    """Write a halp.toml with every setting."""
    from halp_trt.store import write_text

    path = Path(CONFIG_NAME)
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; edit it, or overwrite it with --force")
    write_text(path, example_toml())
    print_result({"file": str(path)}, f"written to {path}", as_json=as_json)


# ---- options to values ----------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    click.echo(line, err=True)


def _settings(values: Mapping[str, Any]) -> Settings:
    """The settings that a verb's options spell out; what it has no option for keeps its default.

    Raises:
        UsageError: the budget or the input shape does not make sense.
    """
    renamed = {"classes": "num_classes", "batch": "batch_size"}
    fields = {renamed.get(name, name): value for name, value in values.items() if value is not None}
    if not fields.pop("refine", True):
        fields.setdefault("on_miss", "interpolate")
    fields["input_shape"] = _shape(fields.pop("input", ""))
    if not fields.get("runtime"):
        choice = choose_runtime()
        click.echo(f"runtime {choice.name}: {choice.reason}; name another with --runtime", err=True)
        fields["runtime"] = choice.name
    for name in ("weights", "lut"):
        if name in fields:
            fields[name] = str(fields[name])
    settings = Settings(**fields)
    Budget.parse(settings.budget)
    return settings


def _shape(text: str) -> tuple[int, ...]:
    if text and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text):
        raise UsageError(f"input {text!r} is no shape; expected CHANNELSxHEIGHTxWIDTH such as 3x224x224")
    return tuple(int(size) for size in text.split("x")) if text else ()


def _run_folder(path: Path | None, settings: Settings) -> RunFolder:
    words = f"{settings.model} {settings.method} {settings.budget}"
    name = re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")
    return RunFolder(path=path or Path("runs") / name)


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
