"""The work of a fresh process: load engines, let them take turns, write down what was found, and end.

It is started by :func:`work`, with the path of a job as its first argument. A process is the unit of the gate: the
layout of memory, the state of caches and the moment differ from one to the next, and are the same for all engines
inside.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from halp_trt.device.identity import identity, other_users
from halp_trt.errors import HalpError, UsageError
from halp_trt.gate import ProcessTiming, Setup
from halp_trt.runtimes import RUNTIMES, BuildOptions, Compiler, Entry, Runtime, Session, Traits, get_runtime, traits_of
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import Target
from halp_trt.store import decode, encode, read_bytes, read_json, write_bytes, write_json
from halp_trt.timing import as_launches, warm_up
from halp_trt.workflows.compare import Certainty, Comparison, compare_runs, num_orders_of

__all__ = ["ENGINE", "REFERENCE", "Findings", "Job", "perform"]

ENGINE = "engine"
"""The name of the engine that is judged."""
REFERENCE = "reference"
"""The name of the fixed network that takes turns with it."""

_FEWEST_PARTS = 12
"""Parts of a process, at least."""
_FEWEST_BLOCKS = 4
"""Blocks of parts, at least, each of which has every order of the engines once."""
_WARMUP_US = 200e3
"""Time that the engines keep the device busy before the first part: clocks rise with work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The work for one process.

    Attributes:
        runtime: name of the runtime.
        make, traits: its factory as ``package.module:name`` and its traits, if it was added from outside; otherwise
            empty, and the process has its row.
        precision, batch, optimization_level: the engines' number format, pictures in one run (None: the first size of
            the first input), and the builder's effort.
        engines: paths of the engines by name: ``engine``, and those that take turns with it.
        shapes: shapes of inputs that the engine leaves open.
        seconds: time for timing; 0 to load the engines alone.
        build: path of an ONNX model to build the engine from first; empty to take it as it is.
        make_reference: whether the reference is built and written first; otherwise it is loaded, if it is named.
    """

    runtime: str
    make: str = ""
    traits: Traits | None = None
    precision: str = "fp32"
    batch: int | None = None
    optimization_level: int | None = None
    engines: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    build: str = ""
    make_reference: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The findings of one process.

    Attributes:
        setup: the circumstances; None if it failed.
        timing: what was timed; None if nothing was to be timed.
        not_loaded: engines beside the judged one that do not load here, with the reason.
        error: the sentence of the error that ended it; empty if none did.
    """

    setup: Setup | None = None
    timing: ProcessTiming | None = None
    not_loaded: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def perform(job: Job) -> Findings:
    """Does a job.

    Raises:
        HalpError: the runtime is missing, or the judged engine does not load, has open shapes or cannot be timed.
    """
    if job.make:
        RUNTIMES.setdefault(job.runtime, Entry(make=job.make, traits=job.traits or Traits()))
    users = other_users() if traits_of(job.runtime).can_use_gpu else ""  # before this process is one of them
    runtime, machine = get_runtime(job.runtime), identity()
    target = replace(runtime.target(job.precision, job.batch or 1), optimization_level=job.optimization_level)
    if job.build:
        write_bytes(job.engines[ENGINE], _build(runtime, target, job.build))
    if job.make_reference:
        write_bytes(job.engines[REFERENCE], runtime.build(_reference(job.runtime), _plain(runtime)))
    sessions, not_loaded = _load_all(job, runtime, target)
    shapes = dict(sessions[ENGINE].input_shapes)
    if job.batch is None:
        first = next(iter(shapes.values()), ())
        target = replace(target, batch_size=first[0] if first else 1)
    setup = Setup(
        target=target, shapes=shapes, unit=machine.unit, host=machine.host, driver=machine.driver, cuda=machine.cuda
    )
    timing = _time(job, sessions, machine.boot, users) if job.seconds else None
    return Findings(setup=setup, timing=timing, not_loaded=not_loaded)


def _plain(runtime: Runtime) -> Target:
    return runtime.target("fp32", 1)


def _build(runtime: Runtime, target: Target, model: str) -> bytes:
    """The engine of a file's fp32 model in the target's number formats, built as ``deploy`` builds."""
    from halp_trt.graphs.reading import parse_model
    from halp_trt.workflows.precision import no_examples, preparer

    network = parse_model(read_bytes(model), model)
    typed = preparer(target, no_examples, ())(network).model.SerializeToString()
    if isinstance(runtime, Compiler):
        return runtime.compile(typed, target, BuildOptions()).engine
    return runtime.build(typed, target)


