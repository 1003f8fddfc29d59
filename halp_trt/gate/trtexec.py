"""The values in files that trtexec writes: the queries of ``--exportTimes``, the layers of ``--exportProfile``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from halp_trt.errors import UsageError

__all__ = ["LayerProfile", "LayerProfiles", "QueryRun", "QueryRuns", "QuerySummary", "TimedLayer"]

_NUM_PARTS = 10
"""Consecutive parts of a run whose medians show its drift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuerySummary:
    """The numbers of a run.

    Attributes:
        num_queries: its queries.
        latency_us, p10_us, p90_us: median and percentiles of the latencies, copies included.
        compute_us: median of the times on the device alone; None where the file has none.
        queries_per_second: queries over the time from the first start to the last end; None where the file does not
            tell it.
        parts_us: medians of ten consecutive parts; empty for fewer queries than twenty.
        drift_fraction: distance of the highest of them from the lowest, over the median; None without parts.
        autocorrelation: correlation of each latency with the next one; None where it has no meaning.
    """

    num_queries: int
    latency_us: float
    p10_us: float
    p90_us: float
    compute_us: float | None = None
    queries_per_second: float | None = None
    parts_us: tuple[float, ...] = ()
    drift_fraction: float | None = None
    autocorrelation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRun:
    """The queries of one run, in order.

    Attributes:
        latencies_us: their latencies, from the first copy to the last.
        computes_us: their times on the device alone; empty where the file has none.
        seconds: time from the first start to the last end; None where the file does not tell it.
    """

    latencies_us: tuple[float, ...]
    computes_us: tuple[float, ...] = ()
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.latencies_us:
            raise UsageError("a run has at least one query")
        if not all(math.isfinite(us) and us >= 0 for us in (*self.latencies_us, *self.computes_us)):
            raise UsageError("a query's times are numbers of at least 0")

    def summary(self) -> QuerySummary:
        """The median, the spread, the throughput and the drift."""
        latencies = np.asarray(self.latencies_us)
        median = float(np.median(latencies))
        parts: tuple[float, ...] = ()
        if len(latencies) >= 2 * _NUM_PARTS:
            parts = tuple(float(np.median(part)) for part in np.array_split(latencies, _NUM_PARTS))
        return QuerySummary(
            num_queries=len(latencies),
            latency_us=median,
            p10_us=float(np.percentile(latencies, 10)),
            p90_us=float(np.percentile(latencies, 90)),
            compute_us=float(np.median(self.computes_us)) if self.computes_us else None,
            queries_per_second=len(latencies) / self.seconds if self.seconds else None,
            parts_us=parts,
            drift_fraction=(max(parts) - min(parts)) / median if parts and median else None,
            autocorrelation=self._autocorrelation(),
        )

    def _autocorrelation(self) -> float | None:
        """The lag-1 autocorrelation, None for fewer than three queries or equal ones."""
        away = np.asarray(self.latencies_us) - np.mean(self.latencies_us)
        total = float(away @ away)
        return float(away[:-1] @ away[1:]) / total if len(away) > 2 and total > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRuns:
    """A file of ``--exportTimes``.

    Attributes:
        runs: its runs; trtexec writes one, scripts append several to a file.
    """

    runs: tuple[QueryRun, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedLayer:
    """One layer of a profile.

    Attributes:
        name: its name in the engine.
        mean_us: mean time of a run.
        median_us: median time of a run; None where the file has none, as before TensorRT 8.
    """

    name: str
    mean_us: float
    median_us: float | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(us) and us >= 0 for us in (self.mean_us, self.median_us or 0.0)):
            raise UsageError(f"the times of layer {self.name!r} are numbers of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """The layers of one profile.

    Attributes:
        num_runs: runs of the engine that it sums up.
        layers: its layers, in the engine's order.
    """

    num_runs: int
    layers: tuple[TimedLayer, ...]

    def __post_init__(self) -> None:
        if not self.layers:
            raise UsageError("a profile has at least one layer")

    @property
    def total_us(self) -> float:
        """The sum of the layers' mean times."""
        return math.fsum(layer.mean_us for layer in self.layers)

    def slowest(self) -> tuple[tuple[TimedLayer, float], ...]:
        """The layers and their shares of the total, the slowest first."""
        total = self.total_us
        ordered = sorted(self.layers, key=lambda layer: -layer.mean_us)
        return tuple((layer, layer.mean_us / total if total else 0.0) for layer in ordered)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfiles:
    """A file of ``--exportProfile``.

    Attributes:
        profiles: its profiles; trtexec writes one, scripts append several to a file.
    """

    profiles: tuple[LayerProfile, ...]
