"""The methods of docs/methods.md, each alone beside the default, at the same measured latency and training.

    python benchmarks/methods.py --network resnet20 --data cifar10:PATH --dense WEIGHTS --work WORK [--part PART ...]
        [--option NAME ...] [--budget 50% ...] [--seeds 3]

A cell is a network, an option, a budget and a seed: it is pruned, fine-tuned, deployed and verified like a user's, and
its engine's score and latency are what count. The result, benchmarks/results/methods-NETWORK.json, is written after
every cell; cells that are there are not repeated, and a cell that was killed goes on from its last step.

Parts:

``ladder``      the default and one option more in each rung, after three epochs
``untrained``   repairs alone, without any training after the last step
``saliencies``  all that need no data, at 70 and 50 %, without training and after an epoch
``relus``       budgets of ReLU evaluations, with the latency free and at 70 %

The networks that are meant: ``resnet20`` and ``resnet56`` with ``--data cifar10:PATH``, and
``timm:tf_efficientnet_lite0`` with ``--data imagefolder:PATH`` (part ``untrained``). DENSE are trained weights as for
--weights; ``benchmarks/duel.py --phase dense`` makes those of resnet20. Nothing else may run on the machine meanwhile.
``--quick`` shows on a small network that everything runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from halp_trt import __version__
from halp_trt.errors import HalpError
from halp_trt.specs import Budget
from halp_trt.store import create_table, encode, read_steps, write_json
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.prune_stage import prune_alone
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.target import find_target
from halp_trt.workflows.verify import Tolerances
from halp_trt.workflows.verify_stage import verify_alone

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/methods/1"
Changes = Mapping[str, Any]

_DATA_FREE = ("magnitude", "lamp", "sp-lamp", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the benchmark.

    Attributes:
        budgets: shares of the dense latency.
        options: what each cell sets beside the defaults, by the name of the option.
        common: what all of them set.
    """

    budgets: tuple[str, ...]
    options: Mapping[str, Changes]
    common: Changes = field(default_factory=dict)


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "ladder": Part(
            budgets=("50%", "30%"),
            common={"epochs": 3},
            options={
                "default": {},
                "repair batch-norm": {"repair": "batch-norm"},
                "repair least-squares": {"repair": "least-squares"},
                "candidates 8": {"candidates": 8},
                "least-squares and candidates 8": {"repair": "least-squares", "candidates": 8},
                "taylor-abs": {"saliency": "taylor-abs"},
                "weight-taylor": {"saliency": "weight-taylor"},
                "gradient-norm": {"saliency": "gradient-norm"},
                "sp-lamp": {"saliency": "sp-lamp"},
                "magnitude": {"saliency": "magnitude"},
            },
        ),
        "untrained": Part(
            budgets=("90%", "80%", "70%", "50%", "30%"),
            common={"epochs": 0, "prune_rate": 1e-9},
            options={
                "none": {},
                "batch-norm": {"repair": "batch-norm"},
                "least-squares": {"repair": "least-squares"},
                "least-squares and candidates 8": {"repair": "least-squares", "candidates": 8},
            },
        ),
        "saliencies": Part(
            budgets=("70%", "50%"),
            common={"pruning_steps": 1, "minibatches": 1, "prune_rate": 1e-9},
            options={
                f"{name}, {epochs} epochs": {"saliency": name, "epochs": epochs}
                for name in (*_DATA_FREE, "taylor")
                for epochs in (0, 1)
            },
        ),
        "relus": Part(
            budgets=("100%", "70%"),
            common={"epochs": 3},
            options={"all": {}, "50 %": {"limit": ("relus=50%",)}, "25 %": {"limit": ("relus=25%",)}},
        ),
    }
)
"""The parts by name. Where nothing is to be trained, the rate between steps is next to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run: a part's option at a budget, with a seed."""

    part: str
    option: str
    budget: str
    seed: int

    @property
    def name(self) -> str:
        """Unique within a network."""
        return f"{self.part}, {self.option}, {self.budget}, seed {self.seed}"

    @property
    def changes(self) -> dict[str, Any]:
        """Its settings beside the defaults."""
        part = PARTS[self.part]
        return {**part.common, **part.options[self.option], "budget": Budget.parse(self.budget), "seed": self.seed}


