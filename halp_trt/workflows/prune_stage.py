"""Pruning the network of a run, its engines timed on the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import onnx

from halp_trt.errors import RuntimeUnavailableError
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trace import trace
from halp_trt.runtimes import Array, Runtime, Session
from halp_trt.specs import Budget, PruningPlan, Target
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.compare import Certainty
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.inputs import calibration_inputs, example_inputs
from halp_trt.workflows.measurer import Measurer, network_footprint
from halp_trt.workflows.network import load_network
from halp_trt.workflows.precision import Prepare, check_measurable, preparer
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import PruneRequest, Subject
from halp_trt.workflows.stopwatch import Stopwatch, make_stopwatch
from halp_trt.workflows.target import find_target, table_of

__all__ = ["prune_run"]


def prune_run(
    settings: Settings, run: RunFolder, progress: Callable[[int, int, str], None], *, resume: bool
) -> PruningPlan:
    """Prunes the network of these settings into the run's folder; its engines are timed on the way where they can run.

    Raises:
        InfeasibleBudgetError, NonFiniteError, UsageError, ArtefactError: as ``halp_trt.workflows.prune.prune``.
        TargetMismatchError: the latency table is of another target.
        MissingLatencyError: it lacks a layer that may not be measured.
    """
    runtime, target = find_target(settings)
    check_measurable(target)
    network, data = load_network(settings, run)
    if data is not None and not settings.weights and not run.trained.exists():
        warnings.warn(
            "the network has its untrained initial weights; name some with --weights, or use 'run'", stacklevel=2
        )
    model = export(network.module, network.example)
    graph = trace(network.module, network.example, frozen=settings.frozen, source=settings.model, model=model)
    request = _request(settings)
    path = table_of(settings, target)
    lookup = Measurer(
        path, runtime, target, on_miss=settings.on_miss, footprint=network_footprint(graph, settings.batch_size)
    )
    dense = rewrite(model, PruningPlan.dense(graph))
    asked = replace(settings, lut=str(path), runtime=runtime.name)
    return prune(
        Subject(module=network.module, graph=graph, model=model, data=data),
        request,
        run,
        lookup=lookup,
        stopwatch=_stopwatch(
            dense,
            runtime,
            target,
            inputs=lambda session: example_inputs(session, data, network.example),
            prepare=preparer(target, lambda: calibration_inputs(dense, data)),
            until=Certainty(max_seconds=settings.timing_seconds),
        ),
        resume=resume,
        progress=progress,
        begin=lambda: run.write_settings(asked),
    )


def _request(settings: Settings) -> PruneRequest:
    """How the settings say to prune."""
    return PruneRequest(
        budget=Budget.parse(settings.budget),
        train=TrainSettings(
            num_epochs=settings.epochs,
            batch_size=settings.train_batch,
            learning_rate=settings.tune_rate,
            distillation=settings.distillation,
            seed=settings.seed,
        ),
        method=settings.method,
        saliency=settings.saliency,
        num_steps=settings.steps,
        num_minibatches=settings.minibatches,
        grid_step=settings.step,
        group_fraction=settings.max_prune / 100,
        step_fraction=settings.max_prune_step / 100,
    )


def _stopwatch(
    dense: onnx.ModelProto,
    runtime: Runtime,
    target: Target,
    *,
    inputs: Callable[[Session], dict[str, Array]],
    prepare: Prepare,
    until: Certainty,
) -> Stopwatch | None:
    """Times engines while pruning, or None where this machine cannot execute or time them."""

    def load(model: onnx.ModelProto) -> Session:
        return runtime.load(runtime.build(prepare(model).model.SerializeToString(), target), target)

    try:
        session = load(dense)
        return make_stopwatch(session, load, inputs(session), until)
    except RuntimeUnavailableError:
        return None
