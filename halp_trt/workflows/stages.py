"""The stages of a run, each from the settings and the run's folder alone, so that a verb can start at any of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import torch

from halp_trt.errors import DataError, RuntimeUnavailableError, UsageError
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.latency import LatencyTable, check_target
from halp_trt.models.data import DataSet, load_data
from halp_trt.models.evaluation import evaluate, module_predict
from halp_trt.models.factories import is_factory
from halp_trt.models.reference import answers
from halp_trt.models.sources import LoadedModel, load_model
from halp_trt.models.trace import trace
from halp_trt.models.training import TrainSettings, train_epochs
from halp_trt.models.widen import widen
from halp_trt.runtimes import Array, Compiler, Explains, Runtime, Session, Unit, default_runtime, get_runtime
from halp_trt.runtimes.witness import difference_from_onnxruntime, require_witness
from halp_trt.specs import Budget, ChannelGraph, PruningPlan, Target, Verification
from halp_trt.store import load_tensors, read_table, save, save_tensors
from halp_trt.workflows.build_lut import Measurer, Survey, network_footprint, survey_lut
from halp_trt.workflows.deploy import Deployment, Order, deploy, read_model
from halp_trt.workflows.folder import RunFolder, Settings, engine_path, load_engine, table_path
from halp_trt.workflows.precision import Prepare, check_measurable, preparer
from halp_trt.workflows.prune import prune
from halp_trt.workflows.request import PruneRequest, Subject
from halp_trt.workflows.stopwatch import Stopwatch, make_stopwatch
from halp_trt.workflows.verify import Contender, Explain, Tolerances, verify

__all__ = [
    "NO_DATA",
    "calibration_inputs",
    "deploy_run",
    "find_target",
    "load_network",
    "load_pictures",
    "measure_table",
    "prune_run",
    "table_of",
    "train_dense",
    "verify_run",
]

NO_DATA = "none"
_INPUT_SEED = 0


def find_target(settings: Settings) -> tuple[Runtime, Target]:
    """The runtime of these settings, and this machine as its target.

    Raises:
        UsageError: there is no such runtime, or it has no such precision.
        RuntimeUnavailableError: its package is not installed.
    """
    runtime = get_runtime(settings.runtime or default_runtime())
    target = runtime.target(settings.precision, settings.batch_size)
    if settings.optimization_level is None:
        return runtime, target
    if not isinstance(runtime, Compiler):
        raise UsageError(f"{runtime.name} has no optimisation levels; leave --optimization-level out")
    return runtime, replace(target, optimization_level=settings.optimization_level)


def table_of(settings: Settings, target: Target) -> Path:
    """The latency table that the settings name, or the target's own."""
    return Path(settings.lut) if settings.lut else table_path(target)


# ---- the network and its pictures -----------------------------------------------------------------------------------


def load_pictures(settings: Settings, input_shape: tuple[int, ...] | None = None) -> DataSet | None:
    """The data of these settings, or None where there are none.

    Raises:
        DataError: the source is not understood, nothing is there, or a picture is bad.
    """
    if settings.data == NO_DATA:
        return None
    shape = input_shape or settings.input_shape
    if shape and len(shape) != 3:
        raise DataError(
            f"pictures have channels, a height and a width, the network's input is {shape}; use data 'none'"
        )
    return load_data(
        settings.data,
        input_shape=(shape[0], shape[1], shape[2]) if shape else None,
        on_bad_picture=cast(Literal["refuse", "skip"], settings.on_bad_picture),
    )


def load_network(settings: Settings, run: RunFolder | None = None) -> tuple[LoadedModel, DataSet | None]:
    """The dense network and its pictures, made for each other: classes from the data, picture size from the network.

    Weights are those that the settings name, else those that the run trained, else the initial ones.

    Raises:
        ModelError, NonFiniteError, ArtefactError: as ``halp_trt.models.sources.load_model``.
        UsageError: the network has several inputs, and there are pictures.
        DataError: as :func:`load_pictures`.
    """
    data = load_pictures(settings)
    trained = run.trained if run is not None and run.trained.exists() else None
    classes = settings.num_classes or (data.num_classes if data is not None and not is_factory(settings.model) else 0)
    network = load_model(
        settings.model,
        weights=Path(settings.weights) if settings.weights else trained,
        input_shape=settings.input_shape or None,
        num_classes=classes or None,
        seed=settings.seed,
    )
    if data is not None and len(network.example) != 1:
        raise UsageError(
            f"{settings.model} has {len(network.example)} inputs, pictures can feed a network with one; use data none"
        )
    if data is not None and data.input_shape != network.input_shape:
        data = load_pictures(settings, network.input_shape)
    if settings.batch_size > 1:
        example = tuple(tensor.repeat_interleave(settings.batch_size, dim=0) for tensor in network.example)
        network = replace(network, example=example)
    return network, data


