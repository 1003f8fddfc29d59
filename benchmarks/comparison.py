"""Prunes one network to several budgets with several methods and verifies every engine: one JSON with all results.

The network on CIFAR-10 (from scratch, one seed):

    python benchmarks/comparison.py cifar10-resnet20 --data cifar10:PATH --work WORK

ResNet-50 at 224, random weights, no pictures:

    python benchmarks/comparison.py resnet50 --work WORK

Results land in benchmarks/results/<name>.json. WORK keeps what was trained and measured; a second call goes on from it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dense_training import TRAINING, report, timed, train_cycles

from halp_trt import __version__
from halp_trt.specs import Verification
from halp_trt.store import encode, load, read_json, write_json
from halp_trt.workflows.deploy import Order
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder, Settings
from halp_trt.workflows.network import load_network
from halp_trt.workflows.prune_stage import prune_run
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_table
from halp_trt.workflows.verify_stage import verify_run

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/comparison/2"
"""Version 1 held verifications of version 1, with accuracies in place of scores."""
CASES: Mapping[str, tuple[Settings, tuple[tuple[str, str], ...]]] = {
    "cifar10-resnet20": (
        Settings(
            model="resnet20",
            train_epochs=66,
            steps=5,
            minibatches=20,
            epochs=3,
            tune_rate=0.05,
            step=8,
        ),
        tuple((method, budget) for method in ("uniform", "halp", "joint") for budget in ("70%", "50%")),
    ),
    "resnet50": (
        Settings(model="torchvision:resnet50", num_classes=1000, data="none", train_epochs=0, steps=5, step=16),
        (("halp", "70%"), ("halp", "45%")),
    ),
}


def main() -> None:
    """Runs one case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--data", default="none", help="a data source, as halp-trt takes it")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs, engines and the latency table")
    arguments = parser.parse_args()
    settings, contests = CASES[arguments.case]
    settings = replace(settings, data=arguments.data, lut=str(arguments.work / "table.jsonl"))
    cycles = TRAINING[settings.model] if settings.train_epochs else ()
    seconds: dict[str, float] = {}
    dense = RunFolder(path=arguments.work / "dense")
    if settings.train_epochs:
        seconds |= _train(settings, dense)
        settings = replace(settings, weights=str(dense.trained))
    survey = Survey(step=settings.step, seed=settings.seed)
    timed(seconds, "build-lut", lambda: measure_table(settings, survey, None, report("build-lut"), resume=True))
    rows = [_contest(settings, method, budget, arguments.work) for method, budget in contests]
    write_json(
        RESULTS / f"{arguments.case}.json",
        {
            "schema": SCHEMA,
            "command": shlex.join(["python", "benchmarks/comparison.py", arguments.case, *_public(arguments.data)]),
            "version": __version__,
            "settings": {**encode(settings), "weights": "", "lut": "", "data": arguments.data.partition(":")[0]},
            "seeds": {"training": [how.seed for how in cycles], "pruning and fine-tuning": settings.seed},
            "steps": {
                "pruning": settings.steps,
                "minibatches between": settings.minibatches,
                "channels": settings.step,
            },
            "training": encode(cycles),
            "seconds": seconds,
            "rows": rows,
        },
    )


def _train(settings: Settings, run: RunFolder) -> dict[str, float]:
    """Trains the dense network from scratch, unless WORK holds its weights already; gives the seconds it took."""
    stamp = run.path / "seconds.json"
    if not (run.trained.exists() and stamp.exists()):
        network, data = load_network(settings)
        if data is None:
            sys.exit("error: training needs pictures; name them with --data")
        seconds: dict[str, float] = {}
        timed(seconds, "train", lambda: train_cycles(network.module, data, TRAINING[settings.model], run.trained))
        write_json(stamp, seconds)
    return {"train": float(read_json(stamp)["train"])}


def _public(data: str) -> list[str]:
    kind = data.partition(":")[0]
    return ["--data", f"{kind}:PATH" if ":" in data else kind, "--work", "WORK"]


def _contest(settings: Settings, method: str, budget: str, work: Path) -> dict[str, Any]:
    """Prunes, deploys and verifies once; a finished contest is read back."""
    run = RunFolder(path=work / f"{method}-{budget.strip('%')}")
    stamp = run.path / "seconds.json"
    asked = replace(settings, method=method, budget=budget)
    if not stamp.exists():
        seconds: dict[str, float] = {}
        timed(seconds, f"prune {method} {budget}", lambda: prune_run(asked, run, report("prune"), resume=True))
        timed(seconds, "deploy", lambda: deploy_run(run, asked, Order(engines=work / "engines")))
        timed(seconds, "verify", lambda: verify_run(run, asked, engines=work / "engines"))
        write_json(stamp, seconds)
    found = load(run.verification)
    assert isinstance(found, Verification)
    plan = run.read_plan()
    graph = plan.graph
    steps = [json.loads(line) for line in run.log.read_text(encoding="utf-8").splitlines()]
    return {
        "method": method,
        "budget": budget,
        "verification": encode(found),
        "calibration": plan.calibration,
        "overhead_us": plan.overhead_us,
        "table_sum_us": {"dense": steps[0]["dense_us"], "pruned": plan.latency_us},
        "kept": {group.name: [len(plan.kept[group.name]), group.num_channels] for group in graph.prunable_groups},
        "steps": steps,
        "seconds": read_json(stamp),
    }


if __name__ == "__main__":
    main()
