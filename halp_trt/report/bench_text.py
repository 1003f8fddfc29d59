"""The results of the throughput gate and its baselines as sentences; the other forms of a result use these, too.

Names, reasons and devices come from files that others may have written. They pass through :func:`clean`, so that none
of them moves a terminal's cursor or gives a CI system a command.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from halp_trt.gate import ANSWERS, WITHIN, Against, Baseline, Baselines, BenchResult, EngineResult, Kept
from halp_trt.report import units
from halp_trt.texts import printable

__all__ = [
    "clean",
    "counted",
    "describe_baselines",
    "describe_bench",
    "details",
    "engine_name",
    "headline",
    "limit_text",
    "said",
    "sentence",
    "throughput_text",
    "unknown_bounds",
    "worst_first",
]

_MOST_NAME = 120
"""Characters of an engine's name, or of an answer, that are shown."""
_MOST_LINE = 600
"""Characters of a line that are shown."""
_MOST_DECIMALS = 3
"""Decimals of a percentage, at most."""
_WIDEST = 100.0
"""The greatest ratio of two bounds that are worth being shown."""
_CI_COMMAND = re.compile(r"##(?=\w*\[)")
"""The opening of a command to Azure, TeamCity or an old GitHub runner, which may stand anywhere in a line."""


def clean(text: str, most: int = _MOST_LINE) -> str:
    """A text as one line without anything invisible: such characters stand as escapes, spaces are drawn together.

    A line that begins like a command to a CI system is changed so that it is none.

    Args:
        text: the text, by whomever.
        most: the largest number of characters; the rest becomes an ellipsis.
    """
    line = _CI_COMMAND.sub("# #", printable(" ".join(text.split())))
    line = f": {line[1:]}" if line.startswith("::") else line
    return line if len(line) <= most else f"{line[: most - 1]}…"


# ---- a result -------------------------------------------------------------------------------------------------------


def describe_bench(result: BenchResult) -> str:
    """The result of a gate in words: for every engine its answer first, then the figures behind it."""
    blocks = []
    for engine in result.engines:
        lines = [clean(f"{engine_name(engine)}: {sentence(engine)}"), *(f"  {line}" for line in details(engine))]
        blocks.append("\n".join(lines))
    footer = [headline(result)] if len(result.engines) != 1 else []
    footer += [f"took {result.seconds:.0f} s"] if result.seconds else []
    footer += [clean(result.note)] if result.note else []
    return "\n\n".join([*blocks, *(["\n".join(footer)] if footer else [])])


def headline(result: BenchResult) -> str:
    """The answer about all engines in one line, with the number of those that it is about."""
    judged = [engine for engine in result.engines if engine.against]
    if not judged:
        return "measured without a baseline"
    if len(judged) == 1:
        return said(judged[0])
    if result.answer == WITHIN:
        accepted = sum(engine.answer != WITHIN for engine in judged)
        return f"{WITHIN}: all {len(judged)} engines{f', {accepted} of them by being accepted' if accepted else ''}"
    number = sum(counted(engine) == result.answer for engine in judged)
    return f"{result.answer}: {number} of {len(judged)} engines"


def worst_first(result: BenchResult) -> list[EngineResult]:
    """The engines of a result, slower ones first, of equal answers the greatest ratio first."""
    return sorted(
        result.engines,
        key=lambda engine: (ANSWERS.index(counted(engine)), -engine.worst.ratio if engine.worst else math.inf),
    )


def counted(engine: EngineResult) -> str:
    """The answer that counts: an engine that was accepted counts as one within the limit."""
    return WITHIN if engine.accepted else engine.answer


def engine_name(engine: EngineResult) -> str:
    """The engine's name, in one line and not too long."""
    return clean(engine.name, _MOST_NAME)


def said(engine: EngineResult) -> str:
    """The answer about an engine in words; empty without a baseline."""
    if engine.worst is None:
        return ""
    return clean(engine.worst.said, _MOST_NAME) + (", accepted" if counted(engine) != engine.answer else "")


def limit_text(engine: EngineResult) -> str:
    """``3 %``: the largest accepted slowdown, as it was asked for."""
    return f"{100 * engine.limit_fraction:g} %"