def train_dense(
    settings: Settings, run: RunFolder, progress: Callable[[int, int, float], None], *, resume: bool
) -> float | None:
    """Trains the dense network and saves its weights, unless the settings name some or there are no data.

    With ``resume``, weights that the run trained before are kept.

    Returns:
        Its accuracy as a fraction, or None where nothing was trained.

    Raises:
        NonFiniteError: the loss is NaN or infinite.
        ModelError, DataError: as :func:`load_network`.
    """
    if settings.weights or settings.train_epochs == 0 or (resume and run.trained.exists()):
        return None
    network, data = load_network(settings)
    if data is None:
        return None
    how = TrainSettings(
        num_epochs=settings.train_epochs,
        batch_size=settings.train_batch,
        learning_rate=settings.train_rate,
        seed=settings.seed,
    )
    train_epochs(network.module, data, how, progress=progress)
    save_tensors(run.trained, network.module.state_dict(), {"model": settings.model, "data": data.name})
    return evaluate(module_predict(network.module), data).fraction


# ---- the table ------------------------------------------------------------------------------------------------------


def measure_table(
    settings: Settings, survey: Survey, path: Path | None, progress: Callable[[int, int], None], *, resume: bool
) -> tuple[Path, LatencyTable]:
    """Measures the layers of the network over both of their widths.

    Raises:
        ArtefactError: the table exists and ``resume`` is not set, or it cannot be written.
        TargetMismatchError: it is of another target.
        UnsupportedLayerError: a layer of the network is not understood.
        UsageError: the runtime measures no layers in this precision.
    """
    runtime, target = find_target(settings)
    check_measurable(target)
    path = path or table_of(settings, target)
    network, _ = load_network(replace(settings, data=NO_DATA) if settings.num_classes else settings)
    graph = graph_of(settings, network)
    whole = resume and path.exists()
    table = survey_lut(graph, survey, path=path, runtime=runtime, target=target, resume=whole, progress=progress)
    return path, table


def graph_of(settings: Settings, network: LoadedModel) -> ChannelGraph:
    """The channel graph of a network, its frozen layers marked.

    Raises:
        UnsupportedLayerError: a layer is not understood.
        UsageError: a frozen layer does not exist.
    """
    model = export(network.module, network.example)
    return trace(network.module, network.example, frozen=settings.frozen, source=settings.model, model=model)


