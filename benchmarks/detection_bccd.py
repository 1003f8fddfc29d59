"""Single-shot detectors on blood cells: all methods at the same measured latency, from the same weights.

The cells, methods and phases are those of the duel (benchmarks/duel.py), on another task.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from dense_training import timed, train_cycles
from duel_cells import DENSE, Cell, cells_of, choose, time_all, tune
from duel_contest import Contest, make_contest
from duel_rules import check_rules, weights_path

from halp_trt.models.sources import load_model
from halp_trt.store import read_json
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.detection.objects import Split
from halp_trt.tasks.detection.pictures import BoxPictures
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.network import for_network

__all__ = ["METHODS", "NETWORKS", "PHASES", "Rules", "run_bccd"]

NETWORKS = ("ssd-resnet18", "ssd512-resnet50")
METHODS = ("joint-blocks", "halp", "uniform", "torch-pruning")
PHASES = ("dense", "choose", "tune", "time")
GOAL_SPEEDUP, GOAL_POINTS = 1.94, 0.56
"""HALP's own ratio for SSD512-ResNet50 on VOC: 1.94 times as fast at 0.56 points less."""
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What every cell's result depends on; a WORK folder holds cells of one set of rules.

    Attributes:
        side: height and width of the pictures, in pixels.
        dense_epochs, dense_rate: of training the dense networks.
        epochs, rate: of fine-tuning.
        batch: pictures in a training step.
        minibatches: read for saliency, and trained between two steps.
        steps: of the iterative methods.
        grid: channels between two widths.
        bisections: of the methods whose ratio is bisected.
        timing: seconds of one comparison with the dense engine at most.
        pictures: how many of each split, 0 for all.
    """

    side: int = 256
    dense_epochs: int = 120
    dense_rate: float = 0.001
    epochs: int = 40
    rate: float = 0.0003
    batch: int = 16
    minibatches: int = 18
    steps: int = 5
    grid: int = 8
    bisections: int = 8
    timing: float = 20.0
    pictures: int = 0

    def training(self, epochs: int, rate: float) -> TrainSettings:
        """A training, dense or of a narrow network."""
        return TrainSettings(
            num_epochs=epochs,
            batch_size=self.batch,
            learning_rate=rate,
            optimizer="adamw",
            weight_decay=0.05,
            label_smoothing=0.0,
        )


def run_bccd(arguments: argparse.Namespace, write: Write) -> None:
    """Does all phases, or the one that is asked for."""
    rules = Rules(**{one.name: getattr(arguments, one.name) for one in fields(Rules)})
    work: Path = arguments.work
    check_rules(rules, work / "rules.json")
    data = pictures_of(arguments.data, rules)
    cells = cells_of(arguments.network, arguments.budget, METHODS, arguments.seeds, work)
    contests = cache(partial(contest_of, work, data, rules))
    report = partial(_report, write, rules, cells)
    phases: Mapping[str, Callable[[], None]] = {
        "dense": lambda: _dense(arguments.network, work, data, rules),
        "choose": lambda: _choose(cells, contests, report),
        "tune": lambda: _tune(cells, contests, report),
        "time": lambda: _time(arguments.network, cells, contests, arguments.seconds),
    }
    for phase in [arguments.phase] if arguments.phase else PHASES:
        timed({}, phase, phases[phase])
    report()


def pictures_of(source: str, rules: Rules) -> DataSet:
    """The pictures, as many as the rules take."""
    data = load_data(source, input_shape=(3, rules.side, rules.side))
    if not rules.pictures:
        return data
    return replace(data, train=_few(data.train, rules.pictures), test=_few(data.test, rules.pictures), workers=0)


def _few(pictures: object, num: int) -> BoxPictures:
    assert isinstance(pictures, BoxPictures)
    split = pictures.split
    return replace(pictures, split=Split(files=split.files[:num], objects=split.objects[:num]))


def contest_of(work: Path, data: DataSet, rules: Rules, network: str) -> Contest:
    """A network's contest."""
    return make_contest(
        network,
        weights_path(work, network),
        data,
        table=work / network / "table.jsonl",
        train=rules.training(rules.epochs, rules.rate),
        numbers={
            "num_minibatches": rules.minibatches,
            "num_steps": rules.steps,
            "grid_step": rules.grid,
            "num_bisections": rules.bisections,
            "timing_seconds": rules.timing,
        },
    )


def _dense(networks: list[str], work: Path, data: DataSet, rules: Rules) -> None:
    for network in networks:
        path = weights_path(work, network)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            module = load_model(network, input_shape=data.input_shape, num_classes=data.num_classes).module
            how = rules.training(rules.dense_epochs, rules.dense_rate)
            train_cycles(module, for_network(data, module), (how,), path)


def _choose(cells: list[Cell], contests: Callable[[str], Contest], report: Callable[[], None]) -> None:
    for cell in cells:
        if not cell.choice.exists():
            timed({}, f"choose {cell.network} {cell.name}", partial(choose, contests(cell.network), cell))
            report()


def _tune(cells: list[Cell], contests: Callable[[str], Contest], report: Callable[[], None]) -> None:
    for cell in cells:
        if cell.is_chosen and not cell.tuned.exists():
            timed({}, f"tune {cell.network} {cell.name}", partial(tune, contests(cell.network), cell, "cpu"))
            report()


def _time(networks: list[str], cells: list[Cell], contests: Callable[[str], Contest], seconds: float) -> None:
    for network in networks:
        time_all(contests(network), cells, cells[0].work / network / "timings.json", seconds=seconds)


# ---- what came of it -----------------------------------------------------------------------------------------------


def _report(write: Write, rules: Rules, cells: list[Cell]) -> None:
    """Writes the result as far as it has got."""
    networks = {}
    for network in dict.fromkeys(cell.network for cell in cells):
        path = cells[0].work / network / "timings.json"
        timings = read_json(path) if path.exists() else {}
        own = [cell for cell in cells if cell.network == network and cell.choice.exists()]
        networks[network] = {
            **({"dense": {**timings[DENSE], **timings["engines"][DENSE]}} if timings else {}),
            **({"target": timings["target"], "system": timings["system"]} if timings else {}),
            "cells": [_row(cell, timings) for cell in own],
        }
    write({"rules": asdict(rules), "goal": {"speedup": GOAL_SPEEDUP, "points": GOAL_POINTS}, "networks": networks})


def _row(cell: Cell, timings: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's choice, score, share of the dense latency, and points that it lost."""
    choice = read_json(cell.choice)
    row: dict[str, Any] = {"method": cell.method, "budget": cell.budget, "seed": cell.seed, "choice": choice}
    if not cell.tuned.exists():
        return row
    row["tuned"] = read_json(cell.tuned)
    engines = timings.get("engines", {})
    if cell.name in engines:
        row["share"] = engines[cell.name]["latency_us"] / engines[DENSE]["latency_us"]
        row["points"] = 100 * (row["tuned"]["score"]["value"] - timings[DENSE]["score"]["value"])
        is_fast, is_right = 1 / row["share"] >= GOAL_SPEEDUP, row["points"] >= -GOAL_POINTS
        row["meets_goal"] = is_fast and is_right
    return row
