"""The files that a pruning run writes: the dense network, a log row and a checkpoint for each step, the result."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from halp_trt.errors import ArtefactError, HalpError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.models.repair.trial import Outcome
from halp_trt.models.weights import check_finite
from halp_trt.models.widen import unslim
from halp_trt.planning import Step
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import read_steps, save, save_tensors, sha256_bytes, sha256_file, write_bytes, write_text
from halp_trt.texts import counted
from halp_trt.training.course import Course
from halp_trt.training.passes import Passes
from halp_trt.workflows.checkpoint import Progress, PruneWords, not_ours, read_checkpoint, save_checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.notes import Ranked
from halp_trt.workflows.parents import PRUNED_WEIGHTS, check_plan
from halp_trt.workflows.request import Subject, arrays_of

__all__ = [
    "checkpoint_path",
    "finished_plan",
    "log_row",
    "read_progress",
    "read_rows",
    "write_progress",
    "write_result",
    "write_rows",
    "write_start",
]

_REQUEST = "request"
"""Key of the request's fingerprint among a plan's parents."""


def checkpoint_path(folder: RunFolder) -> Path:
    """Path of the checkpoint from which a killed run goes on; the file is removed when the run is whole."""
    return folder.checkpoint


def finished_plan(folder: RunFolder, fingerprint: str) -> PruningPlan | None:
    """The plan of a run that is whole, None where there is none.

    Raises:
        ArtefactError: the plan is of another request, or a file is not what it was made from.
    """
    if not folder.plan.exists() or checkpoint_path(folder).exists():
        return None
    done = folder.read_plan()
    if done.parents.get(_REQUEST) != fingerprint:
        raise ArtefactError(
            f"{folder.path} holds a finished run with other settings; repeat them, name another folder with --out, or "
            "start over with --force"
        )
    check_plan(folder.plan, done, advice="restore it, or start without --resume")
    return done


def write_start(folder: RunFolder, subject: Subject, *, anew: bool) -> None:
    """Writes the dense network; if ``anew``, the files of an earlier run are removed first."""
    if anew:
        for stale in (
            folder.plan,
            checkpoint_path(folder),
            folder.log,
            folder.saliency,
            folder.verification,
            folder.page,
        ):
            stale.unlink(missing_ok=True)
    save(subject.graph, folder.graph)
    write_bytes(folder.dense_model, subject.model.SerializeToString())


# ---- steps ----------------------------------------------------------------------------------------------------------


def log_row(
    step: Step,
    *,
    seconds: float,
    loss: float | None,
    repaired: Outcome | None = None,
    ranked: Sequence[Ranked] = (),
    resources: Mapping[str, float] | None = None,
) -> dict[str, object]:
    """One line of the log.

    Args:
        step: the step, with its plan and the engines that were timed for it.
        seconds: duration of the step, training included.
        loss: loss of the last minibatch; None if nothing was trained.
        repaired: the repair of its network; None if it was not repaired.
        ranked: its candidates, the chosen one first.
        resources: what its plan takes of other resources, where these are limited.
    """
    plan = step.plan
    row: dict[str, object] = {
        "step": step.index,
        "budget_us": plan.budget_us,
        "latency_us": plan.latency_us,
        "dense_us": step.dense_us,
        "value": plan.saliency,
        "bound": plan.bound,
        "gap": (plan.bound - plan.saliency) / (plan.saliency or plan.bound) if plan.bound > plan.saliency else 0.0,
        "num_channels": sum(len(plan.kept[g.name]) for g in plan.graph.prunable_groups),
        "seconds": round(seconds, 3),
    }
    if plan.removed_blocks:
        row["removed_blocks"] = list(plan.removed_blocks)
    if step.timed is not None:
        row |= {"measured_dense_us": step.timed.dense_us, "measured_us": step.timed.engine_us}
    others = [engine for engine in step.engines if engine.step == step.index and not engine.is_chosen]
    if others:  # the engines of plans that the step was planned again from: predicted, dense and measured
        row["others"] = [[engine.sum_us, engine.dense_us, engine.engine_us] for engine in others]
    if loss is not None:
        row["loss"] = loss
    if resources:
        row["resources"] = dict(resources)
    if ranked:
        row["candidates"] = [[one.name, one.value] for one in ranked]
    if repaired is not None:  # distances from the dense network's outputs; infinite ones are no JSON
        before, after = repaired.distances[0], repaired.distances[repaired.chosen]
        row |= {"repaired_by": repaired.chosen}  # ways of the repair that were worth it; 0 for none
        row |= {
            name: value
            for name, value in (("distance_before", before), ("distance_after", after))
            if math.isfinite(value)
        }
    return row


def write_rows(folder: RunFolder, rows: Sequence[Mapping[str, object]]) -> None:
    """Replaces the log."""
    write_text(folder.log, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(folder: RunFolder, count: int) -> list[dict[str, object]]:
    """The first rows of the log.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    if not count:
        return []
    try:
        rows = [dict(row) for row in read_steps(folder.log)][:count]
    except ArtefactError as error:
        raise ArtefactError(f"{folder.log} is missing or damaged ({error}); start without --resume") from error
    if len(rows) < count:
        raise ArtefactError(
            f"{folder.log} is missing or damaged ({len(rows)} of {counted(count, 'step')}); start without --resume"
        )
    return rows


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def write_progress(
    folder: RunFolder,
    progress: Progress,
    *,
    fingerprint: str,
    num_rows: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    passes: Passes | None = None,
    course: Course | None = None,
) -> None:
    """Writes a checkpoint.

    Args:
        folder: the run's folder.
        progress: the position in the run.
        fingerprint: fingerprint of the request; another request cannot go on from here.
        num_rows: number of rows in the latency table.
        module, optimizer: the network and its optimiser, whose tensors are kept.
        passes: the passes of its training, whose loss scale is kept; None without pictures.
        course: the course of fine-tuning, which is kept; None without pictures.
    """
    words = PruneWords.of(progress, fingerprint=fingerprint, num_rows=num_rows)
    save_checkpoint(checkpoint_path(folder), words, module, optimizer, passes, course)


