"""Building one engine: the network in the target's number formats, compiled, proven, written down with its record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median_low

import onnx

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.graphs.precision import TypedModel
from halp_trt.graphs.suppression import Tail, with_tail
from halp_trt.runtimes import BuildOptions, BuildResult, Compiler, Inspected, Runtime, Session
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import EngineRecord, Target
from halp_trt.store import save, sha256_bytes, write_bytes
from halp_trt.workflows.compare import Certainty, compare
from halp_trt.workflows.folder import Origin, timings_path
from halp_trt.workflows.precision import Examples, check_types, no_examples, preparer
from halp_trt.workflows.prepared import DenseEngine

__all__ = ["BuiltEngine", "DeployOptions", "build_engine", "compile_engine", "write_engine"]

_SECONDS_PER_BUILD = 1.0
"""Time for timing each of several builds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions:
    """Options for building engines, beyond run and target.

    Attributes:
        engines: folder of the engines.
        examples: inputs that calibrate low precisions.
        keep: nodes that stay in fp32.
        options: options of the compiler; its timing cache is the target's file among the engines.
        num_builds: engines to build of each network where they can be timed; the one of median latency is kept.
        overwrite: whether engines of other runs may be overwritten, where they have the same names.
        dense: a dense engine that is built already; it is used if its model and target are the same.
        caches_timings: whether kernel timings are kept in a file among the engines.
        tail: graph that continues the network behind its raw outputs, in fp32; None for none.
    """

    engines: Path = Path("engines")
    examples: Examples = no_examples
    keep: Collection[str] = ()
    options: BuildOptions = field(default_factory=BuildOptions)
    num_builds: int = 1
    overwrite: bool = False
    dense: DenseEngine | None = None
    caches_timings: bool = True
    tail: Tail | None = None


def build_engine(
    model: onnx.ModelProto, path: Path, runtime: Runtime, target: Target, origin: Origin, order: DeployOptions
) -> EngineRecord:
    """Builds one engine of a folded fp32 network, proves its precision, writes it and its record.

    Raises:
        BuildError, PrecisionError, UsageError: as :func:`halp_trt.workflows.deploy.deploy`.
        ArtefactError: a file cannot be written.
    """
    engine = compile_engine(model, path.name, runtime, target, origin, order)
    write_engine(engine, path)
    return engine.record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BuiltEngine:
    """An engine in memory.

    Attributes:
        record: the record of its build, with the proof of its precision.
        engine: the engine's bytes.
        model: the fp32 network that it was built from.
        session: the loaded engine; None where this machine cannot execute it.
    """

    record: EngineRecord
    engine: bytes
    model: onnx.ModelProto
    session: Session | None


def write_engine(engine: BuiltEngine, path: Path) -> None:
    """Writes an engine, and its record beside it with the suffix ``.json``.

    Raises:
        ArtefactError: a file cannot be written.
    """
    write_bytes(path, engine.engine)
    save(replace(engine.record, file=path.name), path.with_suffix(".json"))


def compile_engine(
    model: onnx.ModelProto, file: str, runtime: Runtime, target: Target, origin: Origin, order: DeployOptions
) -> BuiltEngine:
    """Builds one engine of a folded fp32 network in memory, and proves its precision.

    Raises:
        BuildError, PrecisionError, UsageError: as :func:`halp_trt.workflows.deploy.deploy`.
    """
    typed = preparer(target, order.examples, order.keep)(model)
    if order.tail is not None:
        typed = replace(typed, model=with_tail(typed.model, order.tail))
    there = order.dense
    if there is not None and there.is_of(typed.model.SerializeToString(), target):
        built, session, seconds = there.built, there.session, there.seconds
    else:
        options = order.options
        if order.caches_timings:
            options = replace(options, timing_cache=timings_path(order.engines, target))
        started = time.perf_counter()
        built, session = _build(typed, runtime, target, options, order.num_builds)
        seconds = time.perf_counter() - started
    inspected = runtime.inspect(session) if session is not None and isinstance(runtime, Compiler) else Inspected()
    types, evidence, formats = _prove(typed, built, inspected, target)
    record = EngineRecord(
        file=file,
        sha256=sha256_bytes(built.engine),
        num_bytes=len(built.engine),
        target=target,
        build_seconds=round(seconds, 3),
        runnable=session is not None,
        run=origin.run,
        parents=origin.parents,
        flags=built.flags if order.tail is None else {**built.flags, "detections": order.tail.words},
        types=Counter(types.values()),
        evidence=evidence,
        kept=typed.kept,
        formats=formats,
    )
    return BuiltEngine(record=record, engine=built.engine, model=model, session=session)


def _build(
    typed: TypedModel, runtime: Runtime, target: Target, options: BuildOptions, num_builds: int
) -> tuple[BuildResult, Session | None]:
    """The engine and, where this machine runs it, its session; of several builds the one of median latency.

    TensorRT times kernels while it builds, so that two builds of one network may differ in speed. If nothing can be
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
    until = Certainty.lasting(_SECONDS_PER_BUILD * num_builds)
    found = compare(sessions, random_inputs(session.input_shapes), until=until)
    latencies = {name: row.latency_us for name, row in found.measurements.items()}
    best = min(latencies, key=lambda name: abs(latencies[name] - median_low(latencies.values())))
    words = f"{', '.join(f'{latency:.1f}' for latency in latencies.values())} us, the median kept"
    return replace(builds[best], flags={**builds[best].flags, "builds": words}), sessions[best]


def _compile_function(
    model: bytes, runtime: Runtime, target: Target, options: BuildOptions
) -> Callable[[], BuildResult]:
    if isinstance(runtime, Compiler):
        return lambda: runtime.compile(model, target, options)
    if options.version_compatible or options.hardware_compatible or options.workspace_bytes is not None:
        raise UsageError(f"{runtime.name} does not compile engines ahead of time; choose --runtime tensorrt for that")
    return lambda: BuildResult(engine=runtime.build(model, target))


def _load(runtime: Runtime, engine: bytes, target: Target) -> Session | None:
    try:
        return runtime.load(engine, target)
    except RuntimeUnavailableError:
        return None


def _prove(
    typed: TypedModel, built: BuildResult, inspected: Inspected, target: Target
) -> tuple[Mapping[str, str], str, Mapping[str, str]]:
    """The number formats that products compute in, their proof, and the formats of inputs and outputs.

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
