"""The library's functions for a training script of one's own, in one place; ``halp_trt`` exports them lazily.

Each function is a thin call into another module; heavy packages are imported on demand.
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
    """Returns the layers and channel groups of a network, proven by trial removals.

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
    """Zeroes removed channels in place, in weights and the optimiser's momentum. Call it again after every update.

    Args:
        module: the dense network.
        plan: the channels that stay.
        optimizer: the network's optimiser, if it is being trained.
        kind: a name in ``halp_trt.models.masks.MASKS``.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    from halp_trt.models.masks import get_masking

    get_masking(kind).apply(module, plan, optimizer)


def slim(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
    """Returns the network made physically narrow, in place; its outputs are those of the masked one.

    Args:
        module: the dense network, masked or not.
        plan: the channels that stay.
        optimizer: the network's optimiser, if it is being trained; it follows the new parameters.

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
        module: the dense-sized network whose weights go in, if it was trained since the export.

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
        model: a network from :func:`rewrite`; its batch is the engine's.
        runtime: a name in ``halp_trt.runtimes.RUNTIMES``; None picks one that this machine has.
        precision: number format.
        examples: inputs that calibrate int8 and reveal overflow in 16 bits.
        keep_fp32: names of nodes that stay in fp32.

    Raises:
        UsageError: there is no such runtime, or it has no such precision.
        RuntimeUnavailableError: its package or its device is missing.
        BuildError, PrecisionError: the runtime refuses the network, or would compute in another format.
    """
    from halp_trt.runtimes import default_runtime, get_runtime
    from halp_trt.workflows.build import Order, compile_engine
    from halp_trt.workflows.folder import Origin

    chosen = get_runtime(runtime or default_runtime())
    batch_size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    target = chosen.target(precision, batch_size)
    order = Order(examples=lambda: examples, keep=keep_fp32, caches_timings=False)
    return compile_engine(model, f"engine{chosen.suffix}", chosen, target, Origin(), order)


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
        module: the masked network, the reference for the pruned engine's outputs; None takes the ONNX reference
            evaluator on the network that the engine was built from.
        table: a table that predicts latencies; None predicts nothing.
        inputs: inputs of both engines; None for random numbers.
        score: function that gives an engine's score at its task.
        tolerances: tolerances of the verdict, and the duration of the timing.

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
    """A function that computes the expected outputs: the module, or ONNX's reference evaluator."""
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
    """Returns any artefact: a latency table, plan, graph, saliency or verification; or an engine with its record.

    Raises:
        ArtefactError: the file is missing, damaged, no artefact, or an engine other than its record names.
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
    """Writes any artefact atomically; beside an engine also its record and the network that it was built from.

    Raises:
        ArtefactError: the file cannot be written.
    """
    if isinstance(getattr(value, "record", None), EngineRecord):
        from halp_trt.workflows.build import write_engine

        write_engine(value, Path(path))
        store.write_bytes(Path(path).with_name(f"{Path(path).stem}.source.onnx"), value.model.SerializeToString())
    else:
        store.save(value, path)
