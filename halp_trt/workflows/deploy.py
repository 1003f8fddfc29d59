"""Building the engines of a run: dense and pruned, in the target's precision, each with a record that says how."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import onnx

from halp_trt.errors import ArtefactError, HalpError, RuntimeUnavailableError, UsageError
from halp_trt.graphs.precision import Typed
from halp_trt.graphs.rewrite import rewrite
from halp_trt.runtimes import (
    RUNTIMES,
    BuildOptions,
    Built,
    Compiler,
    Inspected,
    Runtime,
    Session,
    available_runtimes,
    get_runtime,
    traits_of,
)
from halp_trt.specs import EngineRecord, PruningPlan, Target
from halp_trt.store import save, sha256_bytes, write_bytes
from halp_trt.workflows.folder import Origin, RunFolder, check_free, engine_path, origin_of, timings_path
from halp_trt.workflows.precision import Examples, check_types, no_examples, preparer
from halp_trt.workflows.verify import time_engines

__all__ = ["ROLES", "Deployment", "Order", "build_engine", "check_places", "deploy", "read_model", "tensorrt_plan"]

ROLES = ("dense", "pruned")
"""The engines of a run."""

_SECONDS_PER_BUILD = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How engines are to be built, beyond run and target.

    Attributes:
        engines: folder of the engines.
        examples: inputs that calibrate low precisions.
        keep: nodes that stay in fp32.
        options: of the compiler; its timing cache is the target's file among the engines.
        num_builds: engines to build of each network where they can be timed; the one of median latency is kept.
        overwrite: whether engines of other runs may be overwritten, where they have the same names.
    """

    engines: Path = Path("engines")
    examples: Examples = no_examples
    keep: Collection[str] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    num_builds: int = 1
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What deploy left behind.

    Attributes:
        dense, pruned: the engines to compare.
        plan: the pruned network as a TensorRT plan, where TensorRT is installed.
        note: one line about the plan.
    """

    dense: EngineRecord
    pruned: EngineRecord
    plan: EngineRecord | None = None
    note: str = ""


def deploy(run: RunFolder, runtime: Runtime, target: Target, order: Order | None = None) -> Deployment:
    """Builds both engines of a run, and the pruned one for TensorRT too where it is installed.

    Raises:
        ArtefactError: the run has no plan or models, or a file cannot be written.
        GraphMismatchError: the plan is not the models'.
        BuildError: the runtime refuses a model.
        PrecisionError: an engine does not compute in the number formats it was given.
        UsageError: the runtime lacks what is asked for, there is nothing to calibrate on, or an engine of another run
            would be overwritten.
    """
    order = order or Order()
    if not order.overwrite:
        check_places(run, runtime, target, order.engines)
    plan = run.read_plan()
    dense = rewrite(read_model(run.dense_model), PruningPlan.dense(plan.graph))
    pruned = read_model(run.pruned_model)
    records = {}
    for role, model in (("dense", dense), ("pruned", pruned)):
        path = engine_path(order.engines, run, role, target, runtime.suffix)
        records[role] = build_engine(model, path, runtime, target, origin_of(run, role, order.engines), order)
    extra, note = (None, "")
    if not traits_of(runtime.name).is_ahead_of_time:
        extra, note = tensorrt_plan(pruned, run, target, order)
    return Deployment(dense=records["dense"], pruned=records["pruned"], plan=extra, note=note)


def check_places(
    run: RunFolder, runtime: Runtime, target: Target, engines: Path, roles: Collection[str] = ROLES
) -> None:
    """Makes sure, before anything is built, that no engine of another run would be lost.

    Raises:
        UsageError, ArtefactError: as :func:`halp_trt.workflows.folder.check_free`.
    """
    for role in roles:
        check_free(engine_path(engines, run, role, target, runtime.suffix), origin_of(run, role, engines))


def build_engine(
    model: onnx.ModelProto, path: Path, runtime: Runtime, target: Target, origin: Origin, order: Order
) -> EngineRecord:
    """Builds one engine of a folded fp32 network, proves its precision, writes it and its record.

    Raises:
        BuildError, PrecisionError, UsageError: as :func:`deploy`.
        ArtefactError: a file cannot be written.
    """
    typed = preparer(target, order.examples, order.keep)(model)
    options = replace(order.options, timing_cache=timings_path(order.engines, target))
    started = time.perf_counter()
    built, session = _build(typed, runtime, target, options, order.num_builds)
    seconds = time.perf_counter() - started
    inspected = runtime.inspect(session) if session is not None and isinstance(runtime, Compiler) else Inspected()
    types, evidence, formats = _prove(typed, built, inspected, target)
    record = EngineRecord(
        file=path.name,
        sha256=sha256_bytes(built.engine),
        num_bytes=len(built.engine),
        target=target,
        build_seconds=round(seconds, 3),
        runnable=session is not None,
        run=origin.run,
        parents=origin.parents,
        flags=built.flags,
        types=Counter(types.values()),
        evidence=evidence,
        kept=typed.kept,
        formats=formats,
    )
    write_bytes(path, built.engine)
    save(record, path.with_suffix(".json"))
    return record


def tensorrt_plan(
    pruned: onnx.ModelProto, run: RunFolder, target: Target, order: Order
) -> tuple[EngineRecord | None, str]:
    """The pruned network as a ``.plan`` through TensorRT for RTX, which builds without a GPU; or why there is none."""
    name = next(name for name, entry in RUNTIMES.items() if entry.traits.builds_anywhere)
    if name not in available_runtimes():
        extra = RUNTIMES[name].extra
        return None, f"no TensorRT here: pip install 'halp-trt[{extra}]', then deploy again, also gives a .plan"
    try:
        runtime = get_runtime(name)
        own = runtime.target(target.precision, target.batch_size)
        if not order.overwrite:
            check_places(run, runtime, own, order.engines, ("pruned",))
        path = engine_path(order.engines, run, "pruned", own, runtime.suffix)
        record = build_engine(pruned, path, runtime, own, origin_of(run, "pruned", order.engines), order)
    except HalpError as error:
        return None, f"no TensorRT plan: {error}"
    place = "" if record.runnable else "; it needs an NVIDIA GPU to run"
    return record, f"TensorRT plan {path} written{place}"


def read_model(path: Path) -> onnx.ModelProto:
    """An ONNX model.

    Raises:
        ArtefactError: it is missing or damaged.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's own errors have no common root with the system's
        raise ArtefactError(f"cannot read the model {path} ({error}); run prune again") from error
    if not model.opset_import:  # an empty file is a sound protobuf message
        raise ArtefactError(f"{path} holds no ONNX model; run prune again")
    return model


