"""Every value as plain text: what ``show`` prints. Needs nothing but numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from halp_trt.gate import Baselines, BenchResult, History
from halp_trt.gate.engine_layers import EngineLayers
from halp_trt.gate.trtexec import LayerProfiles, QueryRuns
from halp_trt.gate.trtexec_log import TrtexecLog
from halp_trt.latency import LatencyTable
from halp_trt.planning.prunability import prunability
from halp_trt.report import units
from halp_trt.report.bench_text import describe_baselines, describe_bench
from halp_trt.report.comparison import comparison_rows
from halp_trt.report.device_text import describe_commands, describe_device_verification, device_verdict
from halp_trt.report.engine_text import describe_engine_layers, describe_trtexec_log
from halp_trt.report.examples import describe_examples
from halp_trt.report.history import describe_history
from halp_trt.report.prunability import describe_prunability
from halp_trt.report.shown import shown
from halp_trt.report.tables import describe_table
from halp_trt.report.trtexec import describe_profiles, describe_runs
from halp_trt.specs import (
    ChannelGraph,
    DeviceCommands,
    DeviceVerification,
    EngineRecord,
    Examples,
    Measurement,
    PruningPlan,
    Saliency,
    Target,
    Verification,
)
from halp_trt.store import encode
from halp_trt.texts import counted

__all__ = [
    "calibration_line",
    "comparison_rows",
    "describe",
    "describe_log",
    "grounds",
    "score_basis",
    "score_drop",
    "verdict",
    "with_verdict",
]

_BAR_WIDTH = 24
_NO_TABLE = "there is no latency table of this target, so that nothing was predicted"
_MOST_LAYERS = 200
_FEWEST_ENGINES = 3
_PROFILE_NOTE = "in the engine: by the runtime's profiler, which itself slows small kernels"


def describe(value: object) -> str:
    """A value as text of several lines; names in it are shown as :func:`halp_trt.report.shown.shown` has them.

    Raises:
        KeyError: it is none of the values that have a file.
    """
    return _TEXTS[type(value)](shown(value))


def verdict(verification: Verification) -> str:
    """One sentence: did it meet the budget, is it the same function, and does it do its task as well?

    A score that fell far is named with the verdict itself, so that nobody reads ``passed`` and stops.
    """
    drop = score_drop(verification)
    if not verification.passed:
        return f"FAILED: {grounds(verification)}"
    return f"passed{f', but {drop}' if drop else ''}: {grounds(verification, with_drop=False)}"


def with_verdict(verification: Verification | DeviceVerification) -> dict[str, object]:
    """A verification as JSON has it, with its verdict beside it: ``passed``, and the sentence."""
    sentence = verdict(verification) if isinstance(verification, Verification) else device_verdict(verification)
    return {**encode(verification), "passed": verification.passed, "verdict": sentence}


def grounds(verification: Verification, *, with_drop: bool = True) -> str:
    """The grounds of a verdict: budget, outputs, and the score where a limit was asked for or it fell far."""
    pruned, limit = verification.pruned.measurement.latency_us, verification.limit_us
    budget = "meets" if verification.meets_budget else "MISSES"
    faithful = "equals" if verification.is_faithful else "DIFFERS from"
    return (
        f"{units.latency(pruned)} {budget} the budget of "
        f"{units.latency(limit)} (tolerance {units.percent(verification.tolerance_fraction, 0)}); the engine "
        f"{faithful} the masked model (largest difference {verification.max_difference:.1e}){_witnessed(verification)}"
        f"{_kept_score(verification, with_drop)}"
    )


def score_drop(verification: Verification) -> str:
    """``top-1 fell from 74.5 to 2.9 %`` where the score became so much worse that it must be said, else nothing."""
    return _fall(verification) if verification.drops_far else ""


def _fall(verification: Verification) -> str:
    dense, pruned = verification.dense.score, verification.pruned.score
    if dense is None or pruned is None:
        return ""
    way = "rose" if pruned.value > dense.value else "fell"
    if dense.is_fraction:
        return f"{dense.name} {way} from {100 * dense.value:.1f} to {units.percent(pruned.value, 1)}"
    return f"{dense.name} {way} from {dense.value:.4g} to {units.score(pruned)}"


def _kept_score(verification: Verification, with_drop: bool) -> str:
    """The score's part of a verdict: against the limit where one was asked for, or that it fell far."""
    dense, limit, drop = verification.dense.score, verification.max_drop, verification.drop
    if limit is None or dense is None or drop is None:
        fall = score_drop(verification) if with_drop else ""
        return f"; {fall}" if fall else ""
    unit = "points" if dense.is_fraction else dense.unit
    if verification.keeps_score:
        return f"; {dense.name} is worse by {max(drop, 0.0):.3g} of {f'{limit:g} {unit}'.rstrip()} allowed"
    return f"; {_fall(verification)}, WORSE by more than {f'{limit:g} {unit}'.rstrip()}"


