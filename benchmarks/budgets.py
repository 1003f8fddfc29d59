"""How closely measured engines use the budgets that were asked for.

    python benchmarks/budgets.py --work WORK [--model NAME ...] [--budget 80% ...]

Networks with initial weights are pruned to each budget by ``--method joint`` (or ``joint-blocks``) in one step,
deployed and verified like a user's: what counts is the pruned engine's latency over the budget, both measured in turns
with the dense engine after everything else is done. Results land in benchmarks/results/budgets.json after every cell;
cells that are there are not repeated. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from halp_trt import __version__
from halp_trt.specs import Budget, PruningPlan
from halp_trt.store import create_table, encode, load, write_json
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.ledger import read_rows
from halp_trt.workflows.prune_stage import prune_alone
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.target import find_target
from halp_trt.workflows.verify import Tolerances
from halp_trt.workflows.verify_stage import verify_alone

RESULT = Path(__file__).resolve().parent / "results" / "budgets.json"
SCHEMA = "halp-trt/budgets/1"
MODELS = ("torchvision:resnet50", "torchvision:mobilenet_v2", "resnet20")
METHODS = {"resnet20": "joint-blocks"}
"""The widths of ResNet-20's first stage fill one vector: it gets below about 40 % only without some of its blocks."""
BUDGETS = ("80%", "60%", "40%", "25%")


def main() -> None:
    """Runs every cell that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--budget", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the two engines are timed")
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, runs and engines")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    cells = json.loads(arguments.result.read_bytes())["cells"] if arguments.result.exists() else {}
    for model in arguments.model or MODELS:
        for budget in arguments.budget or BUDGETS:
            method = METHODS.get(model, "joint")
            name = f"{model} {method} {budget}"
            if name not in cells:
                cells[name] = _cell(model, method, budget, arguments)
                print(name, json.dumps({k: v for k, v in cells[name].items() if k != "target"}), flush=True)
                command = "python benchmarks/budgets.py --work WORK"
                result = {"schema": SCHEMA, "version": __version__, "command": command, "cells": cells}
                write_json(arguments.result, result)


def _cell(model: str, method: str, budget: str, arguments: argparse.Namespace) -> dict[str, Any]:
    work = arguments.work / model.replace(":", "-")
    work.mkdir(parents=True, exist_ok=True)
    table = work / "table.jsonl"
    settings = Settings.of(
        model=model,
        data="none",
        classes=None if ":" in model else 10,
        runtime="onnxruntime",
        lut=str(table),
        budget=Budget.parse(budget),
        method=method,
        pruning_steps=1,
        epochs=0,
    )
    if not table.exists():
        create_table(table, find_target(settings.place)[1])
    run = RunFolder(path=work / f"{method}-{budget.rstrip('%')}")
    started = time.perf_counter()
    prune_alone(settings, run, lambda done, total, note: None, resume=False)
    pruned = time.perf_counter()
    deploy_run(run, settings.place, settings.data, DeployOptions(engines=work / "engines"))
    found = verify_alone(run, settings, engines=work / "engines", tolerances=Tolerances(seconds=arguments.seconds))
    plan = load(run.plan)
    assert isinstance(plan, PruningPlan)
    latency_us = found.pruned.measurement.latency_us
    row: dict[str, Any] = read_rows(run, 1)[0]
    share = found.limit_us / found.dense.measurement.latency_us
    return {
        "target": encode(found.target),
        "budget_us": round(found.limit_us, 1),
        "measured_us": round(latency_us, 1),
        "dense_us": round(found.dense.measurement.latency_us, 1),
        "of_budget": round(latency_us / found.limit_us, 4),
        "of_budget_while_pruning": round(row["measured_us"] / row["measured_dense_us"] / share, 4),
        "prediction_error": round(found.pruned.prediction_error_fraction or 0.0, 4),
        "kernels_error": round((found.pruned.kernels_us or 0.0) / latency_us - 1, 4),
        "calibration": {
            "slope": round(plan.calibration, 4),
            "overhead_us": round(plan.overhead_us, 1),
            "r_squared": round(plan.calibration_r_squared, 5),
            "largest_error_fraction": round(plan.calibration_error_fraction, 4),
        },
        "engines_timed_while_pruning": 2 + len(row.get("others", [])),
        "largest_difference": found.max_difference,
        "prune_seconds": round(pruned - started, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }


if __name__ == "__main__":
    main()
