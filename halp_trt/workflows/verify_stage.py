"""Verifying the engines of a run against its plan, its budget and its model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from halp_trt.errors import UsageError
from halp_trt.graphs.reading import parse_model, read_model
from halp_trt.latency import LatencyTable, check_target
from halp_trt.models.reference import outputs_of
from halp_trt.models.sources import LoadedModel
from halp_trt.models.widen import unslim
from halp_trt.planning.resources import network_footprint
from halp_trt.runtimes import Runtime, Session, TellsKernels, Unit, traits_of
from halp_trt.runtimes.witness import difference_from_onnxruntime, require_witness
from halp_trt.specs import Budget, PruningPlan, Score, Target, Verification
from halp_trt.store import check_writable, hold, load_tensors, read_table, save
from halp_trt.tasks.data import is_labelled
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.workflows.examples import draw_examples
from halp_trt.workflows.folder import RunFolder, engine_path, load_engine
from halp_trt.workflows.inputs import example_inputs
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.network import check_code, network_of
from halp_trt.workflows.outputs import Inputs
from halp_trt.workflows.parents import check_plan, weights_of
from halp_trt.workflows.reading import predict_of, reading_step
from halp_trt.workflows.settings import NO_DATA, PlaceSettings, Settings, TableSettings
from halp_trt.workflows.target import find_target, table_of
from halp_trt.workflows.verify import Evidence, Explain, LoadedEngine, Promise, Tolerances, Witness, verify

__all__ = ["score_of", "verify_alone", "verify_run"]

_FULL = "fp32"
"""The precision in which an engine computes what the masked model does."""


def verify_run(
    run: RunFolder,
    network: Callable[[], tuple[LoadedModel, DataSet | None]],
    place: PlaceSettings,
    tables: TableSettings,
    *,
    budget: Budget,
    engines: Path,
    tolerances: Tolerances | None = None,
    with_witness: bool = False,
) -> Verification:
    """Verifies the engines that ``halp_trt.workflows.deploy_stage`` built for a run, and records the result.

    Where the settings name no table and there is none of this target, nothing is predicted; the rest is checked.

    Args:
        run: folder of the pruned run.
        network: gives the dense network, which is not changed, and its pictures; called once everything else is there.
        place: runtime and precision of the engines; for others than the run's, engines must have been built.
        tables: the latency table, and whether missing layers may be measured.
        budget: the budget that was asked for.
        engines: their folder.
        tolerances: the differences that still pass.
        with_witness: whether ONNX Runtime's outputs are compared with the engines', too.

    Raises:
        ArtefactError: something is missing, damaged, or belongs to another network.
        RuntimeUnavailableError: this machine cannot execute the engines, or lacks what the witness needs.
        TargetMismatchError: the table that the settings name is of another target.
        MissingLatencyError: the table lacks a layer.
    """
    if with_witness:
        require_witness()
    plan = run.read_plan()
    runtime, target = find_target(place)
    table = _table_for(tables, target)
    contenders = {
        role: _contender(run, role, parent, runtime, target, engines)
        for role, parent in (("dense", run.dense_model), ("pruned", run.pruned_model))
    }
    loaded, data = network()
    masked = unslim(copy.deepcopy(loaded.module), plan, load_tensors(run.weights))
    inputs = example_inputs(contenders["dense"].session, data, loaded.example)
    result = verify(
        contenders,
        Promise(plan=plan, budget=budget, table=table, tolerances=tolerances or Tolerances()),
        masked=lambda inputs: outputs_of(masked, inputs.values()),
        score=lambda session: score_of(session, data, loaded.output_names),
        inputs=inputs,
        evidence=replace(
            _evidence(masked, data, loaded.output_names, target),
            witness=_witness(inputs) if with_witness else None,
            explain=_explainer(tables, plan, runtime, target) if table is not None else None,
        ),
    )
    save(result, run.verification)
    _save_examples(run, contenders, data, loaded.output_names)
    return result


def _witness(inputs: Inputs) -> Witness:
    """A function that compares an engine's outputs for some inputs with ONNX Runtime's."""

    def off_onnxruntime(contender: LoadedEngine) -> float:
        return difference_from_onnxruntime(contender.session, contender.model.SerializeToString(), inputs)

    return off_onnxruntime


def _evidence(masked: nn.Module, data: DataSet | None, output_names: Sequence[str], target: Target) -> Evidence:
    """The evidence of the task: the host's share of the time, and the score in fp32 of engines in other formats."""
    is_lower = target.precision != _FULL and data is not None and data.is_labelled

    def fp32_score() -> Score | None:
        return evaluate(module_predict(masked), data) if is_lower and data is not None else None

    return Evidence(
        reading=lambda session: reading_step(session, data, output_names),
        fp32_score=fp32_score,
        output_names=output_names,
    )


