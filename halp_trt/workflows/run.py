"""All stages in a row, from training to the report, each with its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from halp_trt.graphs.suppression import Tail
from halp_trt.report import units
from halp_trt.report.text import score_drop
from halp_trt.runtimes import BuildOptions
from halp_trt.specs import PruningPlan, Verification
from halp_trt.store import hold, write_text
from halp_trt.training.batches import check_shares
from halp_trt.training.world import World
from halp_trt.workflows.claim import Claim, claimed
from halp_trt.workflows.deploy import DeployOptions, check_nms, check_places, roles_of
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.detections import tail_of
from halp_trt.workflows.folder import RunFolder, timings_path
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prepared import DenseEngine, Prepared, prepare, with_trained
from halp_trt.workflows.prune_stage import dense_engine, lookup_of, prune_run, recorded
from halp_trt.workflows.refusals import check_reachable, check_runnable, request_of
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.show import open_artefact, page_of
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_table
from halp_trt.workflows.target import find_target, table_of
from halp_trt.workflows.teacher import teacher_of
from halp_trt.workflows.train_stage import is_trained_here, train_dense
from halp_trt.workflows.verify import Tolerances
from halp_trt.workflows.verify_stage import verify_run
from halp_trt.workflows.world import world_of

__all__ = ["RunResult", "run_all"]

Progress = Callable[[int, int, str], None]
"""A callback that gets the work done, the work in all, and a note."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """The result of a run.

    Attributes:
        verification: the comparison of the dense and the pruned engine.
        seconds: duration of every stage.
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
    seconds: float = 10.0,
    resume: bool,
    force: bool = False,
    bars: Callable[[str], Progress],
    say: Callable[[str], None],
    world: World | None = None,
) -> RunResult:
    """Measures, trains, prunes, deploys, verifies and reports.

    Args:
        settings: the run's settings.
        run: folder of everything but engines and tables; a finished run in it stays until another's pruning is whole.
        engines: folder of the engines.
        seconds: time for timing the engines in the end, about.
        resume: whether to go on from the finished stages of an interrupted run.
        force: whether a finished run with other settings may be replaced.
        bars: makes the progress callback of a stage.
        say: takes one line when a stage is done.
        world: this process, the first of those that train; None for one alone.

    Raises:
        HalpError: as a stage raises it.
    """
    runtime, target = find_target(settings.place)  # a run that would fail at its end fails before hours of training
    check_runnable(settings, runtime, target)
    if settings.deploy.appends_nms:
        check_nms(runtime)
    path = table_of(settings.table, target)
    with claimed(run, recorded(settings), resume=resume, force=force) as claim:
        check_places(run, runtime, target, engines, roles_of(with_nms=settings.deploy.appends_nms))
        return _stages(settings, claim, path, engines, seconds, bars, _Clock(say), world or world_of(settings.tune))


def _stages(
    settings: Settings,
    claim: Claim,
    path: Path,
    engines: Path,
    seconds: float,
    bars: Callable[[str], Progress],
    clock: _Clock,
    world: World,
) -> RunResult:
    """The stages of a run, one after the other, each timed."""
    run, place, resume = claim.run, claim.place, claim.resume

    # the table does not depend on the weights: a budget out of reach is refused before the network is trained
    untrained, _, tail = clock.timed(
        "build-lut",
        lambda: _measure(settings, place, path, bars("build-lut"), world, resume=resume),
        lambda found: f"{found[1]} layers in {path}",
    )
    order = DeployOptions(engines=engines, tail=tail)
    prepared, _ = clock.timed(
        "train", lambda: _train(untrained, settings, place, bars("train"), world, resume=resume), lambda found: found[1]
    )
    asked = settings.changed(lut=str(path))

    def prune() -> tuple[DenseEngine, PruningPlan]:
        pruned = _prune(prepared, asked, place, engines, bars("prune"), world, resume=resume)
        claim.publish()
        return pruned

    dense, plan = clock.timed("prune", prune, lambda _: str(run.path))
    built = clock.timed(
        "deploy",
        lambda: deploy_run(run, asked.place, asked.data, order, prepared=prepared, dense=dense),
        lambda _: str(engines),
    )
    result = clock.timed("verify", lambda: _verify(prepared, asked, run, engines, seconds), _verified)
    clock.timed("report", lambda: write_text(run.page, page_of(open_artefact(run.path))), lambda _: str(run.page))
    total = sum(clock.seconds.values())
    clock.say(f"{'total':<10} {total:7.1f} s  {len(plan.graph.prunable_groups)} channel groups pruned")
    return RunResult(verification=result, seconds=clock.seconds, note=built.note)