def _witnessed(verification: Verification) -> str:
    """The result of the comparison with ONNX Runtime in words, empty if there was none."""
    checks = (verification.dense, verification.pruned)
    found = [check.witness_difference for check in checks if check.witness_difference is not None]
    if not found:
        return ""
    agree = "agrees" if max(found) <= verification.difference_limit else "DISAGREES"
    return f"; ONNX Runtime {agree} with both engines (largest difference {max(found):.1e})"


def _verification(value: Verification) -> str:
    basis = score_basis(value)
    return "\n".join(
        [
            f"{units.target_line(value.target)}{f', {basis}' if basis else ''}",
            "",
            units.columns(comparison_rows(value)),
            "",
            *([_NO_TABLE] if value.pruned.predicted_us is None else []),
            *_kernels(value),
            *([value.doubt] if value.doubt else []),
            verdict(value),
        ]
    )


def score_basis(verification: Verification) -> str:
    """``top-1 on 10,000 test examples``; empty where there were no data."""
    score = verification.pruned.score
    return f"{score.name} on {units.count(score.num_examples)} test examples" if score else ""


def _kernels(value: Verification) -> list[str]:
    """Every kernel of the pruned engine, or every layer, alone and inside the engine."""
    if not value.layers:
        return []
    rows = [("kernel", "what it computes", "alone", "in the engine")]
    for layer in value.layers[:_MOST_LAYERS]:
        alone, inside = units.latency(layer.predicted_us), units.latency(layer.measured_us)
        rows.append((layer.name, str(layer.spec), alone, inside))
    alone_us, inside_us = (sum(getattr(x, name) for x in value.layers) for name in ("predicted_us", "measured_us"))
    rows.append((f"{len(value.layers)} in sum", "", units.latency(alone_us), units.latency(inside_us)))
    rest = [f"kernels without a price: {units.latency(value.unmatched_us)}"] if value.unmatched_us else []
    return [units.columns(rows), *rest, _PROFILE_NOTE, ""]


def _plan(value: PruningPlan) -> str:
    dense, counts = value.graph.dense_counts(), value.counts()
    rows = [("channel group", "kept", "of", "")]
    for group in value.graph.prunable_groups:
        kept = counts[group.name]
        filled = max(min(1, kept), round(_BAR_WIDTH * kept / group.num_channels))
        rows.append((group.name, str(kept), str(dense[group.name]), "█" * filled + "░" * (_BAR_WIDTH - filled)))
    head = f"Pruning plan for {value.graph.model or 'a network'}: {len(rows) - 1} channel groups"
    if value.budget_us:
        head += (
            f", predicted {units.latency(value.predicted_us(value.latency_us))}"
            f" under a budget of {units.latency(value.predicted_us(value.budget_us))}"
        )
    if line := calibration_line(value):
        head += f"\ncalibration: {line}"
    if value.removed_blocks:
        head += f"\nremoved blocks, by their last layer: {', '.join(value.removed_blocks)}"
    return f"{head}\n\n{units.columns(rows)}"


def calibration_line(plan: PruningPlan) -> str:
    """The calibration line fitted to timed engines, with its R² and error, in words; empty if none was timed."""
    if not plan.calibration_engines:
        return ""
    line = f"an engine takes {plan.calibration:.3f} × the table's sum"
    if plan.overhead_us:
        line += f" {'+' if plan.overhead_us > 0 else '−'} {units.latency(abs(plan.overhead_us))}"
    if plan.calibration_engines < _FEWEST_ENGINES:
        return f"{line}, by {plan.calibration_engines} engines, too few to tell how far off"
    return (
        f"{line}, by {plan.calibration_engines} engines: R² {plan.calibration_r_squared:.4f}, the farthest off by "
        f"{units.percent(plan.calibration_error_fraction, 1)}"
    )


