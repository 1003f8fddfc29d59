"""Engines' layers and logs by trtexec, as plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from halp_trt.gate.engine_layers import EngineLayers
from halp_trt.gate.trtexec import LayerProfiles
from halp_trt.gate.trtexec_log import TrtexecLog
from halp_trt.report import units
from halp_trt.report.trtexec import describe_profiles

__all__ = ["describe_engine_layers", "describe_trtexec_log"]

_MOST_ROWS = 200
_LONGEST = 48
_FACTS = (
    ("Selected Device", "device"),
    ("Compute Capability", "compute capability"),
    ("Precision", "precision"),
    ("CUDA Graph", "CUDA graph"),
    ("Data transfers", "copies"),
    ("Spin-wait", "spinning"),
)
"""Facts of a log that are shown, and their names in our words."""


def describe_engine_layers(value: EngineLayers) -> str:
    """The layers of an engine in words: what computes in which number format, and what nothing shows."""
    counts = Counter(layer.number_format or "no format shown" for layer in value.layers if not layer.moves_data)
    formats = ", ".join(f"{number} in {name}" for name, number in sorted(counts.items()))
    head = f"Engine of {len(value.layers)} layers by TensorRT's inspector"
    if not value.is_detailed:
        return f"{head}: names alone, as it was built without detailed profiling verbosity"
    notes = [f"{head}: {formats}; the others move data", *(f"{name}: {text}" for name, text in value.edges.items())]
    if unread := value.unread():
        notes.append(f"{len(unread)} layers show no number format, the first {unread[0].name} ({unread[0].kind})")
    rows: list[Sequence[str]] = [("layer", "kind", "computes in", "kernel")]
    for layer in value.layers[:_MOST_ROWS]:
        rows.append((_cut(layer.name), layer.kind, layer.number_format or "–", _cut(layer.tactic)))
    more = len(value.layers) - _MOST_ROWS
    tail = f"\n... and {more} more" if more > 0 else ""
    return "\n".join(notes) + f"\n\n{units.columns(rows, right_from=9)}{tail}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def describe_trtexec_log(value: TrtexecLog) -> str:
    """A log in words: what ran, on which device, how fast, and what it warns of."""
    parts = ["\n".join(_log_lines(value))]
    if value.profiles:
        parts.append(describe_profiles(LayerProfiles(profiles=value.profiles)))
    return "\n\n".join(parts)


def _log_lines(value: TrtexecLog) -> Iterator[str]:
    version = f"TensorRT {value.version}" if value.version else "a TensorRT that it does not name"
    yield f"Log of trtexec, {version}: {value.outcome or 'it has no end'}, {units.count(value.num_lines)} lines"
    yield from (f"{name}: {value.facts[key]}" for key, name in _FACTS if key in value.facts)
    for name, time in value.times.items():
        yield f"{name}: median {units.latency(time.median_us)}, least {units.latency(time.least_us)}"
    if value.queries_per_second is not None:
        yield f"{value.queries_per_second:,.1f} queries/s"
    yield from (f"warning: {text}" for text in value.warnings)
    yield from (f"error: {text}" for text in value.errors)
