"""Pruning the network of a run, its engines timed on the way."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import onnx

from halp_trt.errors import RuntimeUnavailableError
from halp_trt.planning.resources import network_footprint
from halp_trt.runtimes import BuildOptions, Runtime, Session
from halp_trt.specs import ChannelGraph, PruningPlan, Target
from halp_trt.store import sha256_file
from halp_trt.training.batches import check_shares
from halp_trt.training.world import ALONE, World
from halp_trt.workflows.claim import claimed
from halp_trt.workflows.compare import Certainty
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.inputs import calibration_inputs, example_inputs
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.network import network_of
from halp_trt.workflows.parents import weights_of
from halp_trt.workflows.precision import Prepare, preparer
from halp_trt.workflows.prepared import DenseEngine, Prepared, build_dense, prepare
from halp_trt.workflows.prune import prune
from halp_trt.workflows.refusals import check_prunable
from halp_trt.workflows.request import Subject
from halp_trt.workflows.settings import Settings, TableSettings
from halp_trt.workflows.stopwatch import Stopwatch, make_stopwatch
from halp_trt.workflows.target import find_target, table_of
from halp_trt.workflows.teacher import teacher_of
from halp_trt.workflows.unprobed import warn_unprobed
from halp_trt.workflows.world import world_of

__all__ = ["dense_engine", "lookup_of", "prune_alone", "prune_run", "recorded"]

Progress = Callable[[int, int, str], None]
"""A callback that gets the work done, the work in all, and a note."""


def dense_engine(
    prepared: Prepared, runtime: Runtime, target: Target, options: BuildOptions | None = None
) -> tuple[DenseEngine, Prepare]:
    """The dense engine of a run, and the function that gives its candidates the same number formats.

    Raises:
        BuildError: the runtime refuses the network.
    """
    folded = prepared.folded()
    give_types = preparer(target, lambda: calibration_inputs(folded, prepared.data))
    return build_dense(folded, runtime, target, give_types, options), give_types


def lookup_of(graph: ChannelGraph, settings: TableSettings, path: Path, runtime: Runtime, target: Target) -> Measurer:
    """The lookup that a network is pruned by: its latency table, and what is done about a width that it lacks.

    Raises:
        ArtefactError: the table is damaged.
        TargetMismatchError: it is of another target.
    """
    footprint = network_footprint(graph, target.batch_size)
    return Measurer(path, runtime, target, on_miss=settings.on_a_miss, footprint=footprint)


def prune_run(
    prepared: Prepared,
    settings: Settings,
    run: RunFolder,
    progress: Progress,
    *,
    resume: bool,
    dense: tuple[DenseEngine, Prepare] | None = None,
    world: World | None = None,
) -> PruningPlan:
    """Prunes a network into the run's folder; its engines are timed on the way where they can run.

    Args:
        prepared: the network; not changed.
        settings: all settings, because the folder records them.
        run: the folder.
        progress: called with the work done, the work in all, and a note.
        resume: whether to go on from a checkpoint.
        dense: the result of :func:`dense_engine` for the settings' place; None builds it.
        world: this process, the first of those that train; None for one alone.

    Raises:
        InfeasibleBudgetError, NonFiniteError, UsageError, ArtefactError: as ``halp_trt.workflows.prune.prune``.
        TargetMismatchError: the latency table is of another target.
        MissingLatencyError: it lacks a layer that may not be measured.
        RuntimeUnavailableError: the device that is to train is not there.
    """
    if prepared.data is not None and not settings.network.weights and not run.trained.exists():
        warnings.warn(
            "the network has its untrained initial weights; name some with --weights, or use 'run'", stacklevel=2
        )
    runtime, target = find_target(settings.place)
    request, world = check_prunable(settings, runtime, target), world or world_of(settings.tune)
    path = table_of(settings.table, target)
    warn_unprobed(prepared.graph, target)
    lookup = lookup_of(prepared.graph, settings.table, path, runtime, target)
    asked = recorded(settings)
    weights = weights_of(run.trained, settings.network.weights)
    engine, give_types = dense or dense_engine(prepared, runtime, target)
    return prune(
        Subject(
            module=copy.deepcopy(prepared.network.module),
            example=prepared.network.example,
            graph=prepared.graph,
            model=prepared.model,
            data=prepared.data,
            parents={weights.name: sha256_file(weights)} if weights.exists() else {},
            teacher=prepared.teacher,
        ),
        request,
        run,
        lookup=lookup,
        stopwatch=_stopwatch(
            engine, runtime, prepared, give_types, Certainty(max_seconds=settings.prune.timing_seconds)
        ),
        world=world,
        resume=resume,
        progress=progress,
        begin=lambda: run.write_settings(asked),
    )


def recorded(settings: Settings) -> Settings:
    """The settings as a run's folder records them: with the runtime, latency table and training device that are taken.

    Raises:
        UsageError, BuildError, RuntimeUnavailableError: as ``find_target``, ``table_of`` and ``world_of``.
    """
    (runtime, target), device = find_target(settings.place), world_of(settings.tune).device
    return settings.changed(lut=str(table_of(settings.table, target)), runtime=runtime.name, train_device=device)


def prune_alone(
    settings: Settings,
    run: RunFolder,
    progress: Progress,
    *,
    resume: bool,
    force: bool = False,
    world: World | None = None,
) -> PruningPlan:
    """Prunes the network that settings name.

    Args:
        settings: all settings.
        run: the folder; a finished run in it stays as it is until the new one, of ``force``, is whole.
        progress: called with the work done, the work in all, and a note.
        resume: whether to go on from a checkpoint.
        force: whether a finished run with other settings may be replaced.
        world: this process, the first of those that train; None for one alone.

    Raises:
        HalpError: as :func:`prune_run`, and ``halp_trt.workflows.claim.claimed``.
    """
    runtime, target = find_target(settings.place)
    request = check_prunable(settings, runtime, target)
    with claimed(run, recorded(settings), resume=resume, force=force, keeps_weights=True) as claim:
        network, data = network_of(settings, trained=claim.place.trained)
        check_shares(data, request.train, world or ALONE)
        teacher = teacher_of(settings, network, data)
        prepared = prepare(network, data, frozen=settings.prune.frozen, teacher=teacher)
        plan = prune_run(prepared, settings, claim.place, progress, resume=claim.resume, world=world)
        claim.publish()
    return plan


def _stopwatch(
    dense: DenseEngine, runtime: Runtime, prepared: Prepared, give_types: Prepare, until: Certainty
) -> Stopwatch | None:
    """A stopwatch for engines while pruning; None where this machine cannot execute or time them.

    A candidate that equals the dense network uses the dense engine.
    """
    if dense.session is None:
        return None

    def load(model: onnx.ModelProto) -> Session:
        source = give_types(model).model.SerializeToString()
        is_dense = dense.is_of(source, dense.target)
        return runtime.load(dense.built.engine if is_dense else runtime.build(source, dense.target), dense.target)

    inputs = example_inputs(dense.session, prepared.data, prepared.network.example)
    try:
        return make_stopwatch(dense.session, load, inputs, until)
    except RuntimeUnavailableError:  # it runs, but has no clock
        return None