def main() -> None:
    """Runs every cell that is not there yet."""
    torch.set_num_threads(1)
    arguments = _arguments()
    path = arguments.result or RESULTS / f"methods-{arguments.network.partition(':')[2] or arguments.network}.json"
    cells = json.loads(path.read_bytes())["cells"] if path.exists() else {}
    for cell in _cells(arguments):
        if cell.name in cells:
            continue
        cells[cell.name] = found = _run(cell, arguments)
        print(cell.name, json.dumps({key: value for key, value in found.items() if key != "steps"}), flush=True)
        source = _kind(arguments.data)
        command = f"python benchmarks/methods.py --network {arguments.network} --data {source} --work WORK"
        write_json(path, {"schema": SCHEMA, "version": __version__, "command": command, "cells": cells})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, help="a network, as halp-trt takes it")
    parser.add_argument("--data", required=True, help="a data source, as halp-trt takes it")
    parser.add_argument("--dense", default="", help="its trained weights")
    parser.add_argument("--work", type=Path, required=True, help="folder of tables, runs and engines")
    parser.add_argument("--result", type=Path)
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=["ladder"])
    parser.add_argument("--option", nargs="+", help="options of the parts; all of them by default")
    parser.add_argument("--budget", nargs="+", help="shares of the dense latency; the parts' own by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timing both engines in the end")
    parser.add_argument("--quick", action="store_true", help="few steps, no epochs: shows that it runs")
    return parser.parse_args()


def _cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """All cells that are asked for, seed by seed, so that what is there after a kill compares."""
    for seed in range(arguments.seeds):
        for name in arguments.part:
            for budget in arguments.budget or PARTS[name].budgets:
                for option in PARTS[name].options:
                    if not arguments.option or option in arguments.option:
                        yield Cell(part=name, option=option, budget=budget, seed=seed)


def _run(cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
    """A cell's figures, or why there are none."""
    started = time.perf_counter()
    try:
        return {**_figures(cell, arguments), "seconds": round(time.perf_counter() - started, 1)}
    except HalpError as error:  # a budget may be out of an option's reach
        return {"failed": f"{type(error).__name__}: {error}", "seconds": round(time.perf_counter() - started, 1)}


def _figures(cell: Cell, arguments: argparse.Namespace) -> dict[str, Any]:
    settings = _settings(cell, arguments)
    engines = arguments.work / "engines"
    run = RunFolder(path=arguments.work / _file_name(cell.name))
    if not Path(settings.table.lut).exists():
        create_table(Path(settings.table.lut), find_target(settings.place)[1])
    started = time.perf_counter()
    prune_alone(settings, run, lambda done, total, note: None, resume=True)
    pruned = time.perf_counter()
    deploy_run(run, settings.place, settings.data, DeployOptions(engines=engines))
    found = verify_alone(run, settings, engines=engines, tolerances=Tolerances(seconds=arguments.seconds))
    steps = read_steps(run.log)
    dense_us, pruned_us = found.dense.measurement.latency_us, found.pruned.measurement.latency_us
    return {
        "target": encode(found.target),
        "score": encode(found.pruned.score),
        "dense_score": encode(found.dense.score),
        "share": round(pruned_us / dense_us, 4),
        "dense_us": round(dense_us, 1),
        "largest_difference": found.max_difference,
        "parameters": found.pruned.num_parameters,
        "prune_seconds": round(pruned - started, 1),
        "steps": [dict(step) for step in steps],
    }


def _settings(cell: Cell, arguments: argparse.Namespace) -> Settings:
    changes = cell.changes
    if arguments.quick:
        changes |= {"epochs": 0, "pruning_steps": 1, "minibatches": 1, "repair_pictures": 32, "width_step": 16,
                    "timing_seconds": 0.2}  # fmt: skip
    return Settings.of(
        **{
            "model": arguments.network,
            "data": arguments.data,
            "weights": arguments.dense,
            "runtime": "onnxruntime",
            "lut": str(arguments.work / "table.jsonl"),
            **changes,
        }
    )


def _file_name(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-." else "-" for char in name)


def _kind(source: str) -> str:
    """A data source without the paths of this machine."""
    kind, colon, _ = source.partition(":")
    return f"{kind}:PATH" if colon else kind


if __name__ == "__main__":
    main()
