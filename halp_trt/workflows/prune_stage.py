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
from halp_trt.specs import PruningPlan, Target
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.inputs import calibration_inputs, example_inputs
from halp_trt.workflows.measurer import Measurer, network_footprint
from halp_trt.workflows.network import load_network
from halp_trt.workflows.precision import Prepare, preparer
from halp_trt.workflows.prune import prune
from halp_trt.workflows.refusals import check_prunable
from halp_trt.workflows.request import Subject
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
    request = check_prunable(settings, runtime, target)
    network, data = load_network(settings, run)
    if data is not None and not settings.weights and not run.trained.exists():
        warnings.warn(
            "the network has its untrained initial weights; name some with --weights, or use 'run'", stacklevel=2
        )
    model = export(network.module, network.example)
    graph = trace(network.module, network.example, frozen=settings.frozen, source=settings.model, model=model)
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
        ),
        resume=resume,
        progress=progress,
        begin=lambda: run.write_settings(asked),
    )


def _stopwatch(
    dense: onnx.ModelProto,
    runtime: Runtime,
    target: Target,
    *,
    inputs: Callable[[Session], dict[str, Array]],
    prepare: Prepare,
) -> Stopwatch | None:
    """Times engines while pruning, or None where this machine cannot execute them."""
    try:
        session = runtime.load(runtime.build(prepare(dense).model.SerializeToString(), target), target)
        return make_stopwatch(dense, runtime, target, inputs(session), prepare)
    except RuntimeUnavailableError:
        return None
