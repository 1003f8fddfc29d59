"""Iterative pruning with training in between, then slimming, fine-tuning and rewriting; resumes after a kill."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import onnx

from halp_trt.errors import ArtefactError, InfeasibleBudgetError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.data import num_batches
from halp_trt.models.mask import mask, settle
from halp_trt.models.saliency import SaliencySums, accumulate, finish, magnitude
from halp_trt.models.slim import slim
from halp_trt.models.training import make_optimizer, num_steps, train_step
from halp_trt.models.weights import check_finite
from halp_trt.planning import METHODS, channel_steps, counts_latency_us, grid_steps
from halp_trt.planning.iterate import Schedule, Step, iterate
from halp_trt.planning.network import removable_blocks
from halp_trt.planning.pricing import Lookup
from halp_trt.planning.widths import least_counts, reachable_counts
from halp_trt.specs import PruningPlan, Saliency
from halp_trt.store import save
from halp_trt.workflows.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.ledger import (
    calibrate,
    checkpoint_path,
    finished_plan,
    log_row,
    read_rows,
    state_of,
    step_of,
    write_result,
    write_rows,
    write_start,
)
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.request import PruneRequest, Subject
from halp_trt.workflows.stopwatch import Stopwatch

__all__ = ["prune"]

Progress = Callable[[int, int, str], None]


def _silent(done: int, total: int, note: str = "") -> None:
    """Shows nothing."""


def _nothing() -> None:
    """Does nothing."""


def prune(
    subject: Subject,
    request: PruneRequest,
    folder: RunFolder,
    *,
    lookup: Lookup,
    stopwatch: Stopwatch | None = None,
    resume: bool = False,
    progress: Progress = _silent,
    begin: Callable[[], None] = _nothing,
) -> PruningPlan:
    """Prunes a network to a budget and writes plan, weights, rewritten model and log into the run's folder.

    What an earlier run left in the folder stays as it is until nothing refuses this one any more.

    Args:
        subject: the network and its pictures.
        request: what is asked for.
        folder: where everything goes; ``checkpoint.safetensors`` in it is what a killed run goes on from.
        lookup: measurements of layers, taken on demand or refused.
        stopwatch: times engines, to close the loop between prediction and measurement; None trusts the table.
        resume: whether to go on from a checkpoint, where there is one.
        progress: called with what is done, of how much, and a note.
        begin: called before the first file is written, unless the run was finished already.

    Raises:
        InfeasibleBudgetError: the budget cannot be reached; names the lowest latency that can.
        NonFiniteError: weights, a loss or all gradients are not finite.
        UsageError: Taylor saliency or fine-tuning is asked for without data.
        ArtefactError: the checkpoint belongs to another request or network.
    """
    done = finished_plan(folder, request.fingerprint(subject)) if resume else None
    if done is not None:
        return done
    use_taylor = request.uses_taylor(has_pictures=subject.data is not None)
    check_finite(dict(subject.module.state_dict()), "the network")
    run = _Run(subject, request, folder, lookup=lookup, stopwatch=stopwatch, progress=progress)
    run.start(resume)
    begin()
    write_start(folder, subject, anew=not resume)
    if not checkpoint_path(folder).exists():
        run.save()
    if not run.is_slim:
        run.prune(use_taylor)
    run.fine_tune()
    return run.finish()


class _Run:
    """The state of one pruning run between its phases; what must survive a kill goes through ``save``."""

    def __init__(
        self,
        subject: Subject,
        request: PruneRequest,
        folder: RunFolder,
        *,
        lookup: Lookup,
        stopwatch: Stopwatch | None,
        progress: Progress,
    ) -> None:
        self.subject, self.request, self.folder = subject, request, folder
        self.lookup, self.stopwatch, self.progress = lookup, stopwatch, progress
        self.module, self.data = subject.module, subject.data
        self.dense_twin = copy.deepcopy(subject.module)
        self.fingerprint = request.fingerprint(subject)
        self.step = Step(index=0, plan=PruningPlan.dense(subject.graph))
        self.num_minibatches = 0
        self.calibration = 1.0
        self.is_slim = False
        self.chunks: dict[str, int] = {}
        self.log: list[dict[str, object]] = []
        self.optimizer = make_optimizer(self.module, request.train) if subject.data is not None else None
        self.measured: dict[tuple[tuple[str, tuple[int, ...]], ...], tuple[float, float, float]] = {}
        self.loss = float("nan")

    # ---- start and resume -------------------------------------------------------------------------------------------

    def start(self, resume: bool) -> None:
        """Measures what planning needs of the dense network, goes back to a checkpoint; writes no file.

        Raises:
            InfeasibleBudgetError, ArtefactError: as :func:`prune`.
        """
        graph = self.subject.graph
        self.dense_us = counts_latency_us(graph, self.lookup, graph.dense_counts())
        if resume and checkpoint_path(self.folder).exists():
            self._resume()
        elif self.stopwatch is not None:
            dense_us, _ = self.stopwatch(self._rewritten(PruningPlan.dense(graph)))
            self.calibration = dense_us / self.dense_us
        budget, scale = self.request.budget, self.calibration if self.request.budget.fraction is None else 1.0
        target_us = budget.latency_us(self.dense_us * scale) / scale  # a share needs no rounding there and back
        self.schedule = Schedule(dense_us=self.dense_us, target_us=target_us, num_steps=self.request.num_steps)
        if not self.is_slim:
            self.chunks = self._chunks()
            self._check_reachable()

    def _check_reachable(self) -> None:
        """Says at once, not after hours of training, that a budget cannot be met.

        The narrowest network need not be the fastest: where it is too slow, the method tries with channels that all
        matter alike.

        Raises:
            InfeasibleBudgetError: it cannot; the message names the lowest reachable latency.
        """
        graph, schedule, narrowest = self.subject.graph, self.schedule, self._narrowest()
        if counts_latency_us(graph, self.lookup, narrowest) <= schedule.target_us:
            return
        alike = Saliency(scores={group.name: (1.0,) * group.num_channels for group in graph.prunable_groups})

        def attempt(least: Mapping[str, int] | None) -> InfeasibleBudgetError | None:
            try:
                METHODS[self.request.method](
                    self.step.plan, alike, self.lookup, budget_us=schedule.target_us, steps=self.chunks, least=least
                )
            except InfeasibleBudgetError as error:
                return error
            return None

        is_limited = min(self.request.group_fraction, self.request.step_fraction) < 1
        error = attempt({name: count for name, count in narrowest.items() if count} if is_limited else None)
        if error is not None:
            binds = is_limited and attempt(None) is None
            raise InfeasibleBudgetError(
                f"the budget is {schedule.target_us / schedule.dense_us:.1%} of the dense latency by the table, but "
                f"{error}" + ("; it could be met without --max-prune and --max-prune-step" if binds else "")
            )

    def _resume(self) -> None:
        path = checkpoint_path(self.folder)
        state = read_checkpoint(path)
        if state.settings != self.fingerprint:
            raise ArtefactError(f"{path} belongs to a run with other settings; repeat them, or start without --resume")
        self.step = step_of(state, self.subject.graph)
        self.calibration, self.num_minibatches = state.numbers["calibration"], state.num_minibatches
        if isinstance(self.lookup, Measurer):
            self.lookup.rewind(int(state.numbers.get("num_rows", self.lookup.num_rows)))
        if state.is_slim:
            self._slim()
        load_checkpoint(path, self.module, self.optimizer)
        self.log = read_rows(self.folder, state.num_steps)

    def save(self) -> None:
        state = state_of(
            self.step,
            settings=self.fingerprint,
            calibration=self.calibration,
            num_minibatches=self.num_minibatches,
            num_rows=self.lookup.num_rows if isinstance(self.lookup, Measurer) else 0,
            is_slim=self.is_slim,
        )
        if self.log:
            write_rows(self.folder, self.log)
        save_checkpoint(checkpoint_path(self.folder), state, self.module, self.optimizer)

    # ---- pruning ----------------------------------------------------------------------------------------------------

    def prune(self, use_taylor: bool) -> None:
        """All steps: train and gather saliency, plan, mask, write down."""
        gather = self._taylor if use_taylor else self._magnitude

        def score(plan: PruningPlan) -> Saliency:
            saliency = gather(plan)
            if self.step.index == 0:
                save(saliency, self.folder.saliency)
            return saliency

        started = time.monotonic()
        self.progress(self.step.index, self.schedule.num_steps, "")
        steps = iterate(
            self.step,
            self.schedule,
            method=self._method,
            score=score,
            lookup=self.lookup,
            chunks=self.chunks,
            correct=self._correction,
        )
        for step in steps:
            self.step = step
            mask(self.module, step.plan, self.optimizer)
            settle(self.module, step.plan)
            self._write_down(step, time.monotonic() - started)
            started = time.monotonic()
            self.save()
            note = f"{step.plan.latency_us / self.dense_us:.1%} of dense"
            if step.plan.removed_blocks:
                note += f", {len(step.plan.removed_blocks)} blocks removed"
            self.progress(min(step.index, self.schedule.num_steps), self.schedule.num_steps, note)

    def _method(self, current: PruningPlan, saliency: Saliency, lookup: Lookup, **wanted: Any) -> PruningPlan:
        """One step of the method that was asked for, within the limits that were."""
        least = least_counts(
            current.graph,
            current.counts(),
            group_fraction=self.request.group_fraction,
            step_fraction=self.request.step_fraction,
        )
        return METHODS[self.request.method](current, saliency, lookup, least=least, **wanted)

    def _narrowest(self) -> dict[str, int]:
        """The counts that no schedule gets below; where nothing is limited, blocks may be gone."""
        request, schedule = self.request, self.schedule
        counts = reachable_counts(
            self.step.plan,
            steps=self.chunks,
            num_steps=schedule.num_steps + schedule.num_extra - self.step.index,
            group_fraction=request.group_fraction,
            step_fraction=request.step_fraction,
        )
        if request.method == "joint-blocks" and request.group_fraction == request.step_fraction == 1:
            for inside in removable_blocks(self.subject.graph).values():
                counts |= dict.fromkeys(inside, 0)
        return counts

    def _chunks(self) -> dict[str, int]:
        """Latency-aware grouping is HALP's; the others take any width of the grid."""
        graph, step = self.subject.graph, self.request.grid_step
        if self.request.method == "halp":
            return channel_steps(graph, self.lookup, grid_step=step)
        return grid_steps(graph, grid_step=step)

    def _taylor(self, plan: PruningPlan) -> Saliency:
        sums = SaliencySums()
        for _ in range(self.request.num_minibatches):
            sums = self._train_minibatch(plan, sums)
        return finish(sums)

    def _magnitude(self, plan: PruningPlan) -> Saliency:
        if self.data is not None:
            for _ in range(self.request.num_minibatches):
                self._train_minibatch(plan, None)
        return magnitude(self.module, self.subject.graph)

    def _train_minibatch(self, plan: PruningPlan, sums: SaliencySums | None) -> SaliencySums:
        assert self.data is not None
        assert self.optimizer is not None
        gathered = sums or SaliencySums()

        def gather() -> None:
            nonlocal gathered
            if sums is not None:
                gathered = accumulate(gathered, self.module, self.subject.graph)

        epochs = 1 + self.num_minibatches // num_batches(self.data.num_train, self.request.train.batch_size)
        settings = replace(
            self.request.train,
            num_epochs=epochs,
            schedule="constant",
            warmup_fraction=0.0,
            learning_rate=self.request.train.learning_rate / 10,
        )
        self.loss = train_step(
            self.module,
            self.optimizer,
            self.data,
            settings,
            step=self.num_minibatches,
            total=num_steps(self.data, settings),
            after_backward=gather,
        )
        self.num_minibatches += 1
        mask(self.module, plan, self.optimizer)
        return gathered

    def _correction(self, plan: PruningPlan) -> float:
        """Times the step's engine: measured share of the dense latency over the predicted share."""
        if self.stopwatch is None:
            return 1.0
        dense_us, pruned_us = self.stopwatch(self._rewritten(plan))
        self.measured[tuple(plan.kept.items())] = (plan.latency_us, dense_us, pruned_us)
        return (pruned_us / dense_us) / (plan.latency_us / self.dense_us)

    def _write_down(self, step: Step, seconds: float) -> None:
        measured = self.measured.pop(tuple(step.plan.kept.items()), None)
        row = log_row(step, dense_us=self.dense_us, seconds=seconds, measured=measured)
        if self.measured:
            row["others"] = [list(engine) for engine in self.measured.values()]
            self.measured.clear()
        if self.data is not None and self.num_minibatches:
            row["loss"] = self.loss
        self.log.append(row)

    # ---- fine-tuning and what remains -------------------------------------------------------------------------------

    def _slim(self) -> None:
        slim(self.module, self.step.plan, self.optimizer)
        self.is_slim = True

    def fine_tune(self) -> None:
        """Slims the module and trains it small; a checkpoint after every epoch."""
        if not self.is_slim:
            self._slim()
            self.num_minibatches = 0
            self.save()
        settings = self.request.train
        if self.data is None or self.optimizer is None:
            self.module.eval()
            return
        total, per_epoch = num_steps(self.data, settings), num_batches(self.data.num_train, settings.batch_size)
        teacher = self.dense_twin if settings.distillation > 0 else None
        for step in range(self.num_minibatches, total):
            loss = train_step(self.module, self.optimizer, self.data, settings, step=step, total=total, teacher=teacher)
            self.num_minibatches = step + 1
            self.progress(step + 1, total, f"fine-tuning, loss {loss:.3f}")
            if (step + 1) % per_epoch == 0:
                self.save()
        self.module.eval()

    def finish(self) -> PruningPlan:
        """Calibrates the plan's prediction and writes the result."""
        found = calibrate(self.log, dense_us=self.dense_us, slope=self.calibration)
        return write_result(
            self.folder,
            self.subject,
            replace(
                self.step.plan,
                calibration=found.slope,
                overhead_us=found.overhead_us,
                calibration_r_squared=found.r_squared,
                calibration_error_fraction=found.largest_error_fraction,
                calibration_engines=found.num_engines,
            ),
            dense=self.dense_twin,
            slimmed=self.module,
            settings=self.fingerprint,
        )

    def _rewritten(self, plan: PruningPlan) -> onnx.ModelProto:
        return rewrite(self.subject.model, plan)
