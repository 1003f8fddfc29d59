"""Repair without training in a pruning run: after every step, and of batch norms after fine-tuning."""

from __future__ import annotations

from typing import Any

import torch

from halp_trt.models.masks.hard import mask
from halp_trt.models.moving import device_of
from halp_trt.models.repair import Sample
from halp_trt.models.repair.norms import estimate
from halp_trt.models.repair.trial import Distance, Outcome, repair
from halp_trt.specs import PruningPlan
from halp_trt.tasks.unlabelled import Unlabelled
from halp_trt.training.settings import BEST
from halp_trt.workflows.checkpoint import Progress
from halp_trt.workflows.giving import give_weights
from halp_trt.workflows.prune_job import PruneJob
from halp_trt.workflows.sample import sample_of

__all__ = ["distance_of", "estimate_at_the_end", "repair_step"]


def repair_step(job: PruneJob, plan: PruningPlan) -> Outcome | None:
    """Repairs the masked network of a step in all processes; None where nothing is asked for, or another did it."""
    if job.repairing.is_idle:
        return None
    module, outcome = job.subject.module, None
    if job.world.is_first:
        outcome = repair(
            module,
            dense=job.dense,
            plan=plan,
            sample=_sample(job),
            ways=job.repairing.loaded(),
            distance=distance_of(job),
            settle=lambda: job.masking.apply(module, plan),
        )
    give_weights(job.world, module)
    return outcome


def estimate_at_the_end(job: PruneJob, state: Progress) -> None:
    """Estimates the statistics of batch norms of the fine-tuned network anew, where a repair is asked for.

    Weights that were chosen by their score stay as they were scored.
    """
    train = job.request.train
    if job.repairing.is_idle or train.num_epochs == 0 or train.keep == BEST:
        return
    module = job.subject.module
    if job.world.is_first:
        estimate(module, _sample(job).fit)
        if not state.is_slim:
            mask(module, state.step.plan)
    give_weights(job.world, module)


def distance_of(job: PruneJob) -> Distance:
    """The distance of outputs from the dense network's: that by which a network learns from pictures without labels."""
    assert job.subject.data is not None
    task, settings = Unlabelled(job.subject.data), job.request.train

    def distance(outputs: Any, wanted: Any) -> torch.Tensor:
        return task.loss(outputs, None, settings, wanted)

    return distance


def _sample(job: PruneJob) -> Sample:
    assert job.subject.data is not None
    num, seed = job.request.repair_pictures, job.request.train.seed
    return sample_of(job.subject.data, num, seed=seed, device=device_of(job.subject.module))
