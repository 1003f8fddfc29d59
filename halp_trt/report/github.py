"""A result of the throughput gate as annotations of GitHub Actions: lines on stdout that its runner reads."""

from __future__ import annotations

from collections.abc import Sequence

from halp_trt.gate import CANNOT_TELL, SLOWER, BenchResult, EngineResult
from halp_trt.report.bench_text import counted, details, engine_name, sentence, worst_first

__all__ = ["github_lines"]

_MOST = 10
"""Annotations of one kind that GitHub shows of a step."""


def github_lines(result: BenchResult) -> tuple[str, ...]:
    """Returns one error for every slower engine and one warning for each of which nothing can be told.

    GitHub shows ten of a kind: of more, the last one sums up the rest.
    """
    ordered = worst_first(result)
    lines: list[str] = []
    for kind, answer in (("error", SLOWER), ("warning", CANNOT_TELL)):
        found = [engine for engine in ordered if counted(engine) == answer]
        shown = found if len(found) <= _MOST else found[: _MOST - 1]
        lines += [_command(kind, f"{engine_name(engine)}: {answer}", _message(engine)) for engine in shown]
        if rest := found[len(shown) :]:
            lines.append(_command(kind, f"{len(rest)} more: {answer}", _names(rest)))
    return tuple(lines)


def _message(engine: EngineResult) -> str:
    return "\n".join([f"{engine_name(engine)}: {sentence(engine)}", *details(engine)])


def _names(engines: Sequence[EngineResult]) -> str:
    first = ", ".join(engine_name(engine) for engine in engines[:_MOST])
    return first if len(engines) <= _MOST else f"{first} and {len(engines) - _MOST} others"


def _command(kind: str, title: str, message: str) -> str:
    """One workflow command, escaped as GitHub's own toolkit does."""
    return f"::{kind} title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