def _reference(runtime: str) -> bytes:
    from halp_trt.runtimes.reference import gpu_reference, processor_reference

    return gpu_reference() if traits_of(runtime).needs_gpu else processor_reference()


def _load_all(job: Job, runtime: Runtime, target: Target) -> tuple[dict[str, Session], dict[str, str]]:
    """The engines that load, by name, and why others do not; the judged one must."""
    sessions, not_loaded = {}, {}
    for name, path in job.engines.items():
        try:
            data = read_bytes(path)
            if not traits_of(job.runtime).is_ahead_of_time:
                data = _fixed(data, {} if name == REFERENCE else job.shapes, path)
            sessions[name] = runtime.load(data, target if name != REFERENCE else _plain(runtime))
        except HalpError as error:
            if name == ENGINE:
                raise
            not_loaded[name] = str(error)
    return sessions, not_loaded


def _fixed(model: bytes, shapes: Mapping[str, tuple[int, ...]], path: str) -> bytes:
    """An ONNX model whose inputs have fixed shapes: its own, or those that were named.

    Raises:
        ArtefactError: it is no sound model.
        UsageError: an input's shape is open and none was named for it, or the named one contradicts it.
    """
    from halp_trt.graphs.reading import parse_model

    network = parse_model(model, path)
    weights = {weight.name for weight in network.graph.initializer}
    inputs = {value.name: value for value in network.graph.input if value.name not in weights}
    if unknown := sorted(set(shapes) - set(inputs)):
        raise UsageError(f"{path} has no input {unknown[0]!r}; it has {', '.join(inputs)}")
    is_changed = False
    for name, value in inputs.items():
        sizes = value.type.tensor_type.shape.dim
        found = tuple(size.dim_value or size.dim_param or "?" for size in sizes)
        wanted = shapes.get(name)
        if wanted is None and all(isinstance(size, int) for size in found):
            continue
        text = "x".join(map(str, found))
        if wanted is None:
            raise UsageError(
                f"input {name!r} of {path} has no fixed shape ({text}); say which to time: --shape {name}=1x3x224x224"
            )
        if len(wanted) != len(found) or any(isinstance(a, int) and a != b for a, b in zip(found, wanted, strict=True)):
            raise UsageError(f"input {name!r} of {path} is {text}, which {'x'.join(map(str, wanted))} does not fit")
        for size, number in zip(sizes, wanted, strict=True):
            is_changed |= size.dim_value != number
            size.dim_value = number
    return bytes(network.SerializeToString()) if is_changed else model


def _time(job: Job, sessions: Mapping[str, Session], boot: str, users: str) -> ProcessTiming:
    """The timing of all loaded engines in turns."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    runs = {name: _bound(session) for name, session in sessions.items()}
    warm_up(as_launches(runs), busy_us=min(_WARMUP_US, job.seconds * 1e6))
    num_orders = num_orders_of(len(runs))
    num_parts = num_orders * max(_FEWEST_BLOCKS, _FEWEST_PARTS // num_orders)
    until = Certainty(
        error_fraction=0.0,
        min_parts=num_parts,
        max_parts=num_parts,
        part_seconds=job.seconds / num_parts,
        max_seconds=math.inf,
        min_rounds=1,
        max_rounds=1_000,
    )
    found = compare_runs(runs, until=until, base=ENGINE)
    return _timing(found, started, boot, users)


def _bound(session: Session) -> Callable[[], object]:
    types: Mapping[str, str] = getattr(session, "input_types", {})
    return session.bind(random_inputs(session.input_shapes, types=types))


def _timing(found: Comparison, started: str, boot: str, users: str) -> ProcessTiming:
    rows = found.measurements
    others = sorted((name for name in rows if name != ENGINE), key=lambda name: (name == REFERENCE, name))
    return ProcessTiming(
        started=started,
        boot=boot,
        engine=rows[ENGINE],
        reference=rows.get(REFERENCE),
        log_ratios={name: -found.robust_log_ratio(name) for name in rows if name != ENGINE},
        control=-found.alternate_change(others[0]) if others else 0.0,
        other_users=users,
    )


def main(path: Path) -> None:
    """Does the job in a file and writes its findings to the file's name with ``.out``."""
    job = decode(Job, read_json(path))
    try:
        findings = perform(job)
    except HalpError as error:
        findings = Findings(error=str(error))
    except ModuleNotFoundError as error:
        findings = Findings(error=f"{error.name} is not installed and this needs it; run: pip install 'halp-trt[all]'")
    write_json(path.with_suffix(".out"), encode(findings))


def work() -> None:
    """The whole of a fresh process: does the job that its first argument names."""
    with suppress(KeyboardInterrupt):
        main(Path(sys.argv[1]))
