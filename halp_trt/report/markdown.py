"""A result of the throughput gate in Markdown, for a summary page or a comment on a merge request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from halp_trt.gate import Against, BenchResult, EngineResult
from halp_trt.report import units
from halp_trt.report.bench_text import (
    clean,
    details,
    engine_name,
    headline,
    limit_text,
    said,
    sentence,
    throughput_text,
    unknown_bounds,
    worst_first,
)

__all__ = ["MAX_BYTES", "escape", "markdown"]

MAX_BYTES = 60_000
"""Most bytes of a page: a comment on GitHub takes 64 kB."""
_ROOM = 4_000
"""Bytes kept for heading, footer and the sentence about what was left out."""
_MOST_NOTE = 300
"""Characters of the result's note that are shown."""
_HEAD = (
    "| engine | answer | latency against the baseline's | limit | throughput | processes |\n|---|---|--:|--:|--:|--:|\n"
)
_OPEN, _CLOSE = "\n<details><summary>Details</summary>\n", "\n</details>\n"
_SPECIAL = re.compile(r"[\\`*_{}\[\]<>#+!|~&$]|^-|:(?=\S)|(?<=www)\.", re.IGNORECASE)
"""Characters that mean something in Markdown, in HTML, or in links and pictures that GitHub finds by itself."""
_MENTION = re.compile(r"@(?=\w)|(?<=&#35;)(?=\d)")
"""The places where GitHub would see a person or an issue."""
_UNSEEN = "\u2060"
"""A character without width that keeps such a thing apart."""


def escape(text: str) -> str:
    """A text as Markdown that shows it letter by letter: no markup, no HTML, no table, no link, nobody called."""
    shown = _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", clean(text))
    return _MENTION.sub(lambda match: f"{match[0]}{_UNSEEN}", shown)


def markdown(result: BenchResult) -> str:
    """Returns the page: the answer as its heading, one table with the worst engine first, and the details.

    It has less than ``MAX_BYTES``. If it would have more, the last details are left out, then the last engines, and a
    sentence says how many.
    """
    ordered = worst_first(result)
    rows = _fitting([_row(engine) for engine in ordered], MAX_BYTES - _ROOM)
    blocks = _fitting([_block(engine) for engine in ordered[: len(rows)]], MAX_BYTES - _ROOM - _size(*rows))
    parts = [f"## Throughput: {escape(headline(result))}\n\n", _HEAD, *rows]
    parts += [_OPEN, *blocks, _CLOSE] if blocks else []
    parts += _left_out(len(result.engines), len(rows), len(blocks))
    footer = [f"Took {result.seconds:.0f} s."] if result.seconds else []
    footer += [escape(clean(note, _MOST_NOTE)) for note in (result.note, *result.unwritten) if note]
    return "".join([*parts, *(f"\n{line}\n" for line in footer)])


def _row(engine: EngineResult) -> str:
    worst = engine.worst
    cells = [
        escape(engine_name(engine)),
        f"**{escape(said(engine))}**" if worst else "no baseline",
        _change(engine, worst) if worst else "–",
        limit_text(engine) if worst else "–",
        throughput_text(engine),
        str(engine.num_processes),
    ]
    return f"| {' | '.join(cells)} |\n"


def _change(engine: EngineResult, one: Against) -> str:
    """``+5.1 % (+4.2 to +6.0 %)``, or that the bounds are not known."""
    change, unknown = units.signed_percent(one.ratio - 1), unknown_bounds(engine, one.bounds)
    if one.bounds is None or unknown:
        return f"{change} ({unknown})"
    low, high = (units.signed_percent(bound - 1) for bound in one.bounds)
    return f"{change} ({low.removesuffix(' %')} to {high})"


def _block(engine: EngineResult) -> str:
    lines = [f"**{escape(engine_name(engine))}**: {escape(sentence(engine))}", ""]
    lines += [f"- {escape(line)}" for line in details(engine)]
    return "\n" + "\n".join(lines) + "\n"


def _left_out(number: int, rows: int, blocks: int) -> list[str]:
    """The sentence about what found no room."""
    if rows < number:
        return [f"\n{number - rows} more engines are left out here, none of them worse than these.\n"]
    return [f"\nThe details of {rows - blocks} engines are left out here.\n"] if blocks < rows else []


def _fitting(texts: Sequence[str], num_bytes: int) -> list[str]:
    """The first texts that have room in so many bytes."""
    ends = accumulate(_size(text) for text in texts)
    return [text for text, end in zip(texts, ends, strict=True) if end <= num_bytes]


def _size(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)
