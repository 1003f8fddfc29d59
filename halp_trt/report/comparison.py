"""Dense against pruned in rows: the table of a verification's text and page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from halp_trt.report import units
from halp_trt.specs import EngineCheck, Score, Verification

__all__ = ["comparison_rows"]


def comparison_rows(verification: Verification) -> list[tuple[str, str, str, str]]:
    """Dense against pruned: name, dense, pruned, and what changed. The first row is the heading."""
    dense, pruned = verification.dense, verification.pruned
    kept = pruned.num_parameters / dense.num_parameters if dense.num_parameters else 1.0
    return [
        ("", "dense", "pruned", "change"),
        (
            "latency, median",
            *_both(verification, lambda c: units.latency(c.measurement.latency_us)),
            _speedup(dense.measurement.latency_us, pruned.measurement.latency_us),
        ),
        ("latency, p10 – p90", *_both(verification, lambda c: units.latency_range(c.measurement)), ""),
        ("throughput", *_both(verification, lambda c: units.throughput(c.measurement, verification.target)), ""),
        *_reading_rows(verification),
        (
            "predicted latency",
            *_both(verification, lambda c: units.latency(c.predicted_us)),
            _speedup(dense.predicted_us, pruned.predicted_us),
        ),
        (
            "prediction error",
            *_both(verification, lambda c: units.signed_percent(c.prediction_error_fraction)),
            units.signed_percent(verification.share_error_fraction) if pruned.predicted_us is not None else "",
        ),
        *_kernel_rows(verification),
        ("parameters", *_both(verification, lambda c: units.count(c.num_parameters)), units.signed_percent(kept - 1)),
        *_witness_rows(verification),
        *_difference_rows(verification),
        (
            score.name if (score := dense.score or pruned.score) else "score",
            *_both(verification, lambda c: units.score(c.score)),
            units.score_change(dense.score, pruned.score) or "no data",
        ),
        *_fp32_rows(verification),
        *_part_rows(dense.score, pruned.score),
    ]


def _reading_rows(verification: Verification) -> list[tuple[str, str, str, str]]:
    """The time on the host behind the engines, which their latencies leave out."""
    steps = [check.reading for check in (verification.dense, verification.pruned)]
    name = next((step.name for step in steps if step is not None), None)
    if name is None:
        return []
    before, after = (None if step is None else step.latency_us for step in steps)
    return [(f"{name}, on the host", units.latency(before), units.latency(after), "")]


def _difference_rows(verification: Verification) -> Iterator[tuple[str, str, str, str]]:
    """The difference of each of several outputs from the masked model's."""
    for name, difference in verification.output_differences.items():
        yield f"{name} off the masked model", "", f"{difference:.1e}", ""


def _fp32_rows(verification: Verification) -> list[tuple[str, str, str, str]]:
    """The score that the pruned network has in fp32, and what its engine's precision changes of it."""
    pruned, whole = verification.pruned.score, verification.fp32_score
    if whole is None:
        return []
    precision = verification.target.precision
    change = units.score_change(whole, pruned)
    return [(f"{whole.name} in fp32", "", units.score(whole), f"{change} in {precision}" if change else "")]


def _part_rows(dense: Score | None, pruned: Score | None) -> Iterator[tuple[str, str, str, str]]:
    """The further numbers of a score, such as the average precision of each class."""
    if dense is None or pruned is None:
        return
    for name in dict.fromkeys((*dense.parts, *pruned.parts)):
        before, after = (replace(one, value=one.parts[name]) if name in one.parts else None for one in (dense, pruned))
        yield f"\N{MIDDLE DOT} {name}", units.score(before), units.score(after), units.score_change(before, after)


def _kernel_rows(verification: Verification) -> list[tuple[str, str, str, str]]:
    dense_us, pruned_us = verification.dense.kernels_us, verification.pruned.kernels_us
    if pruned_us is None:
        return []
    shown = _both(verification, lambda c: units.latency(c.kernels_us or 0.0))
    return [("sum of its kernels", *shown, _speedup(dense_us, pruned_us))]


def _speedup(dense_us: float | None, pruned_us: float | None) -> str:
    if not (dense_us and pruned_us):
        return ""
    return f"{dense_us / pruned_us:.2f}× faster" if dense_us >= pruned_us else f"{pruned_us / dense_us:.2f}× slower"


def _witness_rows(verification: Verification) -> list[tuple[str, str, str, str]]:
    if verification.pruned.witness_difference is None:
        return []
    return [("off ONNX Runtime", *_both(verification, lambda c: f"{c.witness_difference:.1e}"), "")]


def _both(verification: Verification, show: Callable[[EngineCheck], str]) -> tuple[str, str]:
    return show(verification.dense), show(verification.pruned)
