"""The facts in a log that trtexec printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from halp_trt.gate.trtexec import LayerProfile

__all__ = ["PrintedTime", "TrtexecLog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintedTime:
    """One line of the performance summary, in microseconds; None where it lacks a number.

    Attributes:
        least_us, most_us, mean_us, median_us: over the queries.
    """

    least_us: float | None = None
    most_us: float | None = None
    mean_us: float | None = None
    median_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecLog:
    """A log.

    Attributes:
        version: TensorRT's version, ``8.5.2`` say; empty where the log does not tell it.
        command: the command line; empty likewise.
        outcome: ``passed``, ``failed``, or empty for a log without an end.
        facts: what it says of options, device and engine, by its own words (``Selected Device``, ``CUDA Graph``).
        times: lines of the performance summary by name (``GPU Compute Time``, ``Latency``); none without a run.
        queries_per_second: the throughput; None without a run.
        profiles: profiles that it printed.
        warnings, errors: its own lines of these kinds, each once, in order.
        num_lines: its lines in all.
    """

    version: str = ""
    command: str = ""
    outcome: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    times: Mapping[str, PrintedTime] = field(default_factory=dict)
    queries_per_second: float | None = None
    profiles: tuple[LayerProfile, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    num_lines: int = 0

    def __post_init__(self) -> None:
        for name in ("facts", "times"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
