"""All stages in a row, from training to the report, each with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from halp_trt.specs import Verification
from halp_trt.store import write_text
from halp_trt.workflows.deploy import Order, check_places
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.prune_stage import prune_run
from halp_trt.workflows.refusals import check_runnable
from halp_trt.workflows.show import open_artefact, page_of
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_table
from halp_trt.workflows.target import find_target
from halp_trt.workflows.train_stage import train_dense
from halp_trt.workflows.verify_stage import verify_run

__all__ = ["RunResult", "run_all"]

Progress = Callable[[int, int, str], None]
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run ends with.

    Attributes:
        verification: dense against pruned.
        seconds: of every stage.
        note: one line about the TensorRT plan.
    """

    verification: Verification
    seconds: Mapping[str, float]
    note: str


def run_all(
    settings: Settings,
    run: RunFolder,
    *,
    engines: Path,
    resume: bool,
    bars: Callable[[str], Progress],
    say: Callable[[str], None],
) -> RunResult:
    """Trains, measures, prunes, deploys, verifies and reports.

    Args:
        settings: what is asked for.
        run: where everything but engines and tables goes.
        engines: where engines go.
        resume: whether to go on with what an interrupted run finished.
        bars: makes the progress callback of a stage.
        say: takes one line when a stage is done.

    Raises:
        HalpError: as the stages.
    """
    runtime, target = find_target(settings)  # what would fail at the end fails before hours of training
    check_runnable(settings, runtime, target)
    check_places(run, runtime, target, engines)
    seconds: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], _Value], note: Callable[[_Value], str]) -> _Value:
        started = time.perf_counter()
        value = work()
        seconds[stage] = round(time.perf_counter() - started, 3)
        say(f"{stage:<10} {seconds[stage]:7.1f} s  {note(value)}".rstrip())
        return value

    def trained(accuracy: float | None) -> str:
        return "weights as given" if accuracy is None else f"accuracy {accuracy:.2%}"

    train_bar = bars("train")
    timed(
        "train",
        lambda: train_dense(settings, run, lambda n, of, loss: train_bar(n, of, f"loss {loss:.3f}"), resume=resume),
        trained,
    )
    lut_bar = bars("build-lut")
    path, _ = timed(
        "build-lut",
        lambda: measure_table(
            settings,
            Survey(step=settings.step, seed=settings.seed),
            None,
            lambda n, of: lut_bar(n, of, ""),
            resume=True,
        ),
        lambda found: f"{len(found[1].rows)} layers in {found[0]}",
    )
    settings = replace(settings, lut=str(path))
    plan = timed("prune", lambda: prune_run(settings, run, bars("prune"), resume=resume), lambda _: str(run.path))
    built = timed("deploy", lambda: deploy_run(run, settings, Order(engines=engines)), lambda _: str(engines))
    result = timed("verify", lambda: verify_run(run, settings, engines=engines), lambda v: f"{v.speedup:.2f}x faster")
    timed("report", lambda: write_text(run.page, page_of(open_artefact(run.path))), lambda _: str(run.page))
    say(f"{'total':<10} {sum(seconds.values()):7.1f} s  {len(plan.graph.prunable_groups)} channel groups pruned")
    return RunResult(verification=result, seconds=seconds, note=built.note)
