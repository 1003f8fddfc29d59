"""The dense and the pruned engine on the device: timed in turns, compared with prediction and model, and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from halp_trt.errors import UsageError
from halp_trt.latency import LatencyTable, layer_latencies_us
from halp_trt.runtimes import Array, Session, Unit
from halp_trt.specs import (
    Budget,
    EngineCheck,
    EngineRecord,
    HostStep,
    LayerCheck,
    PruningPlan,
    Score,
    Verification,
)
from halp_trt.workflows.compare import Certainty, compare
from halp_trt.workflows.layer_checks import kernel_checks, layer_checks
from halp_trt.workflows.outputs import Inputs, output_differences
from halp_trt.workflows.precision import DIFFERENCES

__all__ = ["Evidence", "Explain", "LoadedEngine", "Promise", "Tolerances", "Witness", "count_parameters", "verify"]

_PROFILE_RUNS = 30
"""Runs of a profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEngine:
    """One engine, loaded.

    Attributes:
        record: the record beside its file.
        session: the loaded engine.
        model: the ONNX model that it was built from.
        engine: the engine's bytes.
    """

    record: EngineRecord
    session: Session
    model: onnx.ModelProto
    engine: bytes = b""


Witness = Callable[[LoadedEngine], float]
"""A function that gives an engine's largest difference from another runtime's outputs, over the largest output above
1."""
Explain = Callable[[LoadedEngine], Sequence[tuple[Unit, float]]]
"""A function that gives the kernels of an engine in order, and the microseconds of each alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """The differences that still pass, and the time for timing.

    Attributes:
        latency_fraction: accepted excess over the budget; below 0 for a margin under it.
        difference: accepted difference between the outputs of the engine and of the masked model, relative to the
            largest output; None for that of the engine's precision (``halp_trt.workflows.precision.DIFFERENCES``).
        seconds: time for timing the two engines, at most and about.
        max_drop: accepted drop of the score from the dense to the pruned engine: in percentage points if the score is
            a fraction, else in its own unit; None for any.
    """

    latency_fraction: float = 0.05
    difference: float | None = None
    seconds: float = 10.0
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.latency_fraction) or self.latency_fraction <= -1:
            raise UsageError(f"a tolerance is a number of percent above -100, got {self.latency_fraction:.0%}")
        if not (math.isfinite(self.seconds) and self.seconds >= 0 and (self.difference or 0.0) >= 0):
            raise UsageError(f"seconds and differences must be finite and not negative, got {self}")
        if self.max_drop is not None and not math.isfinite(self.max_drop):
            raise UsageError(f"the largest drop of a score must be a finite number, got {self.max_drop}")

    def difference_in(self, precision: str) -> float:
        """The accepted difference between outputs for an engine's precision."""
        return DIFFERENCES[precision] if self.difference is None else self.difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The promise of a pruned engine, and the tolerances for breaking it.

    Attributes:
        plan: the plan that the engine was made from.
        budget: the budget that was asked for; a fraction is taken of the dense latency measured while verifying.
        table: the table that prices the layers; None if this target has none, and nothing is predicted.
        tolerances: the differences that still pass.
    """

    plan: PruningPlan
    budget: Budget
    table: LatencyTable | None = None
    tolerances: Tolerances = field(default_factory=Tolerances)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Further evidence about engines, beyond their latency and outputs.

    Attributes:
        witness: compares an engine's outputs with another runtime's for its model; None to leave that out.
        explain: gives the kernels of an engine and each one's latency alone; None where these are unknown, and layers
            are compared with the profile instead.
        reading: times the step that reads answers from an engine's outputs; None where there is none to name.
        fp32_score: gives the score of the masked model; None where nobody asks.
        output_names: the network's own names of its outputs; empty for the engine's.
    """

    witness: Witness | None = None
    explain: Explain | None = None
    reading: Callable[[Session], HostStep | None] | None = None
    fp32_score: Callable[[], Score | None] | None = None
    output_names: Sequence[str] = ()


