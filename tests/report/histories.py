"""Histories of the gate: seeded results of engines that become slower, faster, and slower again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from halp_trt.gate import CANNOT_TELL, SLOWER, WITHIN, Against, EngineResult, History, Setup
from tests.report.values import TARGET

SETUP = Setup(target=TARGET, shapes={"input": (2, 3, 8, 8)})
STEPS = ((20, 1000.0), (15, 1080.0), (25, 950.0))
"""Numbers of results and their latency in microseconds."""


def result(name: str, started: str, latency_us: float, baseline_us: float | None = 1000.0) -> EngineResult:
    """One result, whose latency is known to half a percent."""
    against = ()
    if baseline_us is not None:
        ratio = latency_us / baseline_us
        low, high = ratio * 0.99, ratio * 1.01
        answer = SLOWER if low > 1.03 else WITHIN if high <= 1.03 else CANNOT_TELL
        against = (Against(baseline="newest", answer=answer, said=answer, ratio=ratio, low=low, high=high),)
    return EngineResult(
        name=name, sha256="ab" * 32, started=started, setup=SETUP, num_processes=8, latency_us=latency_us,
        low_us=latency_us * 0.995, high_us=latency_us * 1.005, limit_fraction=0.03, against=against,
    )  # fmt: skip


def history(names: tuple[str, ...] = ("resnet18.plan", "mobilenet.plan"), times: int = 1) -> History:
    """Sixty results of each engine for each of ``times``; the first has no baseline, and two share a date."""
    generator, results = np.random.default_rng(0), []
    for number, (step, name) in enumerate((step, name) for step in STEPS for name in names for _ in range(1)):
        start = sum(size for size, _ in STEPS[: number // len(names)]) * times
        for index in range(step[0] * times):
            day = start + index
            started = f"2026-{1 + day // 28 % 12:02}-{1 + day % 28:02}T08:00:00+00:00"
            latency = step[1] * float(np.exp(generator.normal(0, 0.004)))
            results.append(result(name, started, latency, 1000.0 if day else None))
    results[1] = replace(results[1], started=results[0].started)
    return History(results=tuple(results))
