"""The library's functions for a training script of one's own, in one place; ``halp_trt`` exports them lazily.

Each function is a thin call into another module; heavy packages are imported on demand.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halp_trt import store
from halp_trt.errors import ArtefactError, RuntimeUnavailableError, UsageError
from halp_trt.latency import LatencyTable
from halp_trt.planning.pruning import prune
from halp_trt.specs import Budget, ChannelGraph, EngineRecord, PruningPlan, Score, Verification

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from halp_trt.models.saliency import Scorer
    from halp_trt.runtimes import Array, Session
    from halp_trt.workflows.build import BuiltEngine
    from halp_trt.workflows.measurer import Measurer
    from halp_trt.workflows.verify import LoadedEngine, Tolerances

__all__ = [
    "build",
    "export",
    "load",
    "lookup",
    "mask",
    "prune",
    "rewrite",
    "save",
    "scorer",
    "slim",
    "trace",
    "verify",
]

_SOURCE = "source.onnx"
"""The name, among an engine's parents, of the network that it was built from; also the ending of its file."""


# ---- the network ----------------------------------------------------------------------------------------------------


def export(module: nn.Module, example: torch.Tensor | Sequence[torch.Tensor]) -> onnx.ModelProto:
    """Returns the ONNX export of a network that :func:`rewrite` narrows; parameters keep their ``state_dict`` names.

    Args:
        module: the network, in fp32.
        example: its input tensor, or several; their shapes, batch included, become the engine's.

    Raises:
        ModelError: the network does not run on the example, or its export is refused or computes something else.
    """
    from halp_trt.models.export_check import checked_export

    return checked_export(module, _tuple(example))


def trace(
    module: nn.Module,
    example: torch.Tensor | Sequence[torch.Tensor],
    *,
    frozen: Sequence[str] = (),
    model: onnx.ModelProto | None = None,
) -> ChannelGraph:
    """Returns the layers and channel groups of a network, proven by trial removals.

    Args:
        module: the network, in fp32.
        example: its input tensor, or several.
        frozen: names of layers whose channels all stay.
        model: its dense export; None exports it.

    Raises:
        ModelError: the network does not run on the example, or :func:`export` refuses it.
        UnsupportedLayerError: a layer is not understood.
        UsageError: a frozen layer does not exist.
        NonFiniteError: the network's outputs for its example hold NaN or infinity.
    """
    from halp_trt.models.trace import trace

    return trace(module, _tuple(example), frozen=frozen, model=export(module, example) if model is None else model)


def scorer(module: nn.Module, graph: ChannelGraph, kind: str = "taylor") -> Scorer:
    """Returns a scorer of a network's channels for one pruning step; each step needs a new one.

    Call its ``after_backward()`` after the backward pass of each minibatch, and its ``finish()`` for the
    :class:`halp_trt.Saliency`.

    Args:
        module: the dense network, masked or not.
        graph: its channel graph.
        kind: a name in ``halp_trt.models.saliency.SALIENCIES``; ``magnitude`` needs no minibatch.

    Raises:
        UsageError: no saliency has this name.
        GraphMismatchError: the graph is another network's.
    """
    from halp_trt.models.saliency import choose_scoring

    return choose_scoring(kind, has_data=True).scorer(module, graph)