def _graph(value: ChannelGraph) -> str:
    rows = [("layer", "kernel", "channel groups")]
    for layer in value.layers[:_MOST_LAYERS]:
        rows.append((layer.name, str(layer.spec), " + ".join(name for name, _ in layer.out_groups)))
    more = len(value.layers) - _MOST_LAYERS
    inputs = ", ".join("×".join(map(str, shape)) for shape in value.input_shapes)
    head = (
        f"{value.model or 'A network'} on {inputs}: {counted(len(value.layers), 'layer')}, "
        f"{counted(len(value.groups), 'channel group')}, {len(value.prunable_groups)} of them prunable"
    )
    tail = f"\n... and {more} more" if more > 0 else ""
    return f"{head}\n{describe_prunability(prunability(value))}\n\n{units.columns(rows, right_from=9)}{tail}"


def _protocol(target: Target) -> str:
    return f"timed by {units.protocol_line(target.protocol)}"


def _saliency(value: Saliency) -> str:
    rows = [("channel group", "channels", "smallest", "median", "largest")]
    for group, scores in value.scores.items():
        ordered = sorted(scores) or [0.0]
        middle = ordered[len(ordered) // 2]
        rows.append((group, str(len(scores)), f"{ordered[0]:.3g}", f"{middle:.3g}", f"{ordered[-1]:.3g}"))
    return f"Saliency of {len(value.scores)} channel groups\n\n{units.columns(rows)}"


def _engine(value: EngineRecord) -> str:
    place = "runs on the machine that built it" if value.runnable else "needs another machine to run on"
    lines = [
        f"Engine {value.file}: {units.size(value.num_bytes)}, SHA-256 {units.short_sha(value.sha256)}",
        f"for {units.target_line(value.target)}; {place}",
        f"built in {value.build_seconds:.1f} s",
        *(f"made from {name} {units.short_sha(sha)}" for name, sha in value.parents.items()),
        *_proof(value),
        *(f"{name}: {text}" for name, text in value.flags.items()),
    ]
    return "\n".join(lines)


def _proof(value: EngineRecord) -> list[str]:
    """Lines on the number formats an engine computes in, and the evidence for them."""
    if not value.types:
        return []
    counts = ", ".join(f"{number} in {name}" for name, number in sorted(value.types.items()))
    edges = ", ".join(f"{name} {text}" for name, text in value.formats.items())
    kept = [f"{name} stays wider: {reason}" for name, reason in value.kept.items()]
    return [f"products by number format: {counts} (read from the {value.evidence})", f"edges: {edges}", *kept]


def _target(value: Target) -> str:
    return f"{units.target_line(value)}\n{_protocol(value)}"


def _measurement(value: Measurement) -> str:
    text = f"{units.latency(value.latency_us)} (p10 – p90: {units.latency_range(value)}, {value.num_samples} samples)"
    return text + (f"; not to be trusted: {value.doubt}" if value.doubt else "")


_TEXTS: Mapping[type, Callable[[Any], str]] = MappingProxyType(
    {
        Baselines: describe_baselines,
        BenchResult: describe_bench,
        ChannelGraph: _graph,
        DeviceCommands: describe_commands,
        DeviceVerification: describe_device_verification,
        EngineLayers: describe_engine_layers,
        EngineRecord: _engine,
        Examples: describe_examples,
        History: describe_history,
        LatencyTable: describe_table,
        LayerProfiles: describe_profiles,
        Measurement: _measurement,
        PruningPlan: _plan,
        QueryRuns: describe_runs,
        Saliency: _saliency,
        Target: _target,
        TrtexecLog: describe_trtexec_log,
        Verification: _verification,
    }
)


def describe_log(records: Iterable[Mapping[str, Any]]) -> str:
    """The steps of a run, one line each; columns are the keys that appear."""
    records = shown(list(records))
    names = list(dict.fromkeys(name for record in records for name in record))
    rows: list[Sequence[str]] = [names]
    rows.extend([_cell(name, record.get(name)) for name in names] for record in records)
    return units.columns(rows) if names else "no steps yet"


def _cell(name: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if name.endswith("_us"):
        return units.latency(value)
    if name.endswith("_fraction"):
        return units.percent(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
