"""Logs that trtexec printed, and the JSON that NVIDIA's engine explorer makes of one.

A log is made for people: the lines that are known are read, and all others are left out. It may have been pasted, so
that its beginning or its end is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from halp_trt.errors import ArtefactError, UsageError
from halp_trt.gate.trtexec import LayerProfile, TimedLayer
from halp_trt.gate.trtexec_log import PrintedTime, TrtexecLog
from halp_trt.store.json_text import shown
from halp_trt.texts import number_in

__all__ = ["is_log", "is_summary", "log_of_summary", "read_log"]

_BANNER = re.compile(
    r"&&&& (RUNNING|PASSED|FAILED|WAIVED) TensorRT\.trtexec \[TensorRT v([0-9]+)\](?: \[b[0-9]+\])? # (.*)"
)
_PREFIX = re.compile(r"^(?:\[[0-9/]+-[0-9:]+\] )?\[([VIWEF])\] ?(?:\[TRT\] ?)?")
_FACT = re.compile(r"^([A-Za-z][A-Za-z0-9 /()_-]*?) ?:(?: (.*))?$")
_TIME = re.compile(r"(min|max|mean|median) = ([0-9.eE+-]+) ms")
_PROFILE = re.compile(r"=== Profile \(([0-9]+) iterations? ?\) ===")
_LIKENESS = (b"&&&& RUNNING TensorRT.trtexec", b"=== Performance summary ===", b"&&&& PASSED TensorRT.trtexec")
_HEAD_BYTES = 1 << 16
_US = 1e3
_MOST_LINES = 50
"""Warnings, or errors, that are kept."""
_MOST_FACTS = 400
_OLD_DIGITS = 4
"""Digits of versions before 10, whose major number stands for thousands, later for tens of thousands."""


def is_log(data: bytes) -> bool:
    """True if some bytes look like a log of trtexec, or like the end of one."""
    return any(sign in part for sign in _LIKENESS for part in (data[:_HEAD_BYTES], data[-_HEAD_BYTES:]))


def read_log(data: bytes) -> TrtexecLog:
    """The facts in a log; characters that are no UTF-8 are replaced."""
    lines = data.decode("utf-8", "replace").splitlines()
    version, command, outcome = "", "", ""
    levels: dict[str, dict[str, None]] = {"W": {}, "E": {}, "F": {}}
    facts: dict[str, str] = {}
    texts = []
    for line in lines:
        if banner := _BANNER.search(line):
            word, digits, command = banner.groups()
            version = _version(digits)
            outcome = "" if word == "RUNNING" else word.lower()
        prefix = _PREFIX.match(line)
        level, text = (prefix[1], line[prefix.end() :]) if prefix else ("", line)
        texts.append(text)
        if level in levels and len(levels[level]) < _MOST_LINES:
            levels[level][" ".join(text.split())] = None
        fact = _FACT.match(text.strip()) if level == "I" and len(facts) < _MOST_FACTS else None
        if fact is not None and fact[2]:
            facts.setdefault(fact[1], fact[2].strip())
    times = {name: found for name, text in facts.items() if (found := _printed_time(text)) is not None}
    rate = number_in(facts.get("Throughput", "").removesuffix("qps").strip())
    return TrtexecLog(
        version=version,
        command=command,
        outcome=outcome,
        facts={name: text for name, text in facts.items() if name not in times},
        times=times,
        queries_per_second=rate,
        profiles=tuple(_profiles(texts)),
        warnings=tuple(levels["W"]),
        errors=(*levels["E"], *levels["F"]),
        num_lines=len(lines),
    )


def _version(digits: str) -> str:
    """``8502`` is 8.5.2, ``101601`` is 10.16.1."""
    number, unit = int(digits), 1000 if len(digits) <= _OLD_DIGITS else 10000
    major, rest = divmod(number, unit)
    return f"{major}.{rest // 100}.{rest % 100}"


def _printed_time(text: str) -> PrintedTime | None:
    """The numbers of a line of the performance summary; None of another line."""
    found = {name: number for name, digits in _TIME.findall(text) if (number := number_in(digits)) is not None}
    if not found:
        return None
    least, most, mean, median = (
        _US * found[name] if name in found else None for name in ("min", "max", "mean", "median")
    )
    return PrintedTime(least_us=least, most_us=most, mean_us=mean, median_us=median)


def _profiles(texts: Sequence[str]) -> Iterator[LayerProfile]:
    """The profiles that ``--dumpProfile`` printed, as tables."""
    for start, text in enumerate(texts):
        if head := _PROFILE.search(text):
            layers = tuple(_printed_layers(texts[start + 1 :]))
            if layers:
                yield LayerProfile(num_runs=int(head[1]), layers=layers)


def _printed_layers(texts: Iterable[str]) -> Iterator[TimedLayer]:
    """The layers of a table: the name first in old versions, last in new ones; it ends with the total."""
    has_heading = False
    for text in texts:
        words = text.split()
        if not has_heading:
            has_heading = "Layer" in words
            name_first = bool(words) and words[0] == "Layer"
            num_times = 4 if any("Median" in word for word in words) else 3
            if not has_heading and words:
                return
            continue
        times = words[-num_times:] if name_first else words[:num_times]
        name = text.strip()
        for _ in range(num_times):
            name = name.rpartition(" ")[0].rstrip() if name_first else name.partition(" ")[2].lstrip()
        numbers = [number_in(word) for word in times]
        if len(numbers) < num_times or None in numbers or name == "Total":
            return
        mean, median = (number or 0.0 for number in numbers[1:3])
        try:
            yield TimedLayer(name=name, mean_us=_US * mean, median_us=_US * median if num_times > 3 else None)
        except UsageError:
            return


# ---- the engine explorer's summary ----------------------------------------------------------------------------------

_SUMMARY, _OPTIONS, _DEVICE = "performance_summary", "inference_options", "device_information"


def is_summary(value: object) -> bool:
    """True if a value of JSON is what NVIDIA's engine explorer makes of a log."""
    return isinstance(value, dict) and isinstance(value.get(_SUMMARY), dict)


def log_of_summary(value: Mapping[str, Any]) -> TrtexecLog:
    """The facts in the engine explorer's summary of a log.

    Raises:
        ArtefactError: a part of it is not what the explorer writes; the sentence has no path.
    """
    facts: dict[str, str] = {}
    times = {}
    for section in (_SUMMARY, _OPTIONS, _DEVICE):
        part = value.get(section, {})
        if not isinstance(part, dict):
            raise ArtefactError(f"its {section} is {shown(part)}, expected an object")
        for name, found in part.items():
            if isinstance(found, list) and section == _SUMMARY:
                times[name] = _listed_time(name, found)
            else:
                facts[name] = found if isinstance(found, str) else shown(found)
    return TrtexecLog(facts=facts, times=times, queries_per_second=number_in(facts.pop("Throughput", "")))


def _listed_time(name: str, found: Sequence[Any]) -> PrintedTime:
    """The numbers of a list of least, most, mean, median and 99th percentile."""
    if len(found) < 4 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in found):
        raise ArtefactError(f"its {shown(name)} is no list of least, most, mean, median and percentile")
    least, most, mean, median = (_US * float(one) for one in found[:4])
    return PrintedTime(least_us=least, most_us=most, mean_us=mean, median_us=median)
