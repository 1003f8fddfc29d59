"""The duel's result: every cell there is so far, and means and spreads over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from duel_cells import DENSE, Cell

from halp_trt.store import read_json

__all__ = ["HOW", "result_of"]

HOW = (
    "choosing: one process, one core. Every method starts from the same dense weights and, for a seed, reads the same "
    "minibatches. uniform, torch-pruning and fastnas have their ratio bisected until the engine, timed in turns with "
    "the dense one, meets the budget; halp and joint plan from a table of layers and correct that by such timings",
    "fine-tuning: one thread, the same number of minibatches for every cell. Minibatches that changed weights while "
    "channels were chosen (halp, joint and uniform train while they gather saliency) are taken off that number",
    "timing: the engines of all cells of a network and its dense one in turns, each exported from its narrow module by "
    "the same exporter; of_budget is that share of the dense latency over the budget",
    "measurements: layers and engines that the cell would have needed alone; seconds_alone is the wall time of "
    "choosing, with what another cell had measured or computed before added at its mean cost",
)


def result_of(cells: Sequence[Cell], absent: Mapping[str, str]) -> dict[str, Any]:
    """Rows of all cells, a summary, and whether all are there; a method that is absent is not waited for."""
    wanted = [cell for cell in cells if cell.method not in absent or cell.choice.exists()]
    networks = list(dict.fromkeys(cell.network for cell in cells))
    timings = {name: _read(_timings(cells, name)) for name in networks}
    probe_seconds = {name: _probe_seconds([cell for cell in cells if cell.network == name]) for name in networks}
    rows = [_row(cell, timings[cell.network], probe_seconds[cell.network]) for cell in wanted if cell.choice.exists()]
    is_complete = len(rows) == len(wanted) and all("failed" in row or "share" in row for row in rows)
    return {
        "complete": is_complete,
        "how": HOW,
        "absent": dict(absent),
        "dense": {name: {**row[DENSE], **row["engines"][DENSE]} for name, row in timings.items() if row},
        "targets": {name: {"target": row["target"], "system": row["system"]} for name, row in timings.items() if row},
        "summary": _summary(rows),
        "cells": rows,
    }


def _timings(cells: Sequence[Cell], network: str) -> Path:
    return cells[0].work / network / "timings.json"


def _read(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}


def _probe_seconds(cells: Sequence[Cell]) -> float:
    """Mean seconds of one measured layer."""
    found = [read_json(cell.choice) for cell in cells if cell.choice.exists()]
    num = sum(row["layers_new"] for row in found)
    return float(sum(row["layer_seconds_new"] for row in found)) / num if num else 0.0


def _row(cell: Cell, timings: Mapping[str, Any], probe_seconds: float) -> dict[str, Any]:
    choice, tuned = read_json(cell.choice), _read(cell.tuned)
    shared = (choice["layers"] - choice["layers_new"]) * probe_seconds + choice.get("saved_seconds", 0.0)
    row: dict[str, Any] = {
        "network": cell.network,
        "budget": cell.budget,
        "method": cell.method,
        "seed": cell.seed,
        "measurements": {"layers": choice["layers"], "engines": choice["engines"]},
        "seconds_alone": round(choice["seconds"] + shared, 1),
        "choice": choice,
    }
    if "failed" in choice:
        return {**row, "failed": choice["failed"]}
    if tuned:
        row |= {"accuracy_fraction": tuned["accuracy_fraction"], "tuned": tuned}
    engines = timings.get("engines", {})
    if tuned and cell.name in engines:
        share = engines[cell.name]["latency_us"] / engines[DENSE]["latency_us"]
        row |= {"share": share, "of_budget": share / (cell.budget / 100), "measurement": engines[cell.name]}
    return row


def _summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per network, budget and method, best accuracy first."""
    lines = []
    for key in dict.fromkeys((row["network"], row["budget"], row["method"]) for row in rows):
        network, budget, method = key
        mine = [row for row in rows if (row["network"], row["budget"], row["method"]) == key]
        line: dict[str, Any] = {"network": network, "budget": budget, "method": method}
        for name in ("accuracy_fraction", "of_budget", "seconds_alone"):
            line[name] = _spread([row[name] for row in mine if name in row])
        line["tune_seconds"] = _spread([row["tuned"]["seconds"] for row in mine if "tuned" in row])
        for name in ("layers", "engines"):
            line[name] = mean(row["measurements"][name] for row in mine)
        line["num_failed"] = sum("failed" in row for row in mine)
        lines.append(line)
    best = {id(line): (line["accuracy_fraction"] or {"mean": 0.0})["mean"] for line in lines}
    networks = list(dict.fromkeys(line["network"] for line in lines))
    return sorted(lines, key=lambda line: (networks.index(line["network"]), -line["budget"], -best[id(line)]))


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "mean": mean(values),
        "stdev": stdev(values) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
        "num": len(values),
    }
