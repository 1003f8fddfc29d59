"""The constant part of a pruning run, and the checkpoints from which a killed run goes on."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from halp_trt.models.masks import Masking, get_masking
from halp_trt.models.moving import check_runs, move
from halp_trt.models.repair import Repairing, get_repairing
from halp_trt.models.saliency import AUTO, Scoring, choose_scoring, informed_scorings
from halp_trt.models.slim import slim
from halp_trt.models.weights import check_finite
from halp_trt.planning import Lookup, get_method
from halp_trt.planning.pricing import growing
from halp_trt.training.course import Course
from halp_trt.training.optimizer import make_optimizer
from halp_trt.training.passes import Passes, passes_of
from halp_trt.training.settings import TrainSettings
from halp_trt.training.world import World
from halp_trt.workflows.checkpoint import Progress, load_checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.ledger import checkpoint_path, read_progress, write_progress
from halp_trt.workflows.metrics import TUNE, Metrics, course_of
from halp_trt.workflows.request import PruneRequest, Subject

__all__ = ["PruneJob", "Report", "prepare", "resumed", "save_progress"]

Report = Callable[[int, int, str], None]
"""A callback that gets the work done, the work in all, and a note."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PruneJob:
    """The constant part of a run, though training changes the module and the optimiser in place.

    Attributes:
        subject: the network and its pictures.
        request: the request for the run.
        folder: the run's folder.
        fingerprint: digest of the request and the network.
        lookup: measurements of layers.
        scoring: scores the channels.
        other_scorings: saliencies that other candidates are planned by, by their names.
        masking: masks the pruned channels.
        repairing: repairs the network after a step.
        dense: the network before pruning; on the world's device where the pruned one is compared with it.
        teacher: the network that teaches while the pruned one is fine-tuned, on the world's device; None for none.
        optimizer: the network's optimiser; None without pictures.
        passes: the passes of its training; None without pictures.
        course: the course of fine-tuning; None without pictures.
        metrics: file of a row for each pruning step and epoch; None if no epoch is trained.
        world: this process among those that train.
        report: shows the progress.
    """

    subject: Subject
    request: PruneRequest
    folder: RunFolder
    fingerprint: str
    lookup: Lookup
    scoring: Scoring
    other_scorings: Mapping[str, Scoring]
    masking: Masking
    repairing: Repairing
    dense: nn.Module
    teacher: nn.Module | None
    optimizer: torch.optim.Optimizer | None
    passes: Passes | None
    course: Course | None
    metrics: Metrics | None
    world: World
    report: Report


def prepare(
    subject: Subject,
    request: PruneRequest,
    folder: RunFolder,
    *,
    fingerprint: str,
    lookup: Lookup,
    world: World,
    report: Report,
) -> PruneJob:
    """The job of a request; the subject's module lies on the world's device from here on.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
        ModelError: the network or its teacher does not run on that device.
        UsageError: the saliency is asked for without data, or the device lacks the precision of training.
    """
    has_pictures, train = subject.data is not None, request.train
    metrics = Metrics(path=folder.metrics) if has_pictures and train.num_epochs > 0 else None
    has_labels = subject.data is not None and subject.data.is_labelled
    masking = get_masking(request.mask)
    is_free = has_labels and request.saliency == AUTO
    scoring = choose_scoring(getattr(masking, "saliency", AUTO) if is_free else request.saliency, has_data=has_labels)
    check_finite(dict(subject.module.state_dict()), "the network")
    dense, module = copy.deepcopy(subject.module), subject.module
    request.check_pictures(has_pictures)
    teacher, repairing = None, get_repairing(request.repair)
    if has_pictures and not (repairing.is_idle and request.candidates == 1):
        move(dense, world.device)
    if train.distillation > 0 and has_pictures:
        teacher = move(dense if subject.teacher is None else subject.teacher, world.device)
    if teacher is not None and subject.teacher is not None:
        check_runs(teacher, subject.example)
    check_runs(move(module, world.device), subject.example)
    return PruneJob(
        subject=subject,
        request=request,
        folder=folder,
        fingerprint=fingerprint,
        lookup=lookup,
        scoring=scoring,
        other_scorings=_others(request, scoring, has_labels=has_labels),
        masking=masking,
        repairing=repairing,
        dense=dense,
        teacher=teacher,
        optimizer=make_optimizer(module, train) if has_pictures else None,
        passes=passes_of(module, train, world) if has_pictures else None,
        course=_course(subject, train, metrics, world),
        metrics=metrics,
        world=world,
        report=report,
    )


def _others(request: PruneRequest, own: Scoring, *, has_labels: bool) -> dict[str, Scoring]:
    """The saliencies beside a run's own, as many as its candidates need."""
    num_methods = 1 + len(get_method(request.method).rivals)
    rows = {name: row for name, row in informed_scorings(has_data=has_labels).items() if row is not own}
    return dict(itertools.islice(rows.items(), -(-request.candidates // num_methods) - 1))


def _course(subject: Subject, train: TrainSettings, metrics: Metrics | None, world: World) -> Course | None:
    """The course of fine-tuning; None without pictures."""
    if subject.data is None:
        return None
    return course_of(subject.data, train, phase=TUNE, metrics=metrics, world=world)


def resumed(job: PruneJob) -> Progress:
    """The progress that was saved; weights, optimiser and table are put back to where they were.

    Raises:
        ArtefactError: the checkpoint is damaged, or belongs to another request or network.
    """
    module, graph = job.subject.module, job.subject.graph
    state, num_rows = read_progress(job.folder, graph, fingerprint=job.fingerprint)
    if (known := growing(job.lookup)) is not None:
        known.rewind(num_rows)
    if state.is_slim:
        slim(module, state.step.plan, job.optimizer)
    load_checkpoint(checkpoint_path(job.folder), module, job.optimizer, job.passes, job.course)
    return state


def save_progress(job: PruneJob, state: Progress) -> None:
    """Writes a checkpoint; a kill leaves the previous one."""
    known = growing(job.lookup)
    write_progress(
        job.folder,
        state,
        fingerprint=job.fingerprint,
        num_rows=0 if known is None else known.num_rows,
        module=job.subject.module,
        optimizer=job.optimizer,
        passes=job.passes,
        course=job.course,
    )
