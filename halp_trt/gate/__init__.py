"""The throughput gate: its rule, its records, and what may be compared. Numbers and values alone.

``rule`` judges, ``setup`` says what may be compared, ``record`` holds baselines and verdicts.
"""

from halp_trt.gate.record import (
    Against,
    Baseline,
    Baselines,
    BenchResult,
    EngineResult,
    History,
    Kept,
    ProcessTiming,
    Series,
)
from halp_trt.gate.rule import (
    ANSWERS,
    CANNOT_TELL,
    FASTER,
    LOOKS,
    SAME,
    SLOWER,
    WITHIN,
    Decision,
    Evidence,
    Interval,
    Rule,
    decide,
    said,
    stored_floor,
)
from halp_trt.gate.setup import REFUSED, WARNED, Difference, Setup, check_comparable, differences
from halp_trt.gate.stored import floor_of, log_latency, stored_logs

__all__ = [
    "ANSWERS",
    "CANNOT_TELL",
    "FASTER",
    "LOOKS",
    "REFUSED",
    "SAME",
    "SLOWER",
    "WARNED",
    "WITHIN",
    "Against",
    "Baseline",
    "Baselines",
    "BenchResult",
    "Decision",
    "Difference",
    "EngineResult",
    "Evidence",
    "History",
    "Interval",
    "Kept",
    "ProcessTiming",
    "Rule",
    "Series",
    "Setup",
    "check_comparable",
    "decide",
    "differences",
    "floor_of",
    "log_latency",
    "said",
    "stored_floor",
    "stored_logs",
]
