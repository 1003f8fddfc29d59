"""FastestDet with its public weights: scored, pruned, and taught by itself on pictures without labels."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from chains import Clock, in_turns
from dense_training import report

from halp_trt.latency import Effort
from halp_trt.runtimes import Session
from halp_trt.specs import Budget, Score
from halp_trt.store import encode, read_json, write_json
from halp_trt.tasks import task_of
from halp_trt.tasks.data import load_data
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.detection.coco_rule import coco_precision
from halp_trt.tasks.detection.objects import Detections, Objects
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder, engine_path, load_engine
from halp_trt.workflows.network import for_network, network_of
from halp_trt.workflows.prepared import Prepared, prepare
from halp_trt.workflows.prune_stage import prune_run
from halp_trt.workflows.reading import predict_of
from halp_trt.workflows.settings import Settings
from halp_trt.workflows.survey import Survey
from halp_trt.workflows.table_stage import measure_table
from halp_trt.workflows.target import find_target
from halp_trt.workflows.verify_stage import score_of

__all__ = ["Distilling", "run_fastestdet"]

PUBLISHED, CLOSE = 0.344, 0.003
"""mAP@50 of the public weights on these pictures as it was found elsewhere, and how near ours must come."""
LEAST_SCORE = 0.3
"""The least score of a box of the dense engine that the pruned engine must find, where they are compared."""
MAP_50 = "mAP@50"
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilling:
    """The pruning and the training without labels.

    Attributes:
        side: height and width of the pictures, in pixels.
        epochs, rate: of learning the dense network's outputs.
        batch: pictures in a training step.
        steps: pruning steps.
        grid: channels between two measured widths.
        probes: most measurements of the table's survey.
    """

    side: int = 352
    epochs: int = 100
    rate: float = 0.0005
    batch: int = 16
    steps: int = 5
    grid: int = 8
    probes: int = 400


def run_fastestdet(arguments: argparse.Namespace, write: Write) -> None:
    """Scores the dense engine, and for each budget the pruned one."""
    how = Distilling(**{one.name: getattr(arguments, one.name) for one in fields(Distilling)})
    rows: dict[str, Any] = {}
    for budget in arguments.budget:
        place = arguments.work / f"fastestdet-{budget}"
        done = place / "row.json"
        if not done.exists():
            place.mkdir(parents=True, exist_ok=True)
            write_json(done, _pruned(arguments, how, place, Budget(fraction=budget / 100)))
        rows[str(budget)] = read_json(done)
        dense = rows[str(budget)]["dense"]["parts"][MAP_50]
        write(
            {
                "how": asdict(how),
                "published": PUBLISHED,
                "is_reproduced": abs(dense - PUBLISHED) <= CLOSE,
                "budgets": rows,
            }
        )


def _settings(arguments: argparse.Namespace, how: Distilling, budget: Budget) -> Settings:
    images = arguments.data.partition(":")[2].rpartition(",")[0]
    return Settings.of(
        model="fastestdet",
        weights=str(arguments.weights),
        input=(3, how.side, how.side),
        classes=80,
        data=f"pictures:{images}",
        runtime="onnxruntime",
        lut=str(arguments.work / "fastestdet-table.jsonl"),
        width_step=how.grid,
        budget=budget,
        pruning_steps=how.steps,
        epochs=how.epochs,
        tune_rate=how.rate,
        train_batch=how.batch,
        optimizer="adamw",
        weight_decay=0.01,
        distillation=1.0,
        score_every=0,
    )


def _pruned(arguments: argparse.Namespace, how: Distilling, place: Path, budget: Budget) -> dict[str, Any]:
    """The row of a budget: latencies in turns, scores by the labels, agreement with the dense engine without them."""
    settings, run, engines = _settings(arguments, how, budget), RunFolder(path=place / "run"), place / "engines"
    runtime, target = find_target(settings.place)
    clock, table = Clock(place / "seconds.json"), Path(settings.table.lut)
    prepared = clock.timed("trace", lambda: prepare(*network_of(settings)))
    survey = Survey(step=how.grid, effort=Effort(max_probes=how.probes))
    clock.timed(
        "table", lambda: measure_table(prepared.graph, survey, table, runtime, target, report("table"), resume=True)
    )
    clock.timed("prune", lambda: prune_run(prepared, settings, run, report("prune"), resume=True))
    clock.timed(
        "compile",
        lambda: deploy_run(run, settings.place, settings.data, DeployOptions(engines=engines), prepared=prepared),
    )
    labelled = for_network(load_data(arguments.data, input_shape=(3, how.side, how.side)), prepared.network.module)
    sessions = {}
    for role, parent in (("dense", run.dense_model), ("pruned", run.pruned_model)):
        _, engine = load_engine(engine_path(engines, run, role, target, runtime.suffix), parent)
        sessions[role] = runtime.load(engine, target)
    timed = in_turns(run, settings.place, engines, prepared, arguments.seconds)
    return {
        **{role: encode(_score(session, labelled, prepared)) for role, session in sessions.items()},
        "agreement": _agreement(sessions, labelled, prepared),
        "dense_us": timed.measurements["dense"].latency_us,
        "pruned_us": timed.measurements["pruned"].latency_us,
        "share": timed.ratio,
        "share_error": timed.ratio * timed.ratio_error_fraction,
        "seconds": clock.seconds,
        "target": encode(target),
    }


def _score(session: Session, data: DataSet, prepared: Prepared) -> Score:
    found = score_of(session, data, prepared.network.output_names)
    assert found is not None, "there are labels"
    return found


def _agreement(sessions: Mapping[str, Session], data: DataSet, prepared: Prepared) -> float:
    """mAP@50 of the pruned engine where the dense engine's likely boxes are taken for the objects."""
    found = {role: _detections(session, data, prepared) for role, session in sessions.items()}
    truth = []
    for one in found["dense"]:
        likely = one.scores >= LEAST_SCORE
        truth.append(
            Objects(boxes=one.boxes[likely], labels=one.labels[likely], is_ignored=np.zeros(likely.sum(), dtype=bool))
        )
    return coco_precision(found["pruned"], truth, data.num_classes).mean_50


def _detections(session: Session, data: DataSet, prepared: Prepared) -> list[Detections]:
    """The detections of an engine in every test picture, in pixels."""
    task, predict, found = task_of(data), predict_of(session, prepared.network.output_names), []
    for number in range(data.num_test):
        pictures, (target,) = data.test_batch([number])
        height, width = (int(side) for side in target["size"])
        found.append(task.predict(predict(pictures.numpy()))[0].scaled(width, height))
    return found
