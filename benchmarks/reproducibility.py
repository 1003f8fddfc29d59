"""Whether two latency tables of one machine agree, and the plans that are made from them.

    python benchmarks/reproducibility.py --work WORK [--model torchvision:mobilenet_v2] [--budget 60%]

Surveys a network twice, one table after the other; while the second is measured, a loop keeps another core busy. Then a
plan is made from either, with the same saliency (made up: what counts here is the latency), and both engines are timed
in turns with the dense one. Results land in benchmarks/results/reproducibility.json. Needs two cores, and nothing else
may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.runtimes import get_runtime
from halp_trt.specs import ChannelGraph, PruningPlan, Saliency
from halp_trt.store import encode, save, write_json
from halp_trt.timing import pin_to_one_core
from halp_trt.workflows.compare import Certainty, compare
from halp_trt.workflows.inputs import example_inputs
from halp_trt.workflows.measurer import speed_of
from halp_trt.workflows.plan import PlanRequest, make_plan
from halp_trt.workflows.survey import Survey, survey_lut

RESULT = Path(__file__).resolve().parent / "results" / "reproducibility.json"
SCHEMA = "halp-trt/reproducibility/2"


def main() -> None:
    """Measures both tables, makes both plans and times them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="torchvision:mobilenet_v2")
    parser.add_argument("--budget", default="60%")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the engines are timed")
    parser.add_argument("--work", type=Path, required=True, help="folder for tables")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", 1)
    loaded = load_model(arguments.model)
    model = export(loaded.module, loaded.example)
    graph = trace(loaded.module, loaded.example, source=arguments.model, model=model)
    paths = [arguments.work / f"{name}.jsonl" for name in ("quiet", "busy")]
    tables = []
    for path, disturb in zip(paths, (False, True), strict=True):
        path.unlink(missing_ok=True)
        with _busy_core() if disturb else pin_to_one_core():
            tables.append(survey_lut(graph, Survey(), path=path, runtime=runtime, target=target))
    first, second = (table.rows for table in tables)
    common = [spec for spec in first if spec in second]
    ratios = np.array([second[spec].latency_us / first[spec].latency_us for spec in common])
    speeds = [_speed_us(rows) for rows in (first, second)]
    plans = [_plan(path, graph, arguments) for path in paths]
    engines = {"dense": PruningPlan.dense(graph), "first": plans[0], "second": plans[1]}
    sessions = {name: runtime.load(rewrite(model, plan).SerializeToString(), target) for name, plan in engines.items()}
    inputs = example_inputs(sessions["dense"], None)
    timed = compare(sessions, inputs, until=Certainty.lasting(arguments.seconds)).measurements
    latencies = {name: row.latency_us for name, row in timed.items()}
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "command": f"python benchmarks/reproducibility.py --work WORK --model {arguments.model}",
        "model": arguments.model,
        "target": encode(target),
        "budget": arguments.budget,
        "num_rows": [len(first), len(second), len(common)],
        "row_difference": _quantiles(ratios),
        "row_difference_at_equal_speed": _quantiles(ratios * speeds[0] / speeds[1]),
        "speed_us": [round(speed, 1) for speed in speeds],
        "reference_us": [
            round(float(np.median([row.reference_us for row in rows.values()])), 1) for rows in (first, second)
        ],
        "engines_us": {name: round(latency_us, 1) for name, latency_us in latencies.items()},
        "engine_difference": round(latencies["second"] / latencies["first"] - 1, 4),
    }
    write_json(arguments.result, found)
    print(found)


def _speed_us(rows: Any) -> float:
    """What the reference takes at the speed that a table's rows are brought to."""
    return speed_of(rows)


def _quantiles(ratios: Any) -> dict[str, float]:
    differences = np.abs(ratios - 1)
    return {
        "median": round(float(np.median(differences)), 4),
        "p90": round(float(np.percentile(differences, 90)), 4),
        "largest": round(float(differences.max()), 4),
    }


def _plan(table: Path, graph: ChannelGraph, arguments: argparse.Namespace) -> PruningPlan:
    """The joint optimum by one of the tables."""
    random = np.random.default_rng(0)
    saliency = Saliency(
        scores={group.name: tuple(random.exponential(size=group.num_channels).tolist()) for group in graph.groups}
    )
    files = {"graph": graph, "saliency": saliency}
    for name, value in files.items():
        save(value, arguments.work / f"{name}.json")
    request = PlanRequest(
        source=table,
        budget=arguments.budget,
        saliency=arguments.work / "saliency.json",
        graph=arguments.work / "graph.json",
    )
    _, _, plan, _ = make_plan(request)
    assert plan is not None
    return plan


@contextmanager
def _busy_core() -> Iterator[None]:
    """Keeps the first of the cores busy; what measures is pinned to the last."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    time.sleep(2.0)
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _spin() -> None:
    os.sched_setaffinity(0, {min(range(os.cpu_count() or 1))})
    while True:
        pass


if __name__ == "__main__":
    main()
