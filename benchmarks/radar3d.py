"""Pruned pillar detectors on radar3d: average precision of cars and cyclists, dense and at shares of the latency.

    python benchmarks/radar3d.py --data radar3d:PATH --work WORK [--epochs 12] [--tune-epochs 4] [--seed 0 1]

The detector is trained from scratch (one to three minutes an epoch on one core), pruned to each budget by ``--method``,
fine-tuned, deployed and verified like a user's: both engines timed in turns, each scored on the test frames. One seed
after the other; results land in RESULT after every row, and rows that are there are not repeated. WORK keeps what was
trained and measured; a training that was killed goes on from its last epoch. Nothing else may run on the machine
meanwhile. At the end the section for docs/measured.md is printed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dense_training import report, timed

from halp_trt import __version__
from halp_trt.specs import Budget, EngineCheck, Verification
from halp_trt.store import encode, load, read_json, write_json
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prune_stage import prune_alone
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_alone
from halp_trt.workflows.train_stage import train_dense
from halp_trt.workflows.verify import Tolerances
from halp_trt.workflows.verify_stage import verify_alone

RESULT = Path(__file__).resolve().parent / "results" / "radar3d.json"
SCHEMA = "halp-trt/radar3d/1"
BUDGETS = ("70%", "50%")
CLASSES = ("Car", "Cyclist")
"""The classes that are told; trucks are too few in the test frames (37) to score."""
SECTION = """## Objects around a radar

A pillar detector on 2,585 frames of a 4D radar, tested on drives that it was not trained on: average precision as
nuScenes counts it, over distances of centres from 0.5 to 4 m, and within distances from the sensor.

<!-- figures: benchmarks/results/radar3d.json -->
{table}<!-- end -->
"""


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that all rows share."""
    return Settings.of(
        model=arguments.model,
        data=arguments.data,
        input=arguments.input,
        runtime="onnxruntime",
        method=arguments.method,
        optimizer="adamw",
        weight_decay=0.01,
        train_precision="fp32",
        train_batch=arguments.batch,
        train_epochs=arguments.epochs,
        train_rate=arguments.rate,
        epochs=arguments.tune_epochs,
        tune_rate=arguments.rate / 2,
        score_every=0,
        pruning_steps=arguments.pruning_steps,
        minibatches=arguments.minibatches,
        width_step=arguments.width_step,
        timing_seconds=arguments.seconds,
    )


def main(words: Sequence[str] | None = None) -> None:
    """Runs every row that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="radar3d:PATH")
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, runs and engines")
    parser.add_argument("--epochs", type=int, default=12, help="of training the dense detector")
    parser.add_argument("--tune-epochs", type=int, default=4, help="of fine-tuning each pruned one")
    parser.add_argument("--seed", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--budget", nargs="*", default=BUDGETS)
    parser.add_argument("--method", default="joint")
    parser.add_argument("--model", default="pillars")
    parser.add_argument("--input", default="9x512x128")
    parser.add_argument("--batch", type=int, default=16, help="frames in a training step")
    parser.add_argument("--rate", type=float, default=0.002, help="peak learning rate; fine-tuning takes half of it")
    parser.add_argument("--pruning-steps", type=int, default=5)
    parser.add_argument("--minibatches", type=int, default=20)
    parser.add_argument("--width-step", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long two engines are timed")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args(words)
    arguments.input = tuple(map(int, arguments.input.split("x")))
    settings, table = settings_of(arguments), arguments.work / "table.jsonl"
    rows: list[dict[str, Any]] = read_json(arguments.result)["rows"] if arguments.result.exists() else []
    done = {(row["seed"], row["budget"]) for row in rows}
    for seed in arguments.seed:
        missing = [budget for budget in arguments.budget if (seed, budget) not in done]
        if not missing:
            continue
        asked = _trained(settings.changed(seed=seed), arguments.work / f"dense-{seed}")
        survey = Survey(step=settings.table.width_step)
        measure_alone(asked, survey, table, report("build-lut"), resume=True)
        for budget in missing:
            contest = asked.changed(lut=str(table), budget=Budget.parse(budget))
            rows.append(_row(contest, seed, budget, arguments))
            write_json(arguments.result, _result(arguments, rows))
            print(json.dumps({key: rows[-1][key] for key in ("seed", "budget", "share", "pruned")}), flush=True)
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    from figures import figures

    print(SECTION.format(table=figures(arguments.result)))


def _trained(settings: Settings, folder: Path) -> Settings:
    """The settings with the dense detector's weights, trained unless they are there."""
    run = RunFolder(path=folder)
    if not run.trained.exists():
        network, data = network_of(settings)
        if data is None:
            sys.exit("error: training needs frames; name them with --data radar3d:PATH")
        seed, seconds = settings.random.seed, dict[str, float]()
        train = lambda: train_dense(  # noqa: E731 (it is timed)
            network, data, settings.train, settings.tune, run, report("train"), seed=seed, resume=True
        )
        timed(seconds, f"train, seed {seed}", train)
        write_json(folder / "seconds.json", seconds)
    return settings.changed(weights=str(run.trained))


def _row(settings: Settings, seed: int, budget: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prunes, deploys and verifies once."""
    run, engines = RunFolder(path=arguments.work / f"{budget.strip('%')}-{seed}"), arguments.work / "engines"
    seconds: dict[str, float] = {}
    timed(seconds, f"prune {budget}", lambda: prune_alone(settings, run, report("prune"), resume=True))
    timed(seconds, "deploy", lambda: deploy_run(run, settings.place, settings.data, DeployOptions(engines=engines)))
    tolerances = Tolerances(seconds=arguments.seconds)
    timed(seconds, "verify", lambda: verify_alone(run, settings, engines=engines, tolerances=tolerances))
    found = load(run.verification)
    assert isinstance(found, Verification)
    plan = run.read_plan()
    return {
        "seed": seed,
        "budget": budget,
        "target": encode(found.target),
        "share": round(1 / found.speedup, 4),
        "max_difference": found.max_difference,
        "kept": {group.name: [len(plan.kept[group.name]), group.num_channels] for group in plan.graph.prunable_groups},
        "dense": _engine(found.dense),
        "pruned": _engine(found.pruned),
        "seconds": seconds,
    }


def _engine(check: EngineCheck) -> dict[str, Any]:
    """The latency and the scores of an engine."""
    assert check.score is not None
    return {
        "latency_us": round(check.measurement.latency_us, 1),
        "num_parameters": check.num_parameters,
        "mAP": round(check.score.value, 4),
        "parts": {name: round(value, 4) for name, value in check.score.parts.items() if name.startswith(CLASSES)},
        "num_frames": check.score.num_examples,
    }


def _result(arguments: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    kind = arguments.data.partition(":")[0]
    command = ["python", "benchmarks/radar3d.py", "--data", f"{kind}:PATH", "--work", "WORK"]
    command += ["--epochs", str(arguments.epochs), "--tune-epochs", str(arguments.tune_epochs)]
    shared = settings_of(arguments).changed(data=kind)
    return {
        "schema": SCHEMA,
        "version": __version__,
        "command": shlex.join(command),
        "settings": encode(shared.by_name()),
        "classes": list(CLASSES),
        "rows": list(rows),
    }


if __name__ == "__main__":
    main()
