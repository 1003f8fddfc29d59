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
    "worst_first",
]

_MOST_NAME = 120
"""Characters of an engine's name, or of an answer, that are shown."""
_MOST_LINE = 600
"""Characters of a line that are shown."""
_MOST_DECIMALS = 3
"""Decimals of a percentage, at most."""
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
    return clean(f"{said(engine)}: {_compared(engine.worst, engine.limit_fraction)}")


def details(engine: EngineResult) -> list[str]:
    """The lines below an engine's answer: throughput, the way it was compared, reasons, suspects, doubts, target."""
    lines = [] if engine.worst is None else [_measured(engine)]
    for one in engine.against:
        if one is not engine.worst:
            lines.append(f"{one.said}: {_compared(one, engine.limit_fraction)}")
    if engine.worst is not None:
        lines += _mode(engine.worst)
    lines += [f"reason: {engine.reason}"] if engine.reason else []
    lines += [f"accepted as its new baseline: {engine.accepted}"] if engine.accepted else []
    suspects = dict.fromkeys(suspect for one in engine.against for suspect in one.suspects)
    lines += [f"suspect: {suspect}" for suspect in suspects]
    lines += [f"doubt: {doubt}" for doubt in engine.doubts]
    lines.append(f"on {units.target_line(engine.setup.target)}")
    return [clean(line) for line in lines]


def throughput_text(engine: EngineResult) -> str:
    """``4,051 images/s (4,020 to 4,082)``; without bounds where there are none."""
    batch = engine.setup.target.batch_size
    middle, low, high = (_rate(batch, us) for us in (engine.latency_us, engine.high_us, engine.low_us))
    return f"{middle} images/s ({low} to {high})" if _is_bounded(engine) else f"{middle} images/s"


def _measured(engine: EngineResult) -> str:
    shown = units.latency(engine.latency_us)
    bounds = f" ({units.latency(engine.low_us)} to {units.latency(engine.high_us)})" if _is_bounded(engine) else ""
    processes = "1 process" if engine.num_processes == 1 else f"{engine.num_processes} processes"
    return f"{throughput_text(engine)}, latency {shown}{bounds}, over {processes}"


def _is_bounded(engine: EngineResult) -> bool:
    """True if the latency has bounds, and such as a latency can have: too few processes have none."""
    return 0 < engine.low_us < engine.high_us < math.inf


def _rate(batch_size: int, us: float) -> str:
    if not us > 0:
        return "–"
    rate = batch_size * 1e6 / us
    return f"{rate:,.{0 if rate >= 100 else 1 if rate >= 10 else 2}f}"


def _compared(one: Against, limit: float) -> str:
    """``5.1 % slower than its baseline (4.2 to 6.0 %), limit 3 %``."""
    oldest = "" if one.baseline == "newest" else f"{one.baseline} "
    decimals = _decimals(one, limit)
    change = _change(one.ratio, decimals)
    than = f"as fast as its {oldest}baseline" if not change else f"{change} than its {oldest}baseline"
    return f"{than} ({_bounds(one, decimals)}), limit {100 * limit:g} %"


def _bounds(one: Against, decimals: int) -> str:
    if not (one.low > 0 and math.isfinite(one.high)):
        return "bounds unknown"
    if one.low >= 1:
        return f"{_points(one.low, decimals)} to {_points(one.high, decimals)} %"
    if one.high <= 1:
        return f"{_points(one.high, decimals)} to {_points(one.low, decimals)} %"
    low, high = (_change(bound, decimals) or "as fast" for bound in (one.low, one.high))
    return f"{low} to {high}"


def _change(ratio: float, decimals: int) -> str:
    """``5.1 % slower``; empty if it is neither slower nor faster by as many decimals."""
    points = _points(ratio, decimals)
    return f"{points} % {'slower' if ratio > 1 else 'faster'}" if float(points) else ""


def _points(ratio: float, decimals: int) -> str:
    """The distance of a ratio from 1 in percent, without its sign."""
    return f"{abs(ratio - 1) * 100:.{decimals}f}"


def _decimals(one: Against, limit: float) -> int:
    """The fewest decimals that show on which side of the limit, and of no change, the bounds lie."""
    edges = [edge for edge in (1.0, 1.0 + limit) if edge not in (one.low, one.high)]
    for decimals in range(1, _MOST_DECIMALS):
        bounds = [f"{(bound - 1) * 100:.{decimals}f}" for bound in (one.low, one.high)]
        if not {float(bound) for bound in bounds} & {float(f"{(edge - 1) * 100:.{decimals}f}") for edge in edges}:
            return decimals
    return _MOST_DECIMALS


def _mode(one: Against) -> Iterator[str]:
    """The way an engine was compared with its baseline, and the least slowdown that this would have shown."""
    if one.is_paired:
        yield "took turns with the baseline's engine in every process"
    else:
        yield "compared with the baseline's record through the reference: the baseline's engine did not run here"
    if one.floor:
        yield f"bounds are {100 * one.floor:g} % wider on either side than its processes alone would make them"
    least = one.least_shown_fraction
    if least and math.isfinite(least):
        yield f"a slowdown of {units.percent(least, 1)} would have been called slower in nine of ten such runs"
    elif least:
        yield "no slowdown would have been called slower: too few processes"


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
