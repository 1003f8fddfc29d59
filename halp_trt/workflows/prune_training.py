"""The training of a pruning run: between the steps, where channels are scored, and after the last one."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from halp_trt.errors import NonFiniteError
from halp_trt.models.masks.hard import mask
from halp_trt.report import units
from halp_trt.specs import PruningPlan, Saliency, TrainingRow
from halp_trt.store import save
from halp_trt.tasks import lesson_of
from halp_trt.training.batches import num_batches, num_steps, prefetched
from halp_trt.training.loop import Saving, train
from halp_trt.training.settings import TrainSettings
from halp_trt.training.step import train_step
from halp_trt.workflows.checkpoint import Progress
from halp_trt.workflows.metrics import PRUNE
from halp_trt.workflows.notes import Notes
from halp_trt.workflows.prune_job import PruneJob, save_progress
from halp_trt.workflows.request import PruneRequest

__all__ = ["fine_tune", "score_by_training", "step_row"]


def score_by_training(job: PruneJob, index: int, notes: Notes) -> Callable[[PruningPlan], Saliency]:
    """A function that trains for the steps from ``index`` on and returns their saliency; it notes losses and scores."""
    numbers = itertools.count(index)

    def score(plan: PruningPlan) -> Saliency:
        number, module, graph = next(numbers), job.subject.module, job.subject.graph
        scorer = job.scoring.scorer(module, graph)
        others = {name: scoring.scorer(module, graph) for name, scoring in job.other_scorings.items()}

        def after_backward() -> None:
            job.masking.after_backward(module, plan, job.optimizer)
            for each in reversed([scorer, *others.values()]):  # the first made takes gradients away that only it needs
                each.after_backward()

        if job.subject.data is not None and job.subject.data.is_labelled:
            loss = _train_between(job, plan, number, after_backward)
            notes.losses.update({number + 1: loss} if math.isfinite(loss) else {})
        notes.others.clear()
        for name, each in reversed(others.items()):
            with contextlib.suppress(NonFiniteError):
                notes.others[name] = each.finish()
        saliency = scorer.finish()
        if number == 0:
            save(saliency, job.folder.saliency)
        return saliency

    return score


def _train_between(job: PruneJob, plan: PruningPlan, index: int, after_backward: Callable[[], None]) -> float:
    """Trains for one pruning step; returns the loss of its last minibatch, not finite if that was skipped."""
    module, data, optimizer, request = job.subject.module, job.subject.data, job.optimizer, job.request
    assert data is not None
    assert optimizer is not None
    loss, first = float("nan"), index * request.num_minibatches
    numbers = range(first, first + request.num_minibatches)
    is_on_gpu = any(parameter.is_cuda for parameter in module.parameters())
    with prefetched(data, request.train, numbers, job.world, pinned=is_on_gpu) as source:
        for number in numbers:
            settings = _between(request, 1 + number // num_batches(data.num_train, request.train.batch_size))
            with job.world.guarded():
                loss = train_step(
                    module,
                    optimizer,
                    replace(lesson_of(data, settings, world=job.world), data=source),
                    step=number,
                    total=num_steps(data, settings),
                    after_backward=after_backward,
                    passes=job.passes,
                )
                job.masking.after_update(module, plan, optimizer)
    return loss


def _between(request: PruneRequest, num_epochs: int) -> TrainSettings:
    """Training between steps: at a constant rate, as in the warm-up epoch in which HALP prunes."""
    return replace(
        request.train,
        num_epochs=num_epochs,
        schedule="constant",
        warmup_fraction=0.0,
        learning_rate=request.rate_between,
    )


def step_row(request: PruneRequest, index: int, *, loss: float | None, seconds: float) -> TrainingRow:
    """The row of a pruning step in the metrics."""
    return TrainingRow(
        phase=PRUNE,
        pruning_step=index,
        step=index * request.num_minibatches,
        loss=loss,
        learning_rate=request.rate_between,
        seconds=round(seconds, 3),
    )


def fine_tune(job: PruneJob, state: Progress) -> None:
    """Trains the pruned module, slim or masked; a checkpoint after every epoch."""
    module, data, settings = job.subject.module, job.subject.data, job.request.train
    if data is None:
        module.eval()
        return
    assert job.course is not None
    course = job.course
    if not state.is_slim:
        mask(module, state.step.plan, job.optimizer)
    total = num_steps(data, settings)
    course.begin(module)

    def after_step(done: int, loss: float) -> None:
        if not state.is_slim:
            mask(module, state.step.plan, job.optimizer)
        course.after_step(module, done, loss)
        score = "" if course.score is None else f", {course.score.name} {units.score(course.score)}"
        job.report(done, total, f"fine-tuning, loss {loss:.3f}{score}")

    train(
        module,
        lesson_of(data, settings, teacher=job.teacher, world=job.world),
        optimizer=job.optimizer,
        start_step=state.num_tuned,
        after_step=after_step,
        after_epoch=partial(course.end_epoch, module),
        saving=Saving(write=lambda done: save_progress(job, replace(state, num_tuned=done))),
        passes=job.passes,
    )
    course.finish(module)
