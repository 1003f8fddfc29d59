"""The gate's history: its engines' series, as plain text and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from halp_trt.gate import REFUSED, SLOWER, EngineResult, History, Setup
from halp_trt.gate.changes import change_points
from halp_trt.report import units
from halp_trt.report.bench_text import unknown_bounds

__all__ = [
    "NO_BASELINE",
    "EngineSeries",
    "answer_of",
    "bounds_of",
    "date_of",
    "describe_history",
    "engine_series",
    "history_rows",
    "level",
    "limit_of",
    "rate",
    "ratios_of",
    "size_of",
    "throughput_of",
]

NO_BASELINE = "no baseline"
"""The word for a result that was compared with nothing."""
_MOST_ROWS = 200
_MOST_SERIES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeries:
    """The results of one engine under equal circumstances, in the order of their dates.

    Attributes:
        title: the engine's name, and the circumstances in which it differs from its other series.
        results: its results.
    """

    title: str
    results: tuple[EngineResult, ...]

    def changes(self) -> tuple[int, ...]:
        """The indices of the results with which the throughput became another one."""
        return change_points([math.log(throughput_of(one)) for one in self.results])


def throughput_of(result: EngineResult) -> float:
    """Pictures in a second; infinity where the latency is none."""
    return 1e6 * result.setup.target.batch_size / result.latency_us if result.latency_us > 0 else math.inf


def bounds_of(result: EngineResult) -> tuple[float, float] | None:
    """The bounds of the pictures in a second; None where they are not known, or too wide to tell anything."""
    bounds = result.bounds_us
    if bounds is None or unknown_bounds(result, bounds):
        return None
    pictures = 1e6 * result.setup.target.batch_size
    return pictures / bounds[1], pictures / bounds[0]


def ratios_of(result: EngineResult) -> tuple[float, float] | None:
    """The bounds of the ratio to the baseline that decides; None without one, or as for :func:`bounds_of`."""
    bounds = result.worst.bounds if result.worst is not None else None
    return None if unknown_bounds(result, bounds) else bounds


def limit_of(result: EngineResult) -> float | None:
    """The throughput below which the engine would be slower than a baseline by more than the limit.

    It follows from the ratio to each baseline; the highest counts. None without a baseline.
    """
    speed = throughput_of(result)
    limits = [speed * one.ratio / (1 + result.limit_fraction) for one in result.against]
    return max((one for one in limits if 0 < one < math.inf), default=None)


def answer_of(result: EngineResult) -> str:
    """The answer, or that there was no baseline."""
    return result.answer if result.against else NO_BASELINE


def engine_series(history: History) -> list[EngineSeries]:
    """The series of a history, those whose last result is newest first; results without a throughput are in none."""
    found: dict[tuple[str, ...], list[EngineResult]] = {}
    for one in history.results:
        if 0 < throughput_of(one) < math.inf:
            found.setdefault((one.name, *_facts(one.setup)), []).append(one)
    facts_of: dict[str, list[tuple[str, ...]]] = {}
    for name, *facts in found:
        facts_of.setdefault(name, []).append(tuple(facts))
    series = []
    for (name, *facts), results in found.items():
        others = facts_of[name]
        differs = [value for value, *values in zip(facts, *others, strict=True) if len(set(values)) > 1]
        title = ", ".join([name, *(value or "none" for value in differs)])
        series.append(EngineSeries(title=title, results=tuple(sorted(results, key=lambda one: one.started))))
    return sorted(series, key=lambda one: one.results[-1].started, reverse=True)


def _facts(setup: Setup) -> list[str]:
    return [read(setup) for read in REFUSED.values()]


# ---- text -----------------------------------------------------------------------------------------------------------


def describe_history(history: History) -> str:
    """A history in words: its engines with their changes, and a row for each of the newest results."""
    if not history.results:
        return "A history of the throughput gate without results"
    series = engine_series(history)
    num_slower = sum(one.answer == SLOWER for one in history.results)
    head = f"History of the throughput gate: {size_of(history)}, {num_slower} slower"
    lines = [line for one in series[:_MOST_SERIES] for line in _changes(one)]
    if len(series) > _MOST_SERIES:
        lines.append(f"changes of {len(series) - _MOST_SERIES} more engines were not looked for")
    more = len(history.results) - _MOST_ROWS
    earlier = f"\n... and {units.count(more)} earlier ones; all of them with --json" if more > 0 else ""
    table = units.columns(history_rows(history.results[-_MOST_ROWS:]), right_from=3)
    return "\n\n".join(["\n".join([head, *lines]), table]) + earlier


def size_of(history: History) -> str:
    """``120 results of 2 engines``."""
    number, names = len(history.results), {one.name for one in history.results}
    return (
        f"{units.count(number)} result{'' if number == 1 else 's'} of {len(names)} "
        f"engine{'' if len(names) == 1 else 's'}"
    )


def _changes(series: EngineSeries) -> list[str]:
    lines, edges = [], [0, *series.changes(), len(series.results)]
    for before, at, after in zip(edges, edges[1:], edges[2:], strict=False):
        change = level(series.results[at:after]) / level(series.results[before:at]) - 1
        lines.append(
            f"{series.title}: throughput changed by {units.signed_percent(change)} with {date_of(series.results[at])}"
        )
    return lines


def level(results: Sequence[EngineResult]) -> float:
    """The geometric mean of the throughputs."""
    return math.exp(math.fsum(math.log(throughput_of(one)) for one in results) / len(results))


def date_of(result: EngineResult) -> str:
    """The date and the minute of a result."""
    return result.started[:16].replace("T", " ")


def history_rows(results: Sequence[EngineResult]) -> list[Sequence[str]]:
    """One row for each result, the heading first."""
    rows: list[Sequence[str]] = [("date", "engine", "answer", "images/s", "95 % bounds", "latency", "ratio", "bounds")]
    for one in results:
        worst, bounds, ratios = one.worst, bounds_of(one), ratios_of(one)
        rows.append(
            (
                date_of(one),
                one.name,
                worst.said if worst else NO_BASELINE,
                rate(throughput_of(one)),
                f"{rate(bounds[0])} – {rate(bounds[1])}" if bounds else unknown_bounds(one, one.bounds_us),
                units.latency(one.latency_us),
                f"{worst.ratio:.4f}" if worst else "–",
                f"{ratios[0]:.4f} – {ratios[1]:.4f}" if ratios else "not known" if worst else "–",
            )
        )
    return rows


def rate(speed: float) -> str:
    """``4,115``, or with decimals where there are few."""
    if math.isinf(speed):
        return "∞"
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.2f}"
