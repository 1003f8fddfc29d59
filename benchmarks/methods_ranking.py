"""Which figure of an untrained plan tells best how well its network learns?

    python benchmarks/methods_ranking.py --network resnet20 --data cifar10:PATH --dense WEIGHTS --work WORK

The candidates of one pruning step (12, at 50 % of the latency) are each judged four ways: by the saliency that they
keep, by their accuracy as they are, by their accuracy once batch norms are estimated anew (the way of
``--candidates``), and by their accuracy after an epoch of fine-tuning. Kendall's tau of the first three against the
last is the result, benchmarks/results/ranking-NETWORK.json, written after every candidate; those that are there are not
trained again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import nn

from halp_trt import __version__, planning
from halp_trt.models.masks.hard import HARD
from halp_trt.models.slim import slim
from halp_trt.planning import Candidate
from halp_trt.specs import Budget, PruningPlan, Saliency
from halp_trt.store import create_table, write_json
from halp_trt.tasks import lesson_of
from halp_trt.tasks.evaluation import evaluate, module_predict
from halp_trt.training.loop import train
from halp_trt.training.world import ALONE
from halp_trt.workflows.candidates import candidates_of, distinct_plans, value_of
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.network import network_of
from halp_trt.workflows.notes import Notes
from halp_trt.workflows.prepared import prepare
from halp_trt.workflows.prune_job import PruneJob
from halp_trt.workflows.prune_job import prepare as prepare_job
from halp_trt.workflows.prune_stage import lookup_of
from halp_trt.workflows.prune_training import score_by_training
from halp_trt.workflows.refusals import request_of
from halp_trt.workflows.request import Subject
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.target import find_target

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/ranking/1"
FIGURES = ("saliency", "raw", "estimated")
"""The figures of an untrained plan."""


def main() -> None:
    """Judges every candidate that is not there yet."""
    torch.set_num_threads(1)
    arguments = _arguments()
    path = arguments.result or RESULTS / f"ranking-{arguments.network.partition(':')[2] or arguments.network}.json"
    rows = json.loads(path.read_bytes())["candidates"] if path.exists() else {}
    job, own, found = _candidates(_settings(arguments), arguments.work)
    for candidate, plan in found:
        if candidate.name in rows:
            continue
        rows[candidate.name] = _judged(job, own, plan)
        print(candidate.name, rows[candidate.name], flush=True)
        write_json(path, {"schema": SCHEMA, "version": __version__, "candidates": rows, "tau": _taus(rows)})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, help="a network, as halp-trt takes it")
    parser.add_argument("--data", required=True, help="a data source, as halp-trt takes it")
    parser.add_argument("--dense", default="", help="its trained weights")
    parser.add_argument("--work", type=Path, required=True, help="folder of the latency table")
    parser.add_argument("--result", type=Path)
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings.of(
        model=arguments.network,
        data=arguments.data,
        weights=arguments.dense,
        runtime=arguments.runtime,
        lut=str(arguments.work / "table.jsonl"),
        budget=Budget.parse(arguments.budget),
        candidates=arguments.candidates,
        pruning_steps=1,
        epochs=arguments.epochs,
        seed=arguments.seed,
    )


def _candidates(settings: Settings, work: Path) -> tuple[PruneJob, Saliency, list[tuple[Candidate, PruningPlan]]]:
    """The candidates of one step from the dense network, with their plans, and the step's own saliency."""
    runtime, target = find_target(settings.place)
    table = Path(settings.table.lut)
    if not table.exists():
        create_table(table, target)
    network, data = network_of(settings)
    prepared, request, notes = prepare(network, data), request_of(settings), Notes()
    subject = Subject(
        module=copy.deepcopy(network.module),
        example=network.example,
        graph=prepared.graph,
        model=prepared.model,
        data=data,
    )
    lookup = lookup_of(prepared.graph, settings.table, table, runtime, target)
    job = prepare_job(
        subject,
        request,
        RunFolder(path=work / "ranking"),
        fingerprint="",
        lookup=lookup,
        world=ALONE,
        report=lambda done, total, note: None,
    )
    found: list[tuple[Candidate, PruningPlan]] = []
    scores: list[Saliency] = []

    def choose(own: Candidate, plan_of: Any) -> Candidate:
        scores.append(own.saliency)
        found.extend(distinct_plans(candidates_of(job, own, notes.others, 0), plan_of))
        return own

    score = score_by_training(job, 0, notes)
    steps = planning.prune(
        prepared.graph,
        lookup,
        budget=request.budget,
        score=score,
        method=request.method,
        num_steps=1,
        grid_step=request.grid_step,
        choose=choose,
    )
    next(steps)
    return job, scores[0], found


def _judged(job: PruneJob, own: Saliency, plan: PruningPlan) -> dict[str, float]:
    """The figures of a plan, and the accuracy that its network comes to."""
    data = job.subject.data
    assert data is not None
    twin = copy.deepcopy(job.subject.module)
    HARD.apply(twin, plan)
    kept = [own.scores[g.name][channel] for g in plan.graph.prunable_groups for channel in plan.kept[g.name]]
    raw = evaluate(module_predict(twin), data).value
    return {
        "saliency": math.fsum(kept),
        "raw": raw,
        "estimated": value_of(job, plan),
        "tuned": _tuned(job, slim(twin, plan)),
        "latency_us": plan.latency_us,
    }


def _tuned(job: PruneJob, module: nn.Module) -> float:
    data = job.subject.data
    assert data is not None
    train(module, lesson_of(data, job.request.train))
    return evaluate(module_predict(module), data).value


def _taus(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Kendall's tau of every figure against the accuracy after fine-tuning."""
    tuned = [row["tuned"] for row in rows.values()]
    if len(tuned) < 2:
        return {}
    taus = {name: float(kendalltau([row[name] for row in rows.values()], tuned).statistic) for name in FIGURES}
    return {name: round(tau, 4) for name, tau in taus.items() if math.isfinite(tau)}


if __name__ == "__main__":
    main()