def sentence(engine: EngineResult) -> str:
    """The answer about an engine and the figures that it rests on; its throughput alone without a baseline."""
    if engine.worst is None:
        return clean(_measured(engine))
    return clean(f"{said(engine)}: {_compared(engine, engine.worst)}")


def details(engine: EngineResult) -> list[str]:
    """The lines below an engine's answer: throughput, the way it was compared, reasons, suspects, doubts, target."""
    lines = [] if engine.worst is None else [_measured(engine)]
    for one in engine.against:
        if one is not engine.worst:
            lines += [f"{one.said}: {_compared(engine, one)}", *_way(one)]
    if engine.worst is not None:
        lines += [*_way(engine.worst), *_reach(engine.worst)]
    lines += [f"reason: {engine.reason}"] if engine.reason else []
    lines += [f"accepted as its new baseline: {engine.accepted}"] if engine.accepted else []
    suspects = dict.fromkeys(suspect for one in engine.against for suspect in one.suspects)
    lines += [f"suspect: {suspect}" for suspect in suspects]
    lines += [f"doubt: {doubt}" for doubt in engine.doubts]
    lines.append(f"on {units.target_line(engine.setup.target)}")
    return [clean(line) for line in lines]


def throughput_text(engine: EngineResult) -> str:
    """``4,051 images/s (4,020 to 4,082)``; without bounds where there are none to show."""
    batch, bounds = engine.setup.target.batch_size, engine.bounds_us
    middle = f"{_rate(batch, engine.latency_us)} images/s"
    if bounds is None or unknown_bounds(engine, bounds):
        return middle
    return f"{middle} ({_rate(batch, bounds[1])} to {_rate(batch, bounds[0])})"


def unknown_bounds(engine: EngineResult, bounds: tuple[float, float] | None) -> str:
    """``not known from one process``; empty if some bounds of an engine are known well enough to be shown."""
    if bounds is not None and bounds[1] <= _WIDEST * bounds[0]:
        return ""
    return f"not known from {_processes(engine)}"


def _measured(engine: EngineResult) -> str:
    bounds, unknown = engine.bounds_us, unknown_bounds(engine, engine.bounds_us)
    latency = f"latency {units.latency(engine.latency_us)}"
    if bounds is None or unknown:
        return f"{throughput_text(engine)}, {latency}, bounds {unknown}"
    latency = f"{latency} ({units.latency(bounds[0])} to {units.latency(bounds[1])})"
    return f"{throughput_text(engine)}, {latency}, over {_processes(engine)}"


def _processes(engine: EngineResult) -> str:
    return "one process" if engine.num_processes == 1 else f"{engine.num_processes} processes"


def _rate(batch_size: int, us: float) -> str:
    if not us > 0:
        return "–"
    rate = batch_size * 1e6 / us
    return f"{rate:,.{0 if rate >= 100 else 1 if rate >= 10 else 2}f}"


def _compared(engine: EngineResult, one: Against) -> str:
    """``5.1 % slower than its baseline (4.2 to 6.0 %), limit 3 %``."""
    unknown = unknown_bounds(engine, one.bounds)
    decimals = 1 if one.bounds is None or unknown else _decimals(one.bounds, engine.limit_fraction)
    bounds = f"bounds {unknown}" if one.bounds is None or unknown else _bounds(one.bounds, decimals)
    change = _change(one.ratio, decimals)
    than = f"as fast as its {_role(one)}" if not change else f"{change} than its {_role(one)}"
    return f"{than} ({bounds}), limit {100 * engine.limit_fraction:g} %"


def _role(one: Against) -> str:
    return "baseline" if one.baseline == "newest" else f"{one.baseline} baseline"


def _bounds(bounds: tuple[float, float], decimals: int) -> str:
    low, high = bounds
    if low >= 1:
        return f"{_points(low, decimals)} to {_points(high, decimals)} %"
    if high <= 1:
        return f"{_points(high, decimals)} to {_points(low, decimals)} %"
    least, most = (_change(bound, decimals) or "as fast" for bound in bounds)
    return f"{least} to {most}"