def _measure(
    settings: Settings, run: RunFolder, path: Path, progress: Progress, world: World, *, resume: bool
) -> tuple[Prepared, int, Tail | None]:
    """The dense network as it was measured, with the weights that there are, how many layers the table holds, and the
    tail of its engine that gives detections, if that is asked for.

    Raises:
        InfeasibleBudgetError: the budget cannot be reached by the table.
        ModelError: detections are asked for in the graph, and the network does not say how they are read.
    """
    runtime, target = find_target(settings.place)
    is_new = is_trained_here(settings, run, resume=resume)
    network, data = network_of(settings, trained=None if is_new else run.trained)
    check_shares(data, request_of(settings).train, world)
    teacher, tail = teacher_of(settings, network, data), tail_of(settings.deploy, network)
    prepared = prepare(network, data, frozen=settings.prune.frozen, teacher=teacher)
    survey = Survey(step=settings.table.width_step, seed=settings.random.seed)
    with hold(path):
        _, table = measure_table(
            prepared.graph, survey, path, runtime, target, lambda n, of: progress(n, of, ""), resume=True
        )
    check_reachable(prepared.graph, lookup_of(prepared.graph, settings.table, path, runtime, target), settings)
    return prepared, len(table.rows), tail


def _prune(
    prepared: Prepared,
    settings: Settings,
    run: RunFolder,
    engines: Path,
    progress: Progress,
    world: World,
    *,
    resume: bool,
) -> tuple[DenseEngine, PruningPlan]:
    """The dense engine that candidates were timed against, and the plan."""
    runtime, target = find_target(settings.place)
    options = BuildOptions(timing_cache=timings_path(engines, target))
    dense = dense_engine(prepared, runtime, target, options)
    return dense[0], prune_run(prepared, settings, run, progress, resume=resume, dense=dense, world=world)


def _verify(prepared: Prepared, settings: Settings, run: RunFolder, engines: Path, seconds: float) -> Verification:
    """Dense against pruned, with the network and the pictures that there are."""
    return verify_run(
        run,
        lambda: (prepared.network, prepared.data),
        settings.place,
        settings.table,
        budget=settings.prune.budget,
        engines=engines,
        tolerances=Tolerances(seconds=seconds),
    )


def _verified(found: Verification) -> str:
    drop = score_drop(found)
    return f"{found.speedup:.2f}x faster{f', but {drop}' if drop else ''}"


def _train(
    prepared: Prepared, settings: Settings, run: RunFolder, progress: Progress, world: World, *, resume: bool
) -> tuple[Prepared, str]:
    """The dense network, trained where that is asked for, and a note."""
    if prepared.data is None or not world.agree(is_trained_here(settings, run, resume=resume)):
        run.dense_checkpoint.unlink(missing_ok=True)  # a kill between the weights and its removal
        return prepared, "weights as given"
    score = train_dense(
        prepared.network,
        prepared.data,
        settings.train,
        settings.tune,
        run,
        lambda n, of, loss: progress(n, of, f"loss {loss:.3f}"),
        seed=settings.random.seed,
        resume=resume,
        world=world,
    )
    return with_trained(prepared), f"{score.name} {units.score(score)}"


class _Clock:
    """Times stages, and says a line when one is done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.seconds: dict[str, float] = {}

    def timed(self, stage: str, work: Callable[[], _Value], note: Callable[[_Value], str]) -> _Value:
        """The result of a stage's work."""
        started = time.perf_counter()
        value = work()
        self.seconds[stage] = round(time.perf_counter() - started, 3)
        self.say(f"{stage:<10} {self.seconds[stage]:7.1f} s  {note(value)}".rstrip())
        return value