def verify(
    engines: Mapping[str, LoadedEngine],
    promise: Promise,
    *,
    masked: Callable[[Inputs], list[Array]],
    score: Callable[[Session], Score | None],
    inputs: Inputs,
    evidence: Evidence | None = None,
) -> Verification:
    """Measures both engines and compares them with the promise.

    Args:
        engines: "dense" and "pruned", of one target.
        promise: the promise of the pruned engine.
        masked: the outputs of the masked model, the reference for the pruned engine.
        score: gives an engine's score at its task; None without data.
        inputs: the inputs that both engines are timed and compared on.
        evidence: further evidence to gather.

    Raises:
        MissingLatencyError: the table lacks a layer of the plan.
        NonFiniteError: an engine's output is not finite.
    """
    evidence, tolerances = evidence or Evidence(), promise.tolerances
    dense, pruned = engines["dense"], engines["pruned"]
    witness = evidence.witness
    witnessed = {name: None if witness is None else witness(contender) for name, contender in engines.items()}
    sessions = {name: contender.session for name, contender in engines.items()}
    times = compare(sessions, inputs, until=Certainty.lasting(tolerances.seconds)).measurements
    predicted = _predicted(promise.plan, promise.table)
    explained = _explained(engines, promise.plan, predicted, inputs, evidence.explain)
    checks = {}
    for name, contender in engines.items():
        checks[name] = EngineCheck(
            sha256=contender.record.sha256,
            measurement=times[name],
            predicted_us=promise.plan.predicted_us(math.fsum(predicted[name].values())) if predicted else None,
            num_parameters=count_parameters(contender.model),
            score=score(contender.session),
            witness_difference=witnessed[name],
            kernels_us=explained.kernels_us.get(name),
            reading=None if evidence.reading is None else evidence.reading(contender.session),
        )
    differences = output_differences(pruned.session, masked, inputs)
    names = evidence.output_names or pruned.session.output_names
    return Verification(
        target=pruned.record.target,
        dense=checks["dense"],
        pruned=checks["pruned"],
        limit_us=promise.budget.latency_us(times["dense"].latency_us),
        tolerance_fraction=tolerances.latency_fraction,
        max_difference=max(differences, default=0.0),
        difference_limit=tolerances.difference_in(pruned.record.target.precision),
        output_differences=dict(zip(names, differences, strict=True)) if len(differences) > 1 else {},
        fp32_score=None if evidence.fp32_score is None else evidence.fp32_score(),
        max_drop=tolerances.max_drop,
        layers=explained.layers,
        unmatched_us=explained.unmatched_us,
        parents={dense.record.file: dense.record.sha256, pruned.record.file: pruned.record.sha256},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explained:
    """The profile of the pruned engine beside predictions.

    Attributes:
        layers: predicted and measured time of every layer or kernel of it.
        unmatched_us: profiled time that belongs to none of them.
        kernels_us: sum of the latencies of an engine's kernels alone, by engine; empty if these are not known.
    """

    layers: tuple[LayerCheck, ...] = ()
    unmatched_us: float = 0.0
    kernels_us: Mapping[str, float] = field(default_factory=dict)


def _explained(
    engines: Mapping[str, LoadedEngine],
    plan: PruningPlan,
    predicted: Mapping[str, Mapping[str, float]],
    inputs: Inputs,
    explain: Explain | None,
) -> _Explained:
    """The pruned engine's profile against its kernels where they are known, else against its layers' predictions."""
    pruned = engines["pruned"]
    if explain is not None:
        kernels = {name: explain(contender) for name, contender in engines.items()}
        profile_us = pruned.session.profile(inputs, _PROFILE_RUNS)
        layers, unmatched_us = kernel_checks(plan, pruned.model, kernels["pruned"], profile_us)
        sums_us = {name: math.fsum(us for _, us in found) for name, found in kernels.items()}
        return _Explained(layers=layers, unmatched_us=unmatched_us, kernels_us=sums_us)
    if predicted:
        profile_us = pruned.session.profile(inputs, _PROFILE_RUNS)
        layers, unmatched_us = layer_checks(plan, pruned.model, predicted["pruned"], profile_us)
        return _Explained(layers=layers, unmatched_us=unmatched_us)
    return _Explained()


def _predicted(plan: PruningPlan, table: LatencyTable | None) -> dict[str, dict[str, float]]:
    """Microseconds of every layer of the dense and of the pruned network by the table; empty without one."""
    if table is None:
        return {}
    counts = {"dense": plan.graph.dense_counts(), "pruned": plan.counts()}
    return {name: layer_latencies_us(plan.graph, table, widths) for name, widths in counts.items()}


def count_parameters(model: onnx.ModelProto) -> int:
    """Floating-point numbers in a model's initialisers; shapes and indices are not counted."""
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type in kinds)
