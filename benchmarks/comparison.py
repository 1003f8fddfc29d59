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
from pathlib import Path
from typing import Any

from dense_training import TRAINING, report, timed, train_cycles

from halp_trt import __version__
from halp_trt.specs import Budget, Verification
from halp_trt.store import encode, load, read_json, write_json
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prune_stage import prune_alone
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_alone
from halp_trt.workflows.verify_stage import verify_alone

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/comparison/2"
"""Version 1 held verifications of version 1, with accuracies in place of scores."""
CASES: Mapping[str, tuple[Settings, tuple[tuple[str, str], ...]]] = {
    "cifar10-resnet20": (
        Settings.of(
            model="resnet20",
            train_epochs=66,
            pruning_steps=5,
            minibatches=20,
            epochs=3,
            tune_rate=0.05,
            width_step=8,
        ),
        tuple((method, budget) for method in ("uniform", "halp", "joint") for budget in ("70%", "50%")),
    ),
    "resnet50": (
        Settings.of(
            model="torchvision:resnet50", classes=1000, data="none", train_epochs=0, pruning_steps=5, width_step=16
        ),
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
    settings = settings.changed(data=arguments.data)
    model, has_training = settings.network.model, settings.train.train_epochs > 0
    cycles = TRAINING[model] if has_training else ()
    seconds: dict[str, float] = {}
    dense = RunFolder(path=arguments.work / "dense")
    if has_training:
        seconds |= _train(settings, dense)
        settings = settings.changed(weights=str(dense.trained))
    survey, path = Survey(step=settings.table.width_step, seed=settings.random.seed), arguments.work / "table.jsonl"
    timed(seconds, "build-lut", lambda: measure_alone(settings, survey, path, report("build-lut"), resume=True))
    settings = settings.changed(lut=str(path))
    rows = [_contest(settings, method, budget, arguments.work) for method, budget in contests]
    write_json(
        RESULTS / f"{arguments.case}.json",
        {
            "schema": SCHEMA,
            "command": shlex.join(["python", "benchmarks/comparison.py", arguments.case, *_public(arguments.data)]),
            "version": __version__,
            "settings": {
                **encode(settings.by_name()),
                "weights": "",
                "lut": "",
                "data": arguments.data.partition(":")[0],
            },
            "seeds": {"training": [how.seed for how in cycles], "pruning and fine-tuning": settings.random.seed},
            "steps": {
                "pruning": settings.prune.pruning_steps,
                "minibatches between": settings.prune.minibatches,
                "channels": settings.table.width_step,
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
        network, data = network_of(settings)
        if data is None:
            sys.exit("error: training needs pictures; name them with --data")
        seconds: dict[str, float] = {}
        timed(
            seconds, "train", lambda: train_cycles(network.module, data, TRAINING[settings.network.model], run.trained)
        )
        write_json(stamp, seconds)
    return {"train": float(read_json(stamp)["train"])}


def _public(data: str) -> list[str]:
    kind = data.partition(":")[0]
    return ["--data", f"{kind}:PATH" if ":" in data else kind, "--work", "WORK"]


def _contest(settings: Settings, method: str, budget: str, work: Path) -> dict[str, Any]:
    """Prunes, deploys and verifies once; a finished contest is read back."""
    run = RunFolder(path=work / f"{method}-{budget.strip('%')}")
    stamp = run.path / "seconds.json"
    asked = settings.changed(method=method, budget=Budget.parse(budget))
    if not stamp.exists():
        seconds: dict[str, float] = {}
        timed(seconds, f"prune {method} {budget}", lambda: prune_alone(asked, run, report("prune"), resume=True))
        timed(
            seconds, "deploy", lambda: deploy_run(run, asked.place, asked.data, DeployOptions(engines=work / "engines"))
        )
        timed(seconds, "verify", lambda: verify_alone(run, asked, engines=work / "engines"))
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
