"""Engines on a device that is not here, and the commands for it, as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from halp_trt.report import units
from halp_trt.specs import DeviceCommands, DeviceEngine, DeviceVerification

__all__ = ["describe_commands", "describe_device_verification", "device_verdict"]

_MOST_ROWS = 200
_UNCOMPARED = "outputs were not compared"
_PROFILE_NOTE = "in the engine: by TensorRT's profiler, which itself slows small kernels; it decides nothing"


def device_verdict(value: DeviceVerification) -> str:
    """One sentence: did it meet the budget, and does it compute in the number formats that were asked for?"""
    return f"{_word(value)}; {_precision(value)}; {_UNCOMPARED}"


def _word(value: DeviceVerification) -> str:
    budget = "meets" if value.meets_budget else "MISSES"
    return (
        f"{'passed' if value.passed else 'FAILED'}: {units.latency(value.pruned.measurement.latency_us)} {budget} the "
        f"budget of {units.latency(value.limit_us)} (tolerance {units.percent(value.tolerance_fraction, 0)})"
    )


def _precision(value: DeviceVerification) -> str:
    for role, engine in (("dense", value.dense), ("pruned", value.pruned)):
        if engine.misfits:
            node, words = next(iter(engine.misfits.items()))
            return (
                f"NOT as asked for in the {role} engine: {len(engine.misfits)} of its products, first {node}: {words}"
            )
    if not (value.dense.types and value.pruned.types):
        return f"nothing shows that the engines compute in {value.target.precision}"
    return f"every product whose format is shown is as asked for ({value.target.precision})"


def describe_device_verification(value: DeviceVerification) -> str:
    """The comparison in words: both engines, the layers of the pruned one, what is unknown, and the verdict."""
    parts = [units.target_line(value.target), units.columns(_rows(value))]
    if value.layers:
        parts.append("\n".join(_layers(value)))
    doubts = [
        f"the {role} engine's latency is not to be trusted: {engine.measurement.doubt}"
        for role, engine in (("dense", value.dense), ("pruned", value.pruned))
        if not engine.measurement.is_trusted
    ]
    parts.append("\n".join([*doubts, *value.notes, _precision(value), _UNCOMPARED, _word(value)]))
    return "\n\n".join(parts)


def _rows(value: DeviceVerification) -> list[Sequence[str]]:
    dense, pruned = value.dense, value.pruned
    rows: list[Sequence[str]] = [("", "dense", "pruned", "change")]
    times = [units.latency(engine.measurement.latency_us) for engine in (dense, pruned)]
    rows.append(("latency on the device, median", *times, f"{value.speedup:.2f}× faster"))
    rows.append(("latency, p10 – p90", *(units.latency_range(engine.measurement) for engine in (dense, pruned)), ""))
    rows.append(("medians of its runs", *map(_runs, (dense, pruned)), ""))
    rows.append(("throughput", *(_rate(engine, value.target.batch_size) for engine in (dense, pruned)), ""))
    rows.append(("predicted latency", *(units.latency(engine.predicted_us) for engine in (dense, pruned)), ""))
    errors = [units.signed_percent(engine.prediction_error_fraction) for engine in (dense, pruned)]
    rows.append(("prediction error", *errors, ""))
    rows.append(("sum of its profile", *(units.latency(engine.profiled_us) for engine in (dense, pruned)), ""))
    rows.append(("products by number format", *map(_types, (dense, pruned)), ""))
    return rows


def _runs(engine: DeviceEngine) -> str:
    return ", ".join(units.latency(us) for us in engine.runs_us[:5]) + (" ..." if len(engine.runs_us) > 5 else "")


def _rate(engine: DeviceEngine, batch_size: int) -> str:
    return "–" if engine.queries_per_second is None else f"{engine.queries_per_second * batch_size:,.1f} images/s"


def _types(engine: DeviceEngine) -> str:
    shown = [f"{number} {name}" for name, number in sorted(engine.types.items())]
    return ", ".join([*shown, *([f"{engine.num_hidden} not shown"] if engine.num_hidden else [])]) or "–"


def _layers(value: DeviceVerification) -> Iterator[str]:
    rows: list[Sequence[str]] = [("layer", "what it computes", "by the table", "in the engine")]
    for layer in value.layers[:_MOST_ROWS]:
        rows.append((layer.name, str(layer.spec), units.latency(layer.predicted_us), units.latency(layer.measured_us)))
    table_us, engine_us = (sum(getattr(one, name) for one in value.layers) for name in ("predicted_us", "measured_us"))
    rows.append((f"{len(value.layers)} in sum", "", units.latency(table_us), units.latency(engine_us)))
    yield units.columns(rows)
    if value.unmatched_us:
        yield f"kernels of no layer: {units.latency(value.unmatched_us)}"
    yield _PROFILE_NOTE


def describe_commands(value: DeviceCommands) -> str:
    """The commands for a device in words."""
    lines = [f"Commands for a device with TensorRT alone: engines in {value.precision}, batch {value.batch_size}"]
    lines += [f"TensorRT {version}: {file}" for version, file in value.scripts.items()]
    lines += [
        f"{name}: SHA-256 {units.short_sha(sha)}" for name, sha in (*value.networks.items(), *value.parents.items())
    ]
    return "\n".join(lines)
