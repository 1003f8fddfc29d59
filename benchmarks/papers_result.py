"""The result of benchmarks/papers.py as JSON, and as a section of markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from duel_cells import DENSE, Cell
from papers_networks import LITE
from papers_parts import FURTHER, Study

from halp_trt import __version__
from halp_trt.store import encode, read_json

__all__ = ["HOW", "result_of", "section"]

SCHEMA = "halp-trt/papers/1"
HOW = (
    "all methods begin with the same dense weights: public ones, on CIFAR-10 trained further on these pictures first",
    "choosing: ours plan from a table of layers and correct that by timing engines; Torch-Pruning and uniform pruning "
    "have their ratio bisected until the engine, timed in turns with the dense one, meets the budget",
    "fine-tuning: taught by the dense network, the same number of epochs for every method and for the dense network; "
    "minibatches that changed weights while channels were chosen are taken off, rounded to an epoch",
    "timing: all engines of a network in turns, each exported from its narrow module by the same exporter",
    "agreement: the share of test pictures to which an engine gives the dense network's answer, before its training",
)
PICTURES = {
    False: "CIFAR-10 as JPEG copies: networks that were trained on the originals lose about 10 points on them.",
    True: (
        "One picture of each of ImageNet's classes: half of them were distilled from, the other half judged. They "
        "behave like training pictures, so this is no accuracy on ImageNet."
    ),
}
"""What is to be known about the pictures, of CIFAR-10 and of ImageNet's classes."""


def result_of(studies: Sequence[Study], *, command: str, remarks: str) -> dict[str, Any]:
    """Everything that is known so far."""
    packages = ("torch", "torch-pruning", "onnxruntime", "timm")
    return {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "packages": {name: _version(name) for name in packages},
        "how": HOW,
        "remarks": remarks,
        "complete": all(study.timings.exists() for study in studies),
        "networks": {study.name: _network(study) for study in studies},
    }


def _network(study: Study) -> dict[str, Any]:
    timings = _read(study.timings)
    return {
        "network": study.case.network,
        "public": study.case.public,
        "pictures": PICTURES[study.case.network == LITE],
        "num_unlabelled_folders": len(study.more),
        "rules": encode(study.case.rules),
        "seeds": {"adapting": 0, **dict(study.case.seeds)},
        "adapt": _read(study.folder / "adapt.json"),
        "target": timings.get("target"),
        "system": timings.get("system"),
        "dense": {**timings.get(DENSE, {}), "measurement": timings.get("engines", {}).get(DENSE)},
        "rows": [_row(cell, timings) for cell in study.cells if cell.choice.exists()],
    }


def _row(cell: Cell, timings: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        "method": cell.method,
        "budget": cell.budget,
        "seed": cell.seed,
        "choice": read_json(cell.choice),
        "tuned": _read(cell.tuned),
    }
    engines = timings.get("engines", {})
    if cell.name in engines:
        row["measurement"] = engines[cell.name]
        row["share"] = engines[cell.name]["latency_us"] / engines[DENSE]["latency_us"]
    return row


def _read(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.exists() else {}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


# ---- markdown -------------------------------------------------------------------------------------------------------


def section(result: Mapping[str, Any]) -> str:
    """The result as a section of a page: a table for each network."""
    lines = ["## The papers' level", ""]
    for name, network in result["networks"].items():
        lines += [*_heading(name, network), "", *_table(network), ""]
    if not result["complete"]:
        lines += ["Not all parts are done.", ""]
    made = [f"made by `{result['command']}`", *filter(None, [result["remarks"]])]
    return "\n".join([*lines, f"<sub>{'; '.join(made)}</sub>", ""])


def _heading(name: str, network: Mapping[str, Any]) -> Iterator[str]:
    adapt, dense = network["adapt"], network["dense"]
    words = [f"**{name}**"]
    if adapt:
        words.append(f"public weights {_percent(adapt['public']['value'])} on these pictures")
        words.append(f"dense {_percent(adapt['dense']['value'])}")
    if dense["measurement"]:
        words.append(f"{dense['measurement']['latency_us']:.0f} µs")
    yield f"{', '.join(words)}. {network['pictures']}"


def _table(network: Mapping[str, Any]) -> Iterator[str]:
    yield "| asked for | method | seeds | top-1 | against the dense, trained as long | agreement | of dense, timed |"
    yield "| --- | --- | --: | --: | --: | --: | --: |"
    rows = network["rows"]
    base = _mean([row for row in rows if row["method"] == FURTHER], "accuracy_fraction")
    for budget, method in dict.fromkeys((row["budget"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["budget"], row["method"]) == (budget, method)]
        found = _mean(mine, "accuracy_fraction")
        failed = sum("failed" in row["choice"] for row in mine)
        seeds = f"{len(mine) - failed}, {failed} failed" if failed else f"{len(mine)}"
        against = "–" if found is None or base is None or method == FURTHER else f"{100 * (found - base):+.2f} points"
        shares = [row["share"] for row in mine if "share" in row]
        timed = f"{mean(shares):.1%}" if shares else "–"
        yield (
            f"| {budget} % | {method} | {seeds} | {_spread(mine)} | {against} | "
            f"{_percent(_mean(mine, 'agreement_fraction'))} | {timed} |"
        )


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [row["tuned"][key] for row in rows if key in row["tuned"]]


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = _values(rows, key)
    return mean(values) if values else None


def _spread(rows: Sequence[Mapping[str, Any]]) -> str:
    values = _values(rows, "accuracy_fraction")
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return _percent(mean(values) if values else None) + spread


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