def mask(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Sets removed channels to zero, in place, in weights and the optimiser's momentum.

    Call it after each pruning step and after every update of the weights; calling it again changes nothing. Other masks
    are rows of ``halp_trt.models.masks.MASKS``.

    Args:
        module: the dense network.
        plan: the channels that stay.
        optimizer: the network's optimiser, if it is being trained.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    from halp_trt.models.masks.hard import HARD

    HARD.apply(module, plan, optimizer)


def slim(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
    """Returns the network made physically narrow, in place; its outputs are those of the masked one.

    Args:
        module: the dense network, masked or not.
        plan: the channels that stay.
        optimizer: the network's optimiser, if it is being trained; it goes on with the narrow parameters and their
            share of its state.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    from halp_trt.models.slim import slim

    return slim(module, plan, optimizer)


def rewrite(model: onnx.ModelProto, plan: PruningPlan, *, module: nn.Module | None = None) -> onnx.ModelProto:
    """Returns the export made physically narrow.

    Args:
        model: the dense network's export.
        plan: the channels that stay; ``PruningPlan.dense(graph)`` keeps all.
        module: the masked network whose weights go in, if it was trained since the export; not a slimmed one.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    from halp_trt.graphs.rewrite import rewrite
    from halp_trt.graphs.weights import with_weights

    if module is not None:
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
        model = with_weights(model, arrays)
    return rewrite(model, plan)


def _tuple(example: torch.Tensor | Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    import torch

    return (example,) if isinstance(example, torch.Tensor) else tuple(example)


# ---- latencies ------------------------------------------------------------------------------------------------------


def lookup(
    graph: ChannelGraph,
    path: str | Path,
    *,
    runtime: str | None = None,
    precision: str = "fp32",
    batch_size: int = 1,
    on_miss: str = "measure",
) -> Measurer:
    """Returns a lookup of latencies for :func:`prune`: a table's file, and this device for layers that it lacks.

    Its attribute ``table`` is the :class:`halp_trt.LatencyTable` with all measurements so far.

    Args:
        graph: the network; probes run within a memory footprint of its size.
        path: the table, JSON lines; every measurement is added to it at once.
        runtime: a name in ``halp_trt.runtimes.RUNTIMES``; None picks one that this machine has.
        precision: number format of the layers.
        batch_size: number of pictures in one run.
        on_miss: ``measure``, ``interpolate`` or ``refuse`` layers that the table lacks.

    Raises:
        UsageError: there is no such runtime, or it measures nothing in this precision.
        RuntimeUnavailableError, ArtefactError: a package, a device or the table is missing, or the table is damaged.
        TargetMismatchError: the table is of another device, runtime, precision or batch size.
        GraphMismatchError: some layers have a batch of their own, at another batch size.
    """
    from halp_trt.planning.resources import network_footprint
    from halp_trt.runtimes import default_runtime, get_runtime
    from halp_trt.workflows.measurer import Measurer
    from halp_trt.workflows.precision import check_measurable

    chosen = get_runtime(runtime or default_runtime())
    target = chosen.target(precision, batch_size)
    check_measurable(chosen, target)
    return Measurer(path, chosen, target, on_miss=on_miss, footprint=network_footprint(graph, batch_size))


# ---- engines --------------------------------------------------------------------------------------------------------


def build(
    model: onnx.ModelProto,
    *,
    runtime: str | None = None,
    precision: str = "fp32",
    examples: Sequence[Mapping[str, Array]] = (),
    keep_fp32: Sequence[str] = (),
) -> BuiltEngine:
    """Returns the engine of a rewritten network, with a record that proves its precision.

    Args:
        model: a network from :func:`rewrite`; its batch is the engine's.
        runtime: a name in ``halp_trt.runtimes.RUNTIMES``; None picks one that this machine has.
        precision: number format.
        examples: inputs that calibrate int8 and reveal overflow in 16 bits.
        keep_fp32: names of nodes that stay in fp32.

    Raises:
        UsageError: there is no such runtime, or it has no such precision.
        RuntimeUnavailableError: the runtime's package or device is missing.
        BuildError, PrecisionError: the runtime refuses the network, or would compute in another format.
    """
    from halp_trt.runtimes import default_runtime, get_runtime
    from halp_trt.workflows.build import DeployOptions, compile_engine
    from halp_trt.workflows.folder import Origin

    if not model.graph.input:
        raise UsageError("the network has no input; build what rewrite() returned")
    chosen = get_runtime(runtime or default_runtime())
    shape = model.graph.input[0].type.tensor_type.shape.dim
    target = chosen.target(precision, shape[0].dim_value if shape else 1)
    order = DeployOptions(examples=lambda: examples, keep=keep_fp32, caches_timings=False)
    origin = Origin(parents={_SOURCE: store.sha256_bytes(model.SerializeToString(deterministic=True))})
    return compile_engine(model, f"engine{chosen.suffix}", chosen, target, origin, order)


def verify(
    dense: BuiltEngine,
    pruned: BuiltEngine,
    plan: PruningPlan,
    *,
    budget: Budget | str = "100%",
    module: nn.Module | None = None,
    table: LatencyTable | None = None,
    inputs: Mapping[str, Array] | None = None,
    score: Callable[[Session], Score | None] = lambda session: None,
    tolerances: Tolerances | None = None,
) -> Verification:
    """Returns the proof: both engines timed in turns on this device and held against plan, budget and reference.

    Args:
        dense, pruned: engines of one target, from :func:`build` or :func:`load`.
        plan: the plan that the pruned engine was made from.
        budget: limit on the pruned engine's latency.
        module: the masked or slimmed network, the reference for the pruned engine's outputs; None takes the ONNX
            reference evaluator (slow) on the network that the engine was built from.
        table: a table that predicts latencies; None predicts nothing.
        inputs: inputs of both engines; None for random numbers.
        score: function that gives an engine's score at its task.
        tolerances: tolerances of the verdict, and the duration of the timing.

    Raises:
        UsageError: the engines are of different targets, or the budget makes no sense.
        RuntimeUnavailableError: this machine cannot run the engines, or has no clock for them.
        MissingLatencyError: the table lacks a layer.
        NonFiniteError: an output is not finite.
    """
    from halp_trt.runtimes.noise import random_inputs
    from halp_trt.workflows.verify import Promise, Tolerances, verify

    if dense.record.target != pruned.record.target:
        raise UsageError("the two engines are for different targets; build both for the same runtime and precision")
    engines = {"dense": _runnable(dense), "pruned": _runnable(pruned)}
    return verify(
        engines,
        Promise(
            plan=plan,
            budget=Budget.parse(budget) if isinstance(budget, str) else budget,
            table=table,
            tolerances=tolerances or Tolerances(),
        ),
        masked=_reference(pruned, module),
        score=score,
        inputs=inputs if inputs is not None else random_inputs(engines["dense"].session.input_shapes),
    )


def _reference(pruned: BuiltEngine, module: nn.Module | None) -> Callable[[Mapping[str, Array]], list[Array]]:
    """The function that gives the outputs expected of the pruned engine."""
    if module is not None:
        from halp_trt.models.reference import outputs_of

        still = copy.deepcopy(module).cpu()  # the one handed in may lie on a GPU, in the middle of its training
        return lambda inputs: outputs_of(still, inputs.values())
    if not pruned.model.graph.node:
        raise UsageError(
            "the network that the pruned engine was built from is not there; name the masked one as module"
        )
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(pruned.model)
    return lambda inputs: list(evaluator.run(None, dict(inputs)))


def _runnable(engine: BuiltEngine) -> LoadedEngine:
    from halp_trt.workflows.verify import LoadedEngine

    if engine.session is None:
        target = engine.record.target
        raise RuntimeUnavailableError(
            f"the engine {engine.record.file} is for {target.device or target.compute_capability} with "
            f"{target.runtime}, which this machine cannot run; verify it on that device"
        )
    return LoadedEngine(record=engine.record, session=engine.session, model=engine.model, engine=engine.engine)


# ---- files ----------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> Any:
    """Returns an artefact of :func:`save` or a verb: a latency table, plan, graph, saliency, verification or engine.

    An engine comes with its record and, if this machine can run it, with a session.

    Raises:
        ArtefactError: the file is missing, damaged, no artefact, or an engine other than its record names.
    """
    path = Path(path)
    if path.suffix in (".json", ".jsonl") or not path.with_suffix(".json").exists():
        return store.load(path)
    record = store.load(path.with_suffix(".json"))
    return _engine(path, record) if isinstance(record, EngineRecord) else store.load(path)


def _engine(path: Path, record: EngineRecord) -> BuiltEngine:
    import onnx

    from halp_trt.graphs.reading import parse_model
    from halp_trt.runtimes import get_runtime
    from halp_trt.workflows.build import BuiltEngine

    engine = store.read_bytes(path)
    if store.sha256_bytes(engine) != record.sha256:
        raise ArtefactError(f"{path} is not the engine that its record names; build it again")
    source, model = _source_path(path), onnx.ModelProto()
    if source.exists():
        data = store.read_bytes(source)
        if store.sha256_bytes(data) != record.parents.get(_SOURCE):
            raise ArtefactError(f"{source} is not the network that {path} was built from; save the engine again")
        model = parse_model(data, str(source))
    try:
        session = get_runtime(record.target.runtime).load(engine, record.target)
    except RuntimeUnavailableError:
        session = None
    return BuiltEngine(record=record, engine=engine, model=model, session=session)


def _source_path(path: Path) -> Path:
    """The path of the network that an engine was built from, beside the engine."""
    return path.with_name(f"{path.stem}.{_SOURCE}")


def save(value: Any, path: str | Path) -> None:
    """Writes any artefact atomically; an engine with its record (``.json``) and source (``.source.onnx``) beside it.

    Args:
        value: a latency table, plan, graph, saliency or verification; or an engine from :func:`build`.
        path: the file; a latency table's ends in ``.jsonl``, any other but an engine's in ``.json``.

    Raises:
        ArtefactError: the value is no artefact, or the file cannot be written.
    """
    path = Path(path)
    if not isinstance(getattr(value, "record", None), EngineRecord):
        return store.save(value, path)
    from halp_trt.workflows.build import write_engine

    if path.suffix == ".json":
        raise ArtefactError(f"{path} is where an engine's record goes; end the engine's own file in .plan or .onnx")
    write_engine(value, path)
    if value.model.graph.node:
        store.write_bytes(_source_path(path), value.model.SerializeToString(deterministic=True))
