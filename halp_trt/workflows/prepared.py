"""Values that all stages of a run share, made once: the dense network, its pictures, export and channel graph."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx
from torch import nn

from halp_trt.errors import RuntimeUnavailableError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.graphs.weights import with_weights
from halp_trt.models.export_check import checked_export
from halp_trt.models.sources import LoadedModel
from halp_trt.models.trace import trace
from halp_trt.runtimes import BuildOptions, BuildResult, Compiler, Runtime, Session
from halp_trt.specs import ChannelGraph, PruningPlan, Target
from halp_trt.tasks.dataset import DataSet
from halp_trt.workflows.precision import Prepare
from halp_trt.workflows.request import arrays_of

__all__ = ["DenseEngine", "Prepared", "build_dense", "prepare", "with_trained"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A dense network that is ready to be measured and pruned. No later stage changes it: they train and mask a copy.

    Attributes:
        network: the module, trained as far as it will be, and its example.
        data: its pictures, None for none.
        model: its export.
        graph: its channel graph, with what the user froze.
        teacher: the network that teaches it while it is fine-tuned; None for itself.
    """

    network: LoadedModel
    data: DataSet | None
    model: onnx.ModelProto
    graph: ChannelGraph
    teacher: nn.Module | None = None

    def folded(self) -> onnx.ModelProto:
        """The export as engines are built from it, with all of its channels."""
        return rewrite(self.model, PruningPlan.dense(self.graph))


def prepare(
    network: LoadedModel, data: DataSet | None, *, frozen: Sequence[str] = (), teacher: nn.Module | None = None
) -> Prepared:
    """Exports a network, compares the export with it, and traces it.

    Raises:
        ModelError: the network cannot be exported (the message names the layer where it is one's fault), or its export
            computes something else.
        UnsupportedLayerError: a layer is not understood.
        UsageError: a frozen layer does not exist.
    """
    model = checked_export(network.module, network.example)
    graph = trace(network.module, network.example, frozen=frozen, source=network.source, model=model)
    return Prepared(network=network, data=data, model=model, graph=graph, teacher=teacher)


def with_trained(prepared: Prepared) -> Prepared:
    """A network whose module was trained since it was prepared: its export holds the module's weights."""
    return replace(prepared, model=with_weights(prepared.model, arrays_of(prepared.network.module)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseEngine:
    """The dense engine of a run, which pruning times candidates against and ``deploy`` writes.

    Attributes:
        source: the typed ONNX model that it was built from.
        target: the target that it was built for.
        built: the engine, and the facts that building it showed.
        session: the loaded engine; None where this machine cannot execute it.
        seconds: duration of the build.
    """

    source: bytes
    target: Target
    built: BuildResult
    session: Session | None
    seconds: float

    def is_of(self, source: bytes, target: Target) -> bool:
        """True if it is the engine of this typed model for this target."""
        return self.source == source and self.target == target


def build_dense(
    folded: onnx.ModelProto,
    runtime: Runtime,
    target: Target,
    prepare: Prepare,
    options: BuildOptions | None = None,
) -> DenseEngine:
    """Builds the dense engine, and loads it where this machine can run it.

    Args:
        folded: the dense network as :meth:`Prepared.folded` gives it.
        runtime: the runtime that builds it.
        target: the engine's target.
        prepare: gives the network the target's number formats.
        options: options of a runtime that compiles ahead of time.

    Raises:
        BuildError: the runtime refuses the network.
    """
    source = prepare(folded).model.SerializeToString()
    started = time.perf_counter()
    if isinstance(runtime, Compiler):
        built = runtime.compile(source, target, options or BuildOptions())
    else:
        built = BuildResult(engine=runtime.build(source, target))
    seconds = time.perf_counter() - started
    session: Session | None = None
    with contextlib.suppress(RuntimeUnavailableError):  # it may be built here for a device elsewhere
        session = runtime.load(built.engine, target)
    return DenseEngine(source=source, target=target, built=built, session=session, seconds=seconds)
