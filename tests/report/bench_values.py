"""Results and baselines of the gate, made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from halp_trt.gate import (
    CANNOT_TELL,
    SLOWER,
    WITHIN,
    Against,
    Baseline,
    Baselines,
    BenchResult,
    EngineResult,
    Kept,
    ProcessTiming,
    Series,
    Setup,
)
from tests.report.values import TARGET, measurement

SETUP = Setup(target=TARGET, shapes={"input": (2, 3, 32, 32)}, host="a1b2")


def against(
    ratio: float, low: float | None = None, high: float | None = None, answer: str = WITHIN, **more: Any
) -> Against:
    return Against(**{"baseline": "newest", "said": answer, **more}, answer=answer, ratio=ratio, low=low, high=high)


def engine(name: str = "net", *comparisons: Against, **more: Any) -> EngineResult:
    given = {
        "sha256": "ab" * 32,
        "started": "2026-11-29T06:00:00+00:00",
        "setup": SETUP,
        "num_processes": 8,
        "latency_us": 250.0,
        "low_us": 248.0,
        "high_us": 252.0,
        "limit_fraction": 0.03,
    }
    return EngineResult(name=name, against=comparisons, **{**given, **more})


RED = engine("resnet20-pruned", against(1.051, 1.042, 1.060, SLOWER, least_shown_fraction=0.0412))
GREY = engine(
    "mobilenet",
    against(1.025, 1.008, 1.042, CANNOT_TELL, suspects=("driver: the baseline has 550.1, here is 560.2",)),
    reason="the bounds lie on both sides of the limit after 32 processes",
    doubts=("the clock moved by 5 %",),
)
GREEN = engine("vgg", against(0.95, 0.94, 0.961, said="faster", is_paired=False, floor=0.01))
NEW = engine("fresh")
ALONE = engine(
    "hasty", against(1.2, answer=CANNOT_TELL, least_shown_fraction=None), num_processes=1, low_us=None, high_us=None
)
"""An engine of which a single process says next to nothing."""
BENCH = BenchResult(engines=(GREEN, RED, GREY, NEW), seconds=34.4, note="the baseline's file stays as it was")


def series(day: str, *latencies_us: float) -> Series:
    processes = tuple(
        ProcessTiming(started=f"{day}T06:00:00+00:00", boot="b", engine=measurement(us)) for us in latencies_us
    )
    return Series(processes=processes)


NEWEST = Baseline(
    sha256="cd" * 32,
    num_bytes=1_500_000,
    setup=SETUP,
    series=(series("2026-11-28", 249.0, 251.0), series("2026-11-29", 250.0, 250.0)),
    file="bench/vgg.onnx",
    reference_file="bench/reference.onnx",
    reason="the new head needs it",
    version="0.2.0",
)
OLDEST = replace(NEWEST, series=(series("2026-10-01", 240.0, 240.0),), file="", reference_file="", reason="")
BASELINES = Baselines(engines={"vgg": Kept(newest=NEWEST, oldest=OLDEST), "net": Kept(newest=OLDEST)})