def read_progress(folder: RunFolder, graph: ChannelGraph, *, fingerprint: str) -> tuple[Progress, int]:
    """The progress of a checkpoint, and how many rows the latency table had; its tensors are loaded separately.

    Raises:
        ArtefactError: it is damaged, or belongs to another request.
    """
    path = checkpoint_path(folder)
    words = read_checkpoint(path, PruneWords)
    if words.fingerprint != fingerprint:
        raise ArtefactError(f"{path} belongs to a run with other settings; repeat them, or start without --resume")
    try:
        return words.progress(graph), words.num_rows
    except (HalpError, ArithmeticError, ValueError) as error:
        raise not_ours(path, error) from error


# ---- the result -----------------------------------------------------------------------------------------------------


def write_result(
    folder: RunFolder, subject: Subject, plan: PruningPlan, *, dense: nn.Module, pruned: nn.Module, fingerprint: str
) -> PruningPlan:
    """Writes weights, rewritten model and plan; the plan comes last and marks the run as whole.

    Args:
        folder: the run's folder.
        subject: the network whose export is rewritten.
        plan: the last plan.
        dense: the network before pruning; not changed.
        pruned: the network after fine-tuning, slimmed or masked.
        fingerprint: fingerprint of the request.

    Returns:
        The plan with its parents.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
    """
    tensors: dict[str, torch.Tensor] = {name: tensor.detach().cpu() for name, tensor in pruned.state_dict().items()}
    check_finite(tensors, "the fine-tuned network")
    save_tensors(folder.weights, tensors)
    widened = unslim(copy.deepcopy(dense), plan, tensors)
    rewritten = rewrite(with_weights(subject.model, arrays_of(widened)), plan).SerializeToString()
    write_bytes(folder.pruned_model, rewritten)
    parents = {
        **subject.parents,
        "dense.onnx": sha256_bytes(subject.model.SerializeToString()),
        "pruned.onnx": sha256_bytes(rewritten),
        PRUNED_WEIGHTS: sha256_file(folder.weights),
        _REQUEST: fingerprint,
    }
    plan = replace(plan, parents=parents)
    save(plan, folder.plan)
    checkpoint_path(folder).unlink(missing_ok=True)
    return plan
