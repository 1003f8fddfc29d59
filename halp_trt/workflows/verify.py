"""Dense against pruned on the device: timed in turns, compared with the prediction, with the model, and on pictures."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from halp_trt.errors import NonFiniteError, UsageError
from halp_trt.latency import LatencyTable, layer_latencies_us
from halp_trt.runtimes import Array, Session, Unit
from halp_trt.runtimes.gpu_timing import PROTOCOL as GPU_PROTOCOL
from halp_trt.runtimes.gpu_timing import doubts
from halp_trt.specs import (
    Budget,
    EngineCheck,
    EngineRecord,
    Layer,
    LayerCheck,
    Measurement,
    Protocol,
    PruningPlan,
    Verification,
)
from halp_trt.timing import (
    MOST_ROUNDS,
    Launch,
    Sample,
    as_launches,
    conditions_of,
    pin_to_one_core,
    summarise,
    take_turns,
    time_interleaved,
)
from halp_trt.workflows.precision import DIFFERENCES

__all__ = [
    "Contender",
    "Explain",
    "Tolerances",
    "Witness",
    "compare_outputs",
    "count_parameters",
    "kernel_checks",
    "layer_checks",
    "time_engines",
    "verify",
]

Inputs = Mapping[str, Array]
_PROFILE_RUNS = 30
_NUMBERED = re.compile(r"(_token)?_[0-9]+$")
"""What ONNX Runtime appends to the names of nodes that it makes itself, anew in every session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One engine, loaded.

    Attributes:
        record: what stands beside its file.
        session: ready to run.
        model: the ONNX model that it was built from.
        engine: its bytes.
    """

    record: EngineRecord
    session: Session
    model: onnx.ModelProto
    engine: bytes = b""


Witness = Callable[[Contender], float]
"""How far an engine's outputs are from those of another runtime, relative to the largest output above 1."""
Explain = Callable[[Contender], Sequence[tuple[Unit, float]]]
"""The kernels that an engine executes, in order, and the microseconds that each takes alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """How much of a difference still passes, and how long to time.

    Attributes:
        latency_fraction: above the budget; below 0 for a margin under it.
        difference: between the outputs of the engine and of the masked model, relative to the largest output; None for
            what the engine's precision allows (``halp_trt.workflows.precision.DIFFERENCES``).
        seconds: how long the two engines are timed, at most and about.
    """

    latency_fraction: float = 0.05
    difference: float | None = None
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.latency_fraction) or self.latency_fraction <= -1:
            raise UsageError(f"a tolerance is a number of percent above -100, got {self.latency_fraction:.0%}")
        if not (math.isfinite(self.seconds) and self.seconds >= 0 and (self.difference or 0.0) >= 0):
            raise UsageError(f"seconds and differences must be finite and not negative, got {self}")


def verify(
    dense: Contender,
    pruned: Contender,
    plan: PruningPlan,
    *,
    budget: Budget,
    table: LatencyTable | None,
    masked: Callable[[Inputs], list[Array]],
    accuracy: Callable[[Session], tuple[float | None, int]],
    inputs: Inputs,
    tolerances: Tolerances | None = None,
    witness: Witness | None = None,
    explain: Explain | None = None,
) -> Verification:
    """Measures both engines and compares them with what was promised.

    Args:
        dense, pruned: the engines, of one target.
        plan: what the pruned one was made from.
        budget: what was asked for; a fraction is taken of the dense latency measured here.
        table: prices the layers; None where there is none for this target, and nothing is predicted.
        masked: the outputs of the masked model, the reference for the pruned engine.
        accuracy: share of right answers of an engine and the number of pictures behind it.
        inputs: what both engines are timed and compared on.
        tolerances: what still passes.
        explain: what the runtime executes of a model and what each kernel of it takes alone, where that can be told;
            layers are compared with the profile instead where it cannot.
        witness: how far an engine's outputs are from those that another runtime finds for its model, if that is asked.

    Raises:
        MissingLatencyError: the table lacks a layer of the plan.
        NonFiniteError: an engine's output is not finite.
    """
    tolerances = tolerances or Tolerances()
    witnessed = {
        name: witness(contender) if witness is not None else None
        for name, contender in (("dense", dense), ("pruned", pruned))
    }
    times = time_engines({"dense": dense.session, "pruned": pruned.session}, inputs, seconds=tolerances.seconds)
    predicted = _predicted(plan, table)
    checks, num_pictures = {}, 0
    for name, contender in (("dense", dense), ("pruned", pruned)):
        fraction, num_pictures = accuracy(contender.session)
        checks[name] = EngineCheck(
            sha256=contender.record.sha256,
            measurement=times[name],
            predicted_us=plan.predicted_us(math.fsum(predicted[name].values())) if predicted else None,
            num_parameters=count_parameters(contender.model),
            accuracy_fraction=fraction,
            witness_difference=witnessed[name],
        )
    layers: tuple[LayerCheck, ...] = ()
    unmatched_us = 0.0
    if explain is not None:
        kernels = {name: explain(contender) for name, contender in (("dense", dense), ("pruned", pruned))}
        for name, found in kernels.items():
            checks[name] = replace(checks[name], kernels_us=math.fsum(us for _, us in found))
        profile_us = pruned.session.profile(inputs, _PROFILE_RUNS)
        layers, unmatched_us = kernel_checks(plan, pruned.model, kernels["pruned"], profile_us)
    elif predicted:
        profile_us = pruned.session.profile(inputs, _PROFILE_RUNS)
        layers, unmatched_us = layer_checks(plan, pruned.model, predicted["pruned"], profile_us)
    return Verification(
        target=pruned.record.target,
        dense=checks["dense"],
        pruned=checks["pruned"],
        limit_us=budget.latency_us(times["dense"].latency_us),
        tolerance_fraction=tolerances.latency_fraction,
        max_difference=compare_outputs(pruned.session, masked, inputs),
        difference_limit=(
            DIFFERENCES[pruned.record.target.precision] if tolerances.difference is None else tolerances.difference
        ),
        num_pictures=num_pictures,
        layers=layers,
        unmatched_us=unmatched_us,
        parents={dense.record.file: dense.record.sha256, pruned.record.file: pruned.record.sha256},
    )


def _predicted(plan: PruningPlan, table: LatencyTable | None) -> dict[str, dict[str, float]]:
    """Microseconds of every layer of the dense and of the pruned network by the table; empty without one."""
    if table is None:
        return {}
    counts = {"dense": plan.graph.dense_counts(), "pruned": plan.counts()}
    return {name: layer_latencies_us(plan.graph, table, widths) for name, widths in counts.items()}


def time_engines(sessions: Mapping[str, Session], inputs: Inputs, *, seconds: float) -> dict[str, Measurement]:
    """Latency of engines run in turns, with the calling thread kept on one core.

    The number of rounds follows from the first few: as many as fit into ``seconds``, from 20 to ``MOST_ROUNDS``. What a
    GPU timed carries the GPU's conditions on both sides, and a doubt where they or the spread give cause.
    """
    calls = {name: session.bind(inputs) for name, session in sessions.items()}
    with pin_to_one_core():
        trial = time_interleaved(calls, num_rounds=3, num_warmup=2)
        round_us = sum(float(np.median(samples)) for samples in trial.values())
        num_rounds = int(min(MOST_ROUNDS, max(20, seconds * 1e6 / max(round_us, 1.0))))
        num_warmup = max(3, num_rounds // 10)
        launches = as_launches(calls)
        before = {name: conditions_of(launch.device.conditions()) for name, launch in launches.items()}
        samples = take_turns(launches, num_rounds=num_rounds, num_warmup=num_warmup)
    rows = {}
    for name, launch in launches.items():
        row = replace(summarise([sample.elapsed_us for sample in samples[name]]), before=before[name])
        rows[name] = _timed_on_gpu(row, launch, samples[name], num_warmup) if isinstance(calls[name], Launch) else row
    return rows


def _timed_on_gpu(row: Measurement, launch: Launch, samples: Sequence[Sample], num_warmup: int) -> Measurement:
    """A row with what only a GPU has: conditions after, time to enqueue, how it was launched, and doubts."""
    taken = replace(
        row,
        after=conditions_of(launch.device.conditions()),
        enqueue_us=float(np.median([sample.enqueue_us for sample in samples])),
        protocol=Protocol(
            method=GPU_PROTOCOL.method,
            num_samples=row.num_samples,
            num_warmup=num_warmup,
            num_executions=launch.num_executions,
            num_in_flight=launch.device.num_in_flight,
            uses_graph=launch.uses_graph,
        ),
    )
    return replace(taken, doubt="; ".join(doubts(taken, calm_us=math.inf)))


def compare_outputs(session: Session, masked: Callable[[Inputs], list[Array]], inputs: Inputs) -> float:
    """Largest difference between an engine's outputs and the masked model's, relative to the largest output above 1.

    Raises:
        NonFiniteError: an output is NaN or infinite.
    """
    outputs = session.run(inputs)
    worst = 0.0
    for name, expected in zip(session.output_names, masked(inputs), strict=True):
        found = outputs[name]
        if not (np.isfinite(found).all() and np.isfinite(expected).all()):
            raise NonFiniteError(f"output {name!r} is not finite; check the weights of the network")
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        worst = max(worst, float(np.abs(found - expected).max(initial=0.0)) / scale)
    return worst


def layer_checks(
    plan: PruningPlan, model: onnx.ModelProto, predicted_us: Mapping[str, float], profile_us: Mapping[str, float]
) -> tuple[tuple[LayerCheck, ...], float]:
    """Predicted against profiled time of every layer, and the profiled time that belongs to no layer.

    Runtimes name a kernel after one of the nodes it stands for or after its output, and append to it: it belongs to the
    layer with the longest such name that its own name starts with. Layers that the runtime fused away are left out, and
    what a removed block leaves behind (the addition of its constant) belongs to no layer.
    """
    counts = plan.counts()
    alive = [layer for layer in plan.graph.layers if layer.lives_at(counts)]
    owners = {node: layer for layer in alive for node in (layer.name, *layer.nodes)}
    owners |= {output: owners[node.name] for node in model.graph.node if node.name in owners for output in node.output}
    measured: dict[str, float] = {}
    unmatched_us = 0.0
    for kernel, kernel_us in profile_us.items():
        owner = _owner(kernel, owners)
        if owner is None:
            unmatched_us += kernel_us
        else:
            measured[owner.name] = measured.get(owner.name, 0.0) + kernel_us
    checks = tuple(
        LayerCheck(
            name=layer.name,
            spec=layer.spec_at(counts),
            predicted_us=predicted_us[layer.name],
            measured_us=measured[layer.name],
        )
        for layer in alive
        if layer.name in measured
    )
    return checks, unmatched_us


def kernel_checks(
    plan: PruningPlan, model: onnx.ModelProto, kernels: Sequence[tuple[Unit, float]], profile_us: Mapping[str, float]
) -> tuple[tuple[LayerCheck, ...], float]:
    """Every kernel as it was measured alone against the profile, and the profiled time of what was not measured.

    A kernel bears the name of its layer; where a layer became several, or it belongs to none, its own.
    """
    owners = _owners(plan, model)
    profiled: dict[str, list[float]] = defaultdict(list)
    for name, us in profile_us.items():
        profiled[_NUMBERED.sub("", name)].append(us)
    checks: list[LayerCheck] = []
    taken: set[str] = set()
    for unit, alone_us in kernels:
        owner = _owner(unit.name, owners)
        name = owner.name if owner is not None and owner.name not in taken else unit.name
        taken.add(name)
        inside = profiled[_NUMBERED.sub("", unit.name)]
        measured_us = inside.pop(0) if inside else 0.0
        checks.append(LayerCheck(name=name, spec=unit.spec, predicted_us=alone_us, measured_us=measured_us))
    return tuple(checks), math.fsum(us for rest in profiled.values() for us in rest)


def _owners(plan: PruningPlan, model: onnx.ModelProto) -> dict[str, Layer]:
    """Layers by the names that a runtime may give their kernels: of their nodes, and of what those write."""
    owners = {node: layer for layer in plan.graph.layers for node in (layer.name, *layer.nodes)}
    return owners | {
        output: owners[node.name] for node in model.graph.node if node.name in owners for output in node.output
    }


def _owner(kernel: str, owners: Mapping[str, Layer]) -> Layer | None:
    for length in range(len(kernel), 0, -1):
        layer = owners.get(kernel[:length])
        if layer is not None and kernel[length : length + 1] in ("", "_", " ", "+", "/", ":"):
            return layer
    return None


def count_parameters(model: onnx.ModelProto) -> int:
    """Floating-point numbers in a model's initialisers; shapes and indices are not counted."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in kinds)