def _change(ratio: float, decimals: int) -> str:
    """``5.1 % slower``; empty if it is neither slower nor faster by as many decimals."""
    points = _points(ratio, decimals)
    return f"{points} % {'slower' if ratio > 1 else 'faster'}" if float(points) else ""


def _points(ratio: float, decimals: int) -> str:
    """The distance of a ratio from 1 in percent, without its sign."""
    return f"{abs(ratio - 1) * 100:.{decimals}f}"


def _decimals(bounds: tuple[float, float], limit: float) -> int:
    """The fewest decimals that show on which side of the limit, and of no change, bounds lie."""
    edges = [edge for edge in (1.0, 1.0 + limit) if edge not in bounds]
    for decimals in range(1, _MOST_DECIMALS):
        shown = [f"{(bound - 1) * 100:.{decimals}f}" for bound in bounds]
        if not {float(bound) for bound in shown} & {float(f"{(edge - 1) * 100:.{decimals}f}") for edge in edges}:
            return decimals
    return _MOST_DECIMALS


def _way(one: Against) -> Iterator[str]:
    """The way in which an engine was compared with one baseline, and why it was not the best way."""
    if one.is_paired:
        yield f"took turns with the {_role(one)}'s engine in every process"
        return
    record = f"the {_role(one)}'s record"
    way = f"{record} through the reference" if one.is_by_reference else f"the latency in {record} as it is"
    why = f": {one.why_stored}" if one.why_stored else ""
    yield f"compared with {way}, since the {_role(one)}'s engine did not run here{why}"


def _reach(one: Against) -> Iterator[str]:
    """The width that was added to the bounds, and the least slowdown that such a run would have shown."""
    if one.floor:
        yield f"bounds are {100 * one.floor:g} % wider on either side than its processes alone would make them"
    least = one.least_shown_fraction
    if least is None or least > _WIDEST:
        yield "no slowdown would have been called slower: too few processes, or too different ones"
    elif least:
        yield f"a slowdown of {units.percent(least, 1)} would have been called slower in nine of ten such runs"


# ---- baselines ------------------------------------------------------------------------------------------------------


def describe_baselines(baselines: Baselines) -> str:
    """A file of baselines in words: of every engine the newest and the oldest."""
    if not baselines.engines:
        return "no baselines yet: halp-trt bench --save writes them"
    number = len(baselines.engines)
    head = f"Baselines of {number} engine{'' if number == 1 else 's'}"
    return "\n\n".join([head, *(_kept(name, kept) for name, kept in sorted(baselines.engines.items()))])


def _kept(name: str, kept: Kept) -> str:
    both = (("newest", kept.newest), ("oldest", kept.oldest))
    lines = [clean(name, _MOST_NAME)]
    for role, baseline in both:
        if baseline is not None:
            lines += [f"  {clean(f'{role}: {_timings(baseline)}')}", *(f"    {clean(x)}" for x in _facts(baseline))]
    return "\n".join([*lines, *(["  oldest: the same"] if kept.oldest is None else [])])


def _timings(baseline: Baseline) -> str:
    processes = [process for series in baseline.series for process in series.processes]
    latency_us = sum(process.engine.latency_us for process in processes) / len(processes)
    days = sorted({series.started[:10] for series in baseline.series})
    dates = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{_rate(baseline.setup.target.batch_size, latency_us)} images/s, latency {units.latency(latency_us)}, "
        f"over {len(processes)} process{'' if len(processes) == 1 else 'es'} in {len(baseline.series)} series, {dates}"
    )


def _facts(baseline: Baseline) -> Iterator[str]:
    yield f"on {units.target_line(baseline.setup.target)}"
    yield f"engine of {units.size(baseline.num_bytes)}, SHA-256 {units.short_sha(baseline.sha256)}"
    copies = [f"{role} in {file}" for role, file in (("engine", baseline.file), ("reference", baseline.reference_file))]
    kept = [copy for copy, file in zip(copies, (baseline.file, baseline.reference_file), strict=True) if file]
    yield f"copies: {', '.join(kept)}" if kept else "no copy of the engine: later ones are compared with the record"
    if baseline.reason:
        yield f"accepted although slower: {baseline.reason}"
    if baseline.version:
        yield f"timed by halp-trt {baseline.version}"
