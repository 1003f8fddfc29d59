"""A result of the throughput gate as JUnit XML, which GitLab, Jenkins and others read: one test case an engine."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from halp_trt.errors import UsageError
from halp_trt.gate import CANNOT_TELL, SLOWER, BenchResult, EngineResult
from halp_trt.report import units
from halp_trt.report.bench_text import (
    clean,
    counted,
    details,
    engine_name,
    headline,
    said,
    sentence,
    unknown_bounds,
)

__all__ = ["junit_xml"]

_SUITE = "halp-trt.bench"
"""Name of the suite and class of its cases; Jenkins takes the part before the point for a package."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
"""A moment as the schemas of JUnit allow it: without a zone."""
_ANSWERS_OF_CASES = ("", "pass", "fail")
"""The ways to report an engine of which nothing can be told."""


def junit_xml(result: BenchResult, cannot_tell: str = "") -> str:
    """Returns the XML; it is to be written as UTF-8.

    A slower engine is a failure; one within the limit, without a baseline or accepted passes. All time is shared out
    over the engines, since they take turns.

    Args:
        result: the result.
        cannot_tell: an engine of which nothing can be told is skipped by default; ``pass`` lets it pass, ``fail``
            makes it a failure.

    Raises:
        UsageError: ``cannot_tell`` is none of these.
    """
    if cannot_tell not in _ANSWERS_OF_CASES:
        raise UsageError(f"an engine of which nothing can be told may pass or fail, got {cannot_tell!r}")
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _SUITE})
    seconds = result.seconds / max(1, len(result.engines))
    for engine in result.engines:
        _add_case(suite, engine, seconds, cannot_tell)
    ElementTree.SubElement(suite, "system-out").text = "\n".join(_closing(result))
    for name, kind in (("failures", "failure"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(result.engines)))
    suite.set("errors", "0")
    suite.set("time", f"{result.seconds:.3f}")
    started = min((match[0] for engine in result.engines if (match := _MOMENT.match(engine.started))), default="")
    if started:
        suite.set("timestamp", started)
    ElementTree.indent(suites)
    body = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _add_case(suite: ElementTree.Element, engine: EngineResult, seconds: float, cannot_tell: str) -> None:
    """Adds the case of one engine: its figures as properties, then its answer, then the text."""
    name, told, lines = engine_name(engine), sentence(engine), details(engine)
    case = ElementTree.SubElement(suite, "testcase", {"classname": _SUITE, "name": name, "time": f"{seconds:.3f}"})
    properties = ElementTree.SubElement(case, "properties")
    for key, value in _figures(engine):
        ElementTree.SubElement(properties, "property", {"name": key, "value": value})
    text = "\n".join([told, *lines])
    answer = counted(engine)
    if answer == SLOWER or (answer == CANNOT_TELL and cannot_tell == "fail"):
        ElementTree.SubElement(case, "failure", {"message": told, "type": answer}).text = text
        return
    if answer == CANNOT_TELL and not cannot_tell:
        ElementTree.SubElement(case, "skipped", {"message": told})
    ElementTree.SubElement(case, "system-out").text = text


def _figures(engine: EngineResult) -> Iterator[tuple[str, str]]:
    """The figures of an engine by name; those that are not known are left out."""
    batch = engine.setup.target.batch_size
    rates = {"": engine.latency_us, "_low": engine.high_us, "_high": engine.low_us}
    numbers = {f"images_per_second{end}": batch * 1e6 / us if us and us > 0 else None for end, us in rates.items()}
    numbers |= {"latency_us": engine.latency_us, "latency_us_low": engine.low_us, "latency_us_high": engine.high_us}
    words = {"target": units.target_line(engine.setup.target), "sha256": engine.sha256}
    worst = engine.worst
    if worst is not None:
        numbers |= {"ratio": worst.ratio, "ratio_low": worst.low, "ratio_high": worst.high}
        numbers["limit_fraction"] = engine.limit_fraction
        numbers["least_shown_fraction"] = worst.least_shown_fraction or None
        words |= {"answer": said(engine), "baseline": worst.baseline, "mode": "paired" if worst.is_paired else "stored"}
        words |= {"why_stored": worst.why_stored} if worst.why_stored else {}
    if unknown := unknown_bounds(engine, worst.bounds if worst is not None else engine.bounds_us):
        words["bounds"] = unknown
    yield "processes", str(engine.num_processes)
    yield from ((key, f"{value:.6g}") for key, value in numbers.items() if value is not None and math.isfinite(value))
    yield from ((name, clean(value)) for name, value in words.items())


def _closing(result: BenchResult) -> list[str]:
    """The lines about all engines."""
    return [headline(result), *(clean(note) for note in (result.note, *result.unwritten) if note)]