# ---- pruning and engines --------------------------------------------------------------------------------------------


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
    request = PruneRequest(
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


def deploy_run(run: RunFolder, settings: Settings, order: Order) -> Deployment:
    """Builds the engines of a run, calibrated on its training pictures where the precision asks for that.

    Raises:
        ArtefactError, GraphMismatchError, BuildError, PrecisionError: as ``halp_trt.workflows.deploy.deploy``.
        UsageError: the precision is calibrated on pictures and the run has none.
    """
    runtime, target = find_target(settings)

    def examples() -> list[dict[str, Array]]:
        return calibration_inputs(read_model(run.dense_model), _pictures_of(settings, run))

    return deploy(run, runtime, target, replace(order, examples=examples))


def _pictures_of(settings: Settings, run: RunFolder) -> DataSet | None:
    """The pictures of a run, in the shape its dense model reads."""
    if settings.data == NO_DATA:
        return None
    shape = _image_shape(read_model(run.dense_model))
    return load_pictures(settings, shape[1:])


def calibration_inputs(model: onnx.ModelProto, data: DataSet | None, num_pictures: int = 256) -> list[dict[str, Array]]:
    """Training pictures as inputs of a network, spread over the split; none where there are no data.

    Raises:
        DataError: they have not the shape that the network reads, or are not finite.
        UsageError: the network has several inputs.
    """
    if data is None:
        return []
    shape = _image_shape(model)
    num_batches = -(-min(num_pictures, data.num_train) // shape[0])
    picked = np.linspace(0, data.num_train - 1, num_batches * shape[0]).astype(np.int64).reshape(num_batches, -1)
    batches = []
    for indices in picked:
        pictures = data.train_batch(indices)[0].numpy()
        if pictures.shape[1:] != shape[1:] or not np.isfinite(pictures).all():
            found = (
                f"the shape {pictures.shape[1:]}" if pictures.shape[1:] != shape[1:] else "numbers that are not finite"
            )
            raise DataError(
                f"pictures of {data.name} have {found}, the network reads finite ones of {shape[1:]}; "
                "make them so, or name other --data"
            )
        batches.append({model.graph.input[0].name: np.resize(pictures, shape)})  # fewer where bad ones were skipped
    return batches


def _image_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    if len(model.graph.input) != 1:
        raise UsageError(
            f"calibrating needs a network with one input, this one has {len(model.graph.input)}; "
            "choose another precision"
        )
    return tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)


# ---- verification ---------------------------------------------------------------------------------------------------


def verify_run(
    run: RunFolder,
    settings: Settings,
    *,
    engines: Path,
    tolerances: Tolerances | None = None,
    with_witness: bool = False,
) -> Verification:
    """Verifies the engines that :func:`deploy_run` built for a run, and records what was found.

    Where the settings name no table and there is none of this target, nothing is predicted; the rest is checked.

    Args:
        run: what was pruned.
        settings: of the run; another runtime or precision needs engines built for that.
        engines: their folder.
        tolerances: what still passes.
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
    runtime, target = find_target(settings)
    table = _table_for(settings, target)
    dense, pruned = (
        _contender(run, role, parent, runtime, target, engines)
        for role, parent in (("dense", run.dense_model), ("pruned", run.pruned_model))
    )
    network, data = load_network(settings, run)
    masked = widen(network.module, plan, load_tensors(run.weights))
    inputs = example_inputs(dense.session, data, network.example)

    def off_onnxruntime(contender: Contender) -> float:
        return difference_from_onnxruntime(contender.session, contender.model.SerializeToString(), inputs)

    result = verify(
        dense,
        pruned,
        plan,
        budget=Budget.parse(settings.budget),
        table=table,
        masked=lambda inputs: answers(masked, inputs.values()),
        accuracy=lambda session: _accuracy(session, data),
        inputs=inputs,
        tolerances=tolerances,
        witness=off_onnxruntime if with_witness else None,
        explain=_explainer(settings, plan, runtime, target) if table is not None else None,
    )
    save(result, run.verification)
    return result


def _table_for(settings: Settings, target: Target) -> LatencyTable | None:
    """The table that the settings name, else the target's own, else None."""
    path = table_of(settings, target)
    if not settings.lut and not path.exists():
        return None
    table = read_table(path)
    check_target(table, target)
    return table


def _explainer(settings: Settings, plan: PruningPlan, runtime: Runtime, target: Target) -> Explain | None:
    """What takes an engine apart into kernels and looks them up, measuring those that are new; None where none can."""
    if not isinstance(runtime, Explains) or settings.on_miss == "refuse":
        return None
    measure = Measurer(
        table_of(settings, target), runtime, target, footprint=network_footprint(plan.graph, target.batch_size)
    )

    def explain(contender: Contender) -> list[tuple[Unit, float]]:
        units = runtime.units(contender.engine, target)
        rows = measure.units(units)
        return [(unit, rows[unit.spec].latency_us) for unit in units]

    return explain


def _contender(run: RunFolder, role: str, parent: Path, runtime: Runtime, target: Target, engines: Path) -> Contender:
    path = engine_path(engines, run, role, target, runtime.suffix)
    record, engine = load_engine(path, parent)
    session = runtime.load(engine, target)
    return Contender(record=record, session=session, model=read_model(parent), engine=engine)


def example_inputs(session: Session, data: DataSet | None, example: Sequence[torch.Tensor] = ()) -> dict[str, Array]:
    """Test pictures for an engine's one input where there are data, else normal random numbers.

    An input of whole numbers or truth values (a mask, an index) gets the network's own example.
    """
    shapes = session.input_shapes
    if data is not None and len(shapes) == 1:
        (name, shape), *_ = shapes.items()
        pictures, _ = data.test_batch(np.arange(shape[0]) % data.num_test)
        return {name: pictures.numpy()}
    random = np.random.default_rng(_INPUT_SEED)
    given = dict(zip(shapes, example, strict=True)) if len(example) == len(shapes) else {}
    return {
        name: random.standard_normal(shape, np.float32)
        if name not in given or given[name].is_floating_point()
        else given[name].numpy()
        for name, shape in shapes.items()
    }


def _accuracy(session: Session, data: DataSet | None) -> tuple[float | None, int]:
    if data is None:
        return None, 0
    if len(session.input_shapes) != 1:
        raise UsageError(
            f"accuracy needs a network with one input, this one has {list(session.input_shapes)}; use data none"
        )
    ((name, shape),) = session.input_shapes.items()
    found = evaluate(lambda pictures: session.run({name: pictures})[session.output_names[0]], data, batch_size=shape[0])
    return found.fraction, found.num_examples
