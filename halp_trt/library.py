"""The library's face: what a training script of one's own needs, in one place; ``halp_trt`` exports it lazily.

Each function is a thin call of the room that does the work; heavy packages are imported when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halp_trt import store
from halp_trt.errors import RuntimeUnavailableError
from halp_trt.latency import LatencyTable
from halp_trt.planning.pruning import prune
from halp_trt.specs import Budget, ChannelGraph, EngineRecord, PruningPlan, Score, Verification

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from halp_trt.runtimes import Array, Session
    from halp_trt.workflows.build import BuiltEngine
    from halp_trt.workflows.verify import Contender, Tolerances

__all__ = ["build", "export", "load", "mask", "prune", "rewrite", "save", "slim", "trace", "verify"]


# ---- the network ----------------------------------------------------------------------------------------------------


def export(module: nn.Module, example: torch.Tensor | Sequence[torch.Tensor]) -> onnx.ModelProto:
    """Returns the ONNX export of a network that :func:`rewrite` narrows; parameters keep their ``state_dict`` names.

    Args:
        module: the network, in fp32.
        example: its input tensor, or several; their shapes, batch included, become the engine's.

    Raises:
        UnsupportedLayerError: PyTorch's exporter refuses the network.
    """
    from halp_trt.graphs.export import export

    return export(module, _tuple(example))


def trace(
    module: nn.Module, example: torch.Tensor | Sequence[torch.Tensor], *, frozen: Sequence[str] = ()
) -> ChannelGraph:
    """Returns the layers and channel groups of a network, proven by a trial.

    Args:
        module: the network, in fp32.
        example: its input tensor, or several.
        frozen: names of layers whose channels all stay.

    Raises:
        UnsupportedLayerError: a layer is not understood.
        UsageError: a frozen layer does not exist.
    """
    from halp_trt.models.trace import trace

    return trace(module, _tuple(example), frozen=frozen)


def mask(
    module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None, *, kind: str = "hard"
) -> None:
    """Zeroes what a plan removed, in place: weights and the optimiser's momentum. Call it again after every update.

    Args:
        module: the dense network.
        plan: what stays.
        optimizer: its optimiser, where it is being trained.
        kind: a row of ``halp_trt.models.masks.MASKS``.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    from halp_trt.models.masks import get_masking

    get_masking(kind).apply(module, plan, optimizer)


def slim(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
    """Returns the network made physically narrow, in place; it computes what the masked one does.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    from halp_trt.models.slim import slim

    return slim(module, plan, optimizer)


def rewrite(model: onnx.ModelProto, plan: PruningPlan, *, module: nn.Module | None = None) -> onnx.ModelProto:
    """Returns the export made physically narrow.

    Args:
        model: the dense network's export.
        plan: what stays; ``PruningPlan.dense(graph)`` keeps all.
        module: the dense-sized network whose weights go in, where it was trained since the export.

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
        model: from :func:`rewrite`; its batch is the engine's.
        runtime: a row of ``halp_trt.runtimes.RUNTIMES``; None picks by what is present.
        precision: number format.
        examples: inputs that calibrate int8 and show where 16 bits do not reach.
        keep_fp32: nodes that stay in fp32.

    Raises:
        UsageError: there is no such runtime, or it has no such precision.
        RuntimeUnavailableError: its package or its device is missing.
        BuildError, PrecisionError: the runtime refuses the network, or would compute in another format.
    """
    from halp_trt.runtimes import default_runtime, get_runtime
    from halp_trt.workflows.build import Order, compile_engine
    from halp_trt.workflows.folder import Origin

    found = get_runtime(runtime or default_runtime())
    batch_size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    target = found.target(precision, batch_size)
    order = Order(examples=lambda: examples, keep=keep_fp32, caches_timings=False)
    return compile_engine(model, f"engine{found.suffix}", found, target, Origin(), order)


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
    """Returns the proof: both engines timed in turns on this device, and compared with what was promised.

    Args:
        dense, pruned: engines of one target, from :func:`build` or :func:`load`.
        plan: what the pruned one was made from.
        budget: of the pruned engine's latency.
        module: the masked network, the reference for the pruned engine's outputs; None takes the ONNX reference
            evaluator on the network that the engine was built from.
        table: predicts latencies; None predicts nothing.
        inputs: what both are run on; None for random numbers.
        score: how well an engine does its task.
        tolerances: what still passes, and how long both are timed.

    Raises:
        RuntimeUnavailableError: this machine cannot run the engines.
        NonFiniteError: an output is not finite.
    """
    from halp_trt.runtimes.noise import random_inputs
    from halp_trt.workflows.verify import Promise, Tolerances, verify

    engines = {"dense": _runnable(dense), "pruned": _runnable(pruned)}
    return verify(
        engines,
        Promise(
            plan=plan,
            budget=Budget.parse(budget) if isinstance(budget, str) else budget,
            table=table,
            tolerances=tolerances or Tolerances(),
        ),
        masked=_reference(pruned.model, module),
        score=score,
        inputs=inputs if inputs is not None else random_inputs(engines["dense"].session.input_shapes),
    )


def _reference(model: onnx.ModelProto, module: nn.Module | None) -> Callable[[Mapping[str, Array]], list[Array]]:
    if module is not None:
        from halp_trt.models.reference import answers

        return lambda inputs: answers(module, inputs.values())
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda inputs: list(evaluator.run(None, dict(inputs)))


def _runnable(engine: BuiltEngine) -> Contender:
    from halp_trt.workflows.verify import Contender

    if engine.session is None:
        target = engine.record.target
        raise RuntimeUnavailableError(
            f"the engine {engine.record.file} is for {target.device or target.compute_capability} with "
            f"{target.runtime}, which this machine cannot run; verify it on that device"
        )
    return Contender(record=engine.record, session=engine.session, model=engine.model, engine=engine.engine)


# ---- files ----------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> Any:
    """Returns any artefact: a latency table, plan, graph, saliency, verification; or an engine with its record.

    Raises:
        ArtefactError: it is missing, damaged or no artefact, or an engine that is not the one of its record.
        RuntimeUnavailableError: the engine's runtime is not installed.
    """
    path = Path(path)
    if path.suffix in (".json", ".jsonl") or not path.with_suffix(".json").exists():
        return store.load(path)
    record = store.load(path.with_suffix(".json"))
    if not isinstance(record, EngineRecord):
        return store.load(path)
    return _loaded(path, record)


def _loaded(path: Path, record: EngineRecord) -> BuiltEngine:
    import onnx

    from halp_trt.errors import ArtefactError
    from halp_trt.runtimes import get_runtime
    from halp_trt.workflows.build import BuiltEngine

    engine = store.read_bytes(path)
    if store.sha256_bytes(engine) != record.sha256:
        raise ArtefactError(f"{path} is not the engine that its record names; build it again")
    source = path.with_name(f"{path.stem}.source.onnx")
    model = onnx.load(source) if source.exists() else onnx.ModelProto()
    try:
        session = get_runtime(record.target.runtime).load(engine, record.target)
    except RuntimeUnavailableError:
        session = None
    return BuiltEngine(record=record, engine=engine, model=model, session=session)


def save(value: Any, path: str | Path) -> None:
    """Writes any artefact atomically; an engine with its record and the network that it was built from beside it.

    Raises:
        ArtefactError: it cannot be written.
    """
    if isinstance(getattr(value, "record", None), EngineRecord):
        from halp_trt.workflows.build import write_engine

        write_engine(value, Path(path))
        store.write_bytes(Path(path).with_name(f"{Path(path).stem}.source.onnx"), value.model.SerializeToString())
    else:
        store.save(value, path)