# ---- building and proving -------------------------------------------------------------------------------------------


def _build(
    typed: Typed, runtime: Runtime, target: Target, options: BuildOptions, num_builds: int
) -> tuple[Built, Session | None]:
    """The engine and, where this machine runs it, its session; of several builds the one of median latency.

    TensorRT times kernels while it builds, so that two builds of one network may differ in speed. Where nothing can be
    timed the first is kept.
    """
    compile_once = _compile_function(typed.model.SerializeToString(), runtime, target, options)
    built = compile_once()
    session = _load(runtime, built.engine, target)
    if num_builds < 2:
        return built, session
    if session is None:
        words = f"1 of {num_builds}, the first: no device here can time them"
        return replace(built, flags={**built.flags, "builds": words}), session
    builds, sessions = {"0": built}, {"0": session}
    for index in range(1, num_builds):
        builds[str(index)] = compile_once()
        sessions[str(index)] = runtime.load(builds[str(index)].engine, target)
    times = time_engines(sessions, _noise(session), seconds=_SECONDS_PER_BUILD * num_builds)
    latencies = {name: measurement.latency_us for name, measurement in times.items()}
    best = min(latencies, key=lambda name: abs(latencies[name] - median_low(latencies.values())))
    words = f"{', '.join(f'{latency:.1f}' for latency in latencies.values())} us, the median kept"
    return replace(builds[best], flags={**builds[best].flags, "builds": words}), sessions[best]


def _compile_function(model: bytes, runtime: Runtime, target: Target, options: BuildOptions) -> Callable[[], Built]:
    if isinstance(runtime, Compiler):
        return lambda: runtime.compile(model, target, options)
    if options.version_compatible or options.hardware_compatible or options.workspace_bytes is not None:
        raise UsageError(f"{runtime.name} does not compile engines ahead of time; choose --runtime tensorrt for that")
    return lambda: Built(engine=runtime.build(model, target))


def _noise(session: Session) -> Mapping[str, Any]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape, np.float32) for name, shape in session.input_shapes.items()}


def _load(runtime: Runtime, engine: bytes, target: Target) -> Session | None:
    try:
        return runtime.load(engine, target)
    except RuntimeUnavailableError:
        return None


def _prove(
    typed: Typed, built: Built, inspected: Inspected, target: Target
) -> tuple[Mapping[str, str], str, Mapping[str, str]]:
    """The number formats that products compute in, what proves them, and the formats of inputs and outputs.

    Raises:
        PrecisionError: the parsed network or the engine contradicts the model.
    """
    if not built.types:
        return {}, "", built.formats
    check_types(typed, built.types, target.precision, where="the parsed network")
    shown = {node: inspected.types[node] for node in built.types if node in inspected.types}
    if not shown:
        return built.types, "parsed network", built.formats
    check_types(typed, shown, target.precision, where="the built engine", is_whole=False)
    evidence = f"engine, {len(shown)} of {len(built.types)} products; parsed network"
    return {**built.types, **shown}, evidence, {**built.formats, **inspected.formats}
