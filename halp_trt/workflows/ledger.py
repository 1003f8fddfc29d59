"""What a pruning run writes down: the dense network, a log row and a checkpoint for each step, the result."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from halp_trt.errors import ArtefactError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.models.weights import check_finite
from halp_trt.models.widen import widen
from halp_trt.planning.calibration import Calibration, fit
from halp_trt.planning.iterate import Step
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import save, save_tensors, sha256_bytes, write_bytes, write_text
from halp_trt.workflows.checkpoint import Checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.request import Subject, arrays_of

__all__ = [
    "calibrate",
    "checkpoint_path",
    "finished_plan",
    "log_row",
    "read_rows",
    "state_of",
    "step_of",
    "write_result",
    "write_rows",
    "write_start",
]

_REQUEST = "request"


def checkpoint_path(folder: RunFolder) -> Path:
    """What a killed run goes on from; gone when the run is whole."""
    return folder.path / "checkpoint.safetensors"


def finished_plan(folder: RunFolder, fingerprint: str) -> PruningPlan | None:
    """The plan of a run that is whole, None where there is none.

    Raises:
        ArtefactError: it was asked for something else.
    """
    if not folder.plan.exists() or checkpoint_path(folder).exists():
        return None
    done = folder.read_plan()
    if done.parents.get(_REQUEST) != fingerprint:
        raise ArtefactError(
            f"{folder.path} holds a finished run with other settings; repeat them, or start without --resume"
        )
    return done


def write_start(folder: RunFolder, subject: Subject, *, anew: bool) -> None:
    """Writes the dense network; one that starts anew first removes what would speak of an earlier run."""
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
    step: Step, *, dense_us: float, seconds: float, measured: tuple[float, float, float] | None
) -> dict[str, object]:
    """One line of the log: what a step planned, and the dense and the pruned engine's latency where it was timed."""
    plan = step.plan
    row: dict[str, object] = {
        "step": step.index,
        "budget_us": plan.budget_us,
        "latency_us": plan.latency_us,
        "dense_us": dense_us,
        "value": plan.saliency,
        "bound": plan.bound,
        "gap": (plan.bound - plan.saliency) / (plan.saliency or plan.bound) if plan.bound > plan.saliency else 0.0,
        "num_channels": sum(len(plan.kept[g.name]) for g in plan.graph.prunable_groups),
        "seconds": round(seconds, 3),
    }
    if plan.removed_blocks:
        row["removed_blocks"] = list(plan.removed_blocks)
    if measured is not None:
        row |= {"measured_dense_us": measured[1], "measured_us": measured[2]}
    return row


def calibrate(rows: Sequence[Mapping[str, Any]], *, dense_us: float, slope: float) -> Calibration:
    """The line from table sums to engines, through the dense engine and all that were timed, but the final one.

    The final plan's engine is left out so that it is truly predicted. Engines count by their share of the dense one
    that took turns with them, so that a drift of the machine does not matter.

    Args:
        rows: log rows of all steps; ``others`` holds what was timed besides the engine of the step's own plan, as
            predicted, dense and measured microseconds.
        dense_us: the dense network by the table.
        slope: measured dense latency over ``dense_us``.
    """
    engines = [(row["latency_us"], row["measured_dense_us"], row["measured_us"]) for row in rows[:-1]
               if "measured_us" in row]  # fmt: skip
    engines += [tuple(other) for row in rows for other in row.get("others", ())]
    if not engines:
        return Calibration(slope=slope)
    whole_us = slope * dense_us
    return fit(
        [dense_us, *(sum_us for sum_us, _, _ in engines)],
        [whole_us, *(whole_us * found_us / beside_us for _, beside_us, found_us in engines)],
    )


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
        return [json.loads(line) for line in folder.log.read_text().splitlines()][:count]
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder.log} is missing or damaged ({error}); start without --resume") from error


def state_of(
    step: Step, *, settings: str, calibration: float, num_minibatches: int, num_rows: int, is_slim: bool = False
) -> Checkpoint:
    """The words and numbers of a checkpoint."""
    plan = step.plan
    return Checkpoint(
        settings=settings,
        num_steps=step.index,
        num_minibatches=num_minibatches,
        kept=plan.kept,
        numbers={
            "latency_us": plan.latency_us,
            "budget_us": plan.budget_us,
            "saliency": plan.saliency,
            "bound": plan.bound,
            "correction": step.correction,
            "calibration": calibration,
            "num_rows": num_rows,
        },
        is_slim=is_slim,
    )


def step_of(state: Checkpoint, graph: ChannelGraph) -> Step:
    """The step that a checkpoint was taken after."""
    plan = PruningPlan(
        graph=graph,
        kept=state.kept,
        latency_us=state.numbers["latency_us"],
        budget_us=state.numbers["budget_us"],
        saliency=state.numbers["saliency"],
        bound=state.numbers["bound"],
    )
    return Step(index=state.num_steps, plan=plan, correction=state.numbers["correction"])


# ---- the result -----------------------------------------------------------------------------------------------------


def write_result(
    folder: RunFolder, subject: Subject, plan: PruningPlan, *, dense: nn.Module, slimmed: nn.Module, settings: str
) -> PruningPlan:
    """Writes weights, rewritten model and plan; the plan comes last and marks the run as whole.

    Args:
        folder: of the run.
        subject: whose export is rewritten.
        plan: what was kept.
        dense: the network before pruning; not changed.
        slimmed: after fine-tuning.
        settings: fingerprint of what was asked for.

    Returns:
        The plan with its parents.

    Raises:
        NonFiniteError: a weight is NaN or infinite.
    """
    tensors: dict[str, torch.Tensor] = {name: tensor.detach() for name, tensor in slimmed.state_dict().items()}
    check_finite(tensors, "the fine-tuned network")
    save_tensors(folder.weights, tensors)
    widened = widen(copy.deepcopy(dense), plan, tensors)
    pruned = rewrite(with_weights(subject.model, arrays_of(widened)), plan).SerializeToString()
    write_bytes(folder.pruned_model, pruned)
    parents = {
        "dense.onnx": sha256_bytes(subject.model.SerializeToString()),
        "pruned.onnx": sha256_bytes(pruned),
        _REQUEST: settings,
    }
    plan = replace(plan, parents=parents)
    save(plan, folder.plan)
    checkpoint_path(folder).unlink(missing_ok=True)
    return plan
