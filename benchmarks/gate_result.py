"""The summary of the gate's experiment: counts for each load, kind and ratio, the bars, and a table for documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from halp_trt.gate import SLOWER, WITHIN

COLOURS = {SLOWER: "red", WITHIN: "green"}
RIVALS = ("single run", "Mann-Whitney", "pyperf")
VERDICTS = ("red", "green", "cannot tell")


def summary(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each load, kind and wanted ratio, in this order."""
    cells: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for one in records:
        cells.setdefault((one["load"], one["kind"], one["wanted"]), []).append(one)
    return [_row(*key, cells[key]) for key in sorted(cells)]


def _row(load: str, kind: str, wanted: float, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ratios = [one["ratio"] for one in records]
    count = Counter(one["verdict"] for one in records)
    row: dict[str, Any] = {"load": load, "kind": kind, "wanted": wanted, "true": records[0]["true"]}
    row |= {"gates": len(records), "red": count["red"], "green": count["green"], "cannot_tell": count["cannot tell"]}
    row |= {
        "mean_seconds": round(sum(one["seconds"] for one in records) / len(records), 2),
        "mean_processes": round(sum(one["processes"] for one in records) / len(records), 2),
        "estimates": [round(min(ratios), 4), round(max(ratios), 4)],
        "rivals": {rival: dict(Counter(one["rivals"][rival] for one in records)) for rival in RIVALS},
    }
    return row


def bars(rows: Sequence[Mapping[str, Any]], num_gates: int = 30) -> list[dict[str, Any]]:
    """The bars of the experiment: none is met before every cell that it is about has all its gates."""
    wanted: dict[str, tuple[float, Callable[[Mapping[str, Any]], bool]]] = {
        "no red where an engine meets itself": (1.0, lambda row: row["red"] == 0),
        "x1.05: 28 of 30 red": (1.05, lambda row: row["red"] * 30 >= 28 * row["gates"]),
        "x1.10: all red": (1.10, lambda row: row["red"] == row["gates"]),
    }
    found = []
    for name, (ratio, holds) in wanted.items():
        cells = [row for row in rows if row["wanted"] == ratio]
        is_met = bool(cells) and all(row["gates"] >= num_gates and holds(row) for row in cells)
        found.append({"bar": name, "met": is_met})
    return found


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary as a table in Markdown; rivals as red / green."""
    names = ("load", "slowed by", "true", "red", "green", "cannot tell", "processes", "seconds", "estimates", *RIVALS)
    lines = [f"| {' | '.join(names)} |", "|---|---|" + "--:|" * (len(names) - 2)]
    for row in rows:
        rivals = [" / ".join(str(row["rivals"][rival].get(one, 0)) for one in VERDICTS[:2]) for rival in RIVALS]
        low, high = row["estimates"]
        words = [row["load"], row["kind"], f"×{row['true']:.3f}", row["red"], row["green"], row["cannot_tell"]]
        words += [f"{row['mean_processes']:.1f}", f"{row['mean_seconds']:.0f}", f"{low:.3f} to {high:.3f}", *rivals]
        lines.append(f"| {' | '.join(map(str, words))} |")
    return "\n".join(lines) + "\n"
