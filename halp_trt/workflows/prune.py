"""Iterative pruning with training in between, then slimming, fine-tuning and rewriting; resumes after a kill."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from halp_trt import planning
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.slim import slim
from halp_trt.models.trial import can_slim
from halp_trt.planning import Lookup, Measure, Step, first_step
from halp_trt.planning.amounts import total_of
from halp_trt.specs import LayerSpec, Measurement, PruningPlan
from halp_trt.texts import counted
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.candidates import chooser
from halp_trt.workflows.checkpoint import Progress
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.giving import give_file, give_weights
from halp_trt.workflows.ledger import (
    checkpoint_path,
    finished_plan,
    log_row,
    read_rows,
    write_result,
    write_rows,
    write_start,
)
from halp_trt.workflows.metrics import PRUNE, TUNE, Metrics
from halp_trt.workflows.notes import Notes
from halp_trt.workflows.prune_job import PruneJob, Report, prepare, resumed, save_progress
from halp_trt.workflows.prune_training import fine_tune, score_by_training, step_row
from halp_trt.workflows.repair import estimate_at_the_end, repair_step
from halp_trt.workflows.request import PruneRequest, Subject
from halp_trt.workflows.stopwatch import Stopwatch
from halp_trt.workflows.together import followed, led, scoring_with_all

__all__ = ["follow", "prune"]

_TRAINED_MASKED = (
    "forward() does not run with fewer channels, as it writes widths down: the network is fine-tuned masked, at its "
    "dense size, and is narrow in the ONNX graph alone"
)
"""Said where a network cannot be slimmed."""


def _silent(done: int, total: int, note: str = "") -> None:
    """A progress callback that shows nothing."""


def _nothing() -> None:
    """Does nothing."""


def prune(
    subject: Subject,
    request: PruneRequest,
    folder: RunFolder,
    *,
    lookup: Lookup,
    stopwatch: Stopwatch | None = None,
    world: World = ALONE,
    resume: bool = False,
    progress: Report = _silent,
    begin: Callable[[], None] = _nothing,
) -> PruningPlan:
    """Prunes a network to a budget and writes plan, weights, rewritten model and log into the run's folder.

    The files of an earlier run stay in the folder until this run can no longer be refused. The first of several
    processes calls this, and the others :func:`follow`.

    Args:
        subject: the network and its pictures.
        request: the request for the run.
        folder: the run's folder; a killed run goes on from ``checkpoint.safetensors`` in it.
        lookup: measurements of layers, taken on demand or refused.
        stopwatch: times engines, to close the loop between prediction and measurement; None trusts the table.
        world: this process among those that train, with the device on which the network lies afterwards.
        resume: whether to go on from a checkpoint, where there is one.
        progress: called with the work done, the work in all, and a note.
        begin: called before the first file is written, unless the run was finished already.

    Raises:
        InfeasibleBudgetError: the budget cannot be reached; names the lowest latency that can.
        NonFiniteError: weights, a loss or all gradients are not finite.
        UsageError: data that saliency or fine-tuning needs are missing, or the device lacks the precision of training.
        ModelError: the network does not run on that device.
        ArtefactError: the checkpoint belongs to another request or network.
        LostProcessError: another process of the world is gone.
    """
    fingerprint = request.fingerprint(subject)
    done = finished_plan(folder, fingerprint) if resume else None
    world.agree(done is not None)
    if done is not None:
        return done
    give_weights(world, subject.module)
    job = prepare(subject, request, folder, fingerprint=fingerprint, lookup=lookup, world=world, report=progress)
    measure = None if stopwatch is None else _measure(subject, stopwatch)
    is_begun = resume and checkpoint_path(folder).exists()
    state = resumed(job) if is_begun else Progress(step=first_step(subject.graph, lookup, measure))
    rows, notes = read_rows(folder, state.step.index), Notes()
    steps = _steps(job, state, measure, notes)
    begin()
    write_start(folder, subject, anew=not resume)
    _cut_metrics(job, state)
    if not is_begun:
        save_progress(job, state)
    give_file(world, checkpoint_path(folder))
    if not state.is_pruned:
        state = _pruned(job, state, led(job, steps), rows, notes)
    fine_tune(job, state)
    estimate_at_the_end(job, state)
    plan = state.step.plan
    return write_result(folder, subject, plan, dense=job.dense, pruned=subject.module, fingerprint=fingerprint)


def follow(subject: Subject, request: PruneRequest, *, world: World) -> None:
    """Takes part in the training of a pruning run that the first process leads; writes nothing that stays.

    Args:
        subject: the same network and pictures; its weights become those of the first process.
        request: the same request.
        world: this process, not the first.

    Raises:
        ArtefactError: request, network or pictures differ from those of the first process.
        LostProcessError: another process of the world is gone.
        HalpError: as :func:`prune` where it trains.
    """
    if world.agree(False):
        return
    give_weights(world, subject.module)
    fingerprint, notes = request.fingerprint(subject), Notes()
    with TemporaryDirectory(prefix="halp-trt-") as place:
        folder = RunFolder(path=Path(place))
        job = prepare(subject, request, folder, fingerprint=fingerprint, lookup=_never, world=world, report=_silent)
        give_file(world, checkpoint_path(folder))
        state = resumed(job)
        if not state.is_pruned:
            score = score_by_training(job, state.step.index, notes)
            state = _pruned(job, state, followed(job, state.step, score), [], notes)
        fine_tune(job, state)
        estimate_at_the_end(job, state)


def _never(specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
    raise AssertionError(f"the first process alone asks for latencies, not {list(specs)}")


def _cut_metrics(job: PruneJob, state: Progress) -> None:
    """Drops the rows of the metrics that are not of this run, or that it will write again."""
    metrics, has_trained = Metrics(path=job.folder.metrics), job.folder.trained.name in job.subject.parents
    if state.is_pruned:
        is_open = job.course is not None and job.course.is_open
        metrics.cut(TUNE, state.num_tuned - is_open, has_trained=has_trained)
    else:
        metrics.cut(PRUNE, state.step.index * job.request.num_minibatches, has_trained=has_trained)


def _measure(subject: Subject, stopwatch: Stopwatch) -> Measure:
    """A function that times the engine of a plan, built from the rewritten export."""
    return lambda plan: stopwatch(rewrite(subject.model, plan))


def _steps(job: PruneJob, state: Progress, measure: Measure | None, notes: Notes) -> Iterator[Step]:
    """The steps that are left; a budget out of reach is refused at once."""
    if state.is_pruned:
        return iter(())
    request = job.request
    return planning.prune(
        job.subject.graph,
        job.lookup,
        budget=request.budget,
        score=scoring_with_all(job.world, score_by_training(job, state.step.index, notes)),
        method=request.method,
        num_steps=request.num_steps,
        grid_step=request.grid_step,
        limits=request.limits,
        measure=measure,
        start=state.step,
        returns_channels=job.masking.returns_channels,
        choose=chooser(job, state.step.index, notes),
        others=request.others,
        batch_size=request.batch_size,
    )


def _resources(request: PruneRequest, plan: PruningPlan) -> dict[str, float]:
    """The amounts that a plan takes of the resources that are limited."""
    return {name: total_of(plan.graph, plan.counts(), name, request.batch_size) for name in request.others}


def _pruned(
    job: PruneJob, state: Progress, steps: Iterator[Step], rows: list[dict[str, object]], notes: Notes
) -> Progress:
    """The progress after all steps, each of them masked and written down, and slimming where ``forward`` allows it."""
    module, total = job.subject.module, job.request.num_steps
    started = time.monotonic()
    job.report(state.step.index, total, "")
    for step in steps:
        state = Progress(step=step)
        job.masking.apply(module, step.plan, job.optimizer)
        repaired = repair_step(job, step.plan)
        loss, seconds = notes.losses.get(step.index), time.monotonic() - started
        ranked = notes.ranked.get(step.index, ())
        taken = _resources(job.request, step.plan)
        row = log_row(step, seconds=seconds, loss=loss, repaired=repaired, ranked=ranked, resources=taken)
        rows.append(row)
        started = time.monotonic()
        if job.world.is_first:
            write_rows(job.folder, rows)
            if job.metrics is not None:
                job.metrics.add(step_row(job.request, step.index, loss=loss, seconds=seconds))
            save_progress(job, state)
        note = f"{step.plan.latency_us / step.dense_us:.1%} of dense"
        if step.plan.removed_blocks:
            note += f", {counted(len(step.plan.removed_blocks), 'block')} removed"
        job.report(min(step.index, total), total, note)
    is_slim = job.world.agree(can_slim(module, job.subject.example, state.step.plan))
    state = Progress(step=state.step, is_pruned=True, is_slim=is_slim)
    if state.is_slim:
        slim(module, state.step.plan, job.optimizer)
    else:
        warnings.warn(_TRAINED_MASKED, stacklevel=2)
    if job.world.is_first:
        save_progress(job, state)
    return state