def _save_examples(
    run: RunFolder, contenders: Mapping[str, LoadedEngine], data: DataSet | None, output_names: Sequence[str]
) -> None:
    """Writes test pictures with what both engines find in them; none where the task draws nothing."""
    sessions = {role: contender.session for role, contender in contenders.items()}
    parents = {contender.record.file: contender.record.sha256 for contender in contenders.values()}
    examples = draw_examples(sessions, data, output_names, parents)
    if examples is None:
        run.examples.unlink(missing_ok=True)
    else:
        save(examples, run.examples)


def verify_alone(
    run: RunFolder,
    settings: Settings,
    *,
    engines: Path,
    tolerances: Tolerances | None = None,
    with_witness: bool = False,
) -> Verification:
    """Verifies the engines of a run by the settings alone; raises the errors of :func:`verify_run`.

    Raises:
        ArtefactError: a file of the run, or its weights, is not what the plan was made from.
        UsageError: the tolerances limit the score's drop, and there are no labelled data to score on; or the run's file
            names code that the user does not.
        InUseError: another process has the run.
    """
    check_code(settings.network, settings.data)
    check_plan(run.plan, run.read_plan(), weights_of(run.trained, settings.network.weights))
    if tolerances is not None and tolerances.max_drop is not None:
        if settings.data.data == NO_DATA:
            raise UsageError("--max-drop compares scores, and this run has no data; name some with --data when pruning")
        if not is_labelled(settings.data.data):
            raise UsageError(
                f"--max-drop compares scores, and {settings.data.data} has no labels; name others with --data"
            )

    def network() -> tuple[LoadedModel, DataSet | None]:
        return network_of(settings, trained=run.trained)

    with hold(run.path):
        run.check_own()
        check_writable(run.verification)
        check_writable(run.examples)
        return verify_run(
            run,
            network,
            settings.place,
            settings.table,
            budget=settings.prune.budget,
            engines=engines,
            tolerances=tolerances,
            with_witness=with_witness,
        )


def _table_for(settings: TableSettings, target: Target) -> LatencyTable | None:
    """The table that the settings name, else the target's own, else None."""
    path = table_of(settings, target)
    if not settings.lut and not path.exists():
        return None
    table = read_table(path)
    check_target(table, target)
    return table


def _explainer(settings: TableSettings, plan: PruningPlan, runtime: Runtime, target: Target) -> Explain | None:
    """A function that looks up an engine's kernels and measures new ones; None where it cannot tell kernels."""
    if not isinstance(runtime, TellsKernels) or settings.on_a_miss == "refuse":
        return None
    measure = Measurer(
        table_of(settings, target), runtime, target, footprint=network_footprint(plan.graph, target.batch_size)
    )

    def explain(contender: LoadedEngine) -> list[tuple[Unit, float]]:
        units = runtime.units(contender.engine, target)
        rows = measure.units(units)
        return [(unit, rows[unit.spec].latency_us) for unit in units]

    return explain


def _contender(
    run: RunFolder, role: str, parent: Path, runtime: Runtime, target: Target, engines: Path
) -> LoadedEngine:
    path = engine_path(engines, run, role, target, runtime.suffix)
    record, engine = load_engine(path, parent)
    if not traits_of(runtime.name).is_ahead_of_time:  # its engines are ONNX models
        parse_model(engine, str(path), advice="run deploy again")
    session = runtime.load(engine, target)
    return LoadedEngine(record=record, session=session, model=read_model(parent), engine=engine)


def score_of(session: Session, data: DataSet | None, output_names: Sequence[str]) -> Score | None:
    """The score of an engine at the task of a data set; None without one, and for pictures without labels.

    Args:
        session: session of the engine.
        data: the examples.
        output_names: the network's own names of its outputs, in the engine's order.

    Raises:
        UsageError: the engine has several inputs.
        ModelError, NonFiniteError, DataError: as ``halp_trt.tasks.evaluation.evaluate``.
    """
    if data is None or not data.is_labelled:
        return None
    if len(session.input_shapes) != 1:
        raise UsageError(
            f"a score needs a network with one input, this one has {list(session.input_shapes)}; use data none"
        )
    (shape,) = session.input_shapes.values()
    return evaluate(predict_of(session, output_names), data, batch_size=shape[0])
