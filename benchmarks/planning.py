"""Planning side by side: every solver, an independent formulation and the papers' recurrence, each in its own process.

    python benchmarks/planning.py --instance SHARED/titanv/resnet50.json

Results land in benchmarks/results/planning.json. The networks' tables are the synthetic device's by default; ``--lut``
names a measured table instead, which must hold every pair of widths. One process runs at a time; of the quick ones the
fastest of ``--repeats`` counts, and seconds are the solver's own, without reading files.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results" / "planning.json"
SCHEMA = "halp-trt/planning-benchmark/1"
BUDGETS = (80, 55, 30)
OURS = ("halp", "exact", "joint", "joint-blocks")
PEERS = ("integer programme", "papers in plain Python")
NETWORKS = ("resnet50", "resnet101")
QUICK_S = 20.0


def main() -> None:
    """Runs everything, or with ``--case`` one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instance", type=Path, required=True, help="planning instance")
    parser.add_argument("--lut", type=Path, help="latency table for the networks, with every pair of widths")
    parser.add_argument("--step", type=int, default=8, help="channels between two widths of the networks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600.0, help="time limit of the integer programme")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(_case(json.loads(arguments.case), arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = _all(arguments, Path(folder))
    result = {
        "schema": SCHEMA,
        "command": shlex.join(["python", "benchmarks/planning.py", *sys.argv[1:]]),
        "machine": {
            "processor": _processor(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy")},
        },
        **rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {arguments.out}")


def _all(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    instance, networks = [], []
    for budget in BUDGETS:
        for solver in (*OURS, *PEERS):
            instance.append(_measure({"kind": "instance", "solver": solver, "budget": budget}, arguments, folder))
    for network in NETWORKS:
        _spawn({"kind": "trace", "network": network}, arguments, folder)
        for budget in BUDGETS:
            for solver in ("joint", "joint-blocks"):
                case = {"kind": "network", "network": network, "solver": solver, "budget": budget}
                networks.append(_measure(case, arguments, folder))
    return {"instance": instance, "networks": networks, "sweep": _measure({"kind": "sweep"}, arguments, folder)}


def _measure(case: Mapping[str, Any], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The fastest of some runs of a case, each in a process of its own."""
    found = [_spawn(case, arguments, folder)]
    while len(found) < arguments.repeats and found[0]["seconds"] < QUICK_S:
        found.append(_spawn(case, arguments, folder))
    best = min(found, key=lambda row: float(row["seconds"]))
    print({key: value for key, value in best.items() if key != "kept"}, flush=True)
    return best


def _spawn(case: Mapping[str, Any], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--instance", str(arguments.instance), "--step", str(arguments.step)]
    command += ["--seconds", str(arguments.seconds), "--folder", str(folder), "--case", json.dumps(case)]
    command += ["--lut", str(arguments.lut)] if arguments.lut else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


# ---- one measurement, in a process of its own -----------------------------------------------------------------------


def _case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    kinds: dict[str, Callable[[dict[str, Any], argparse.Namespace], dict[str, Any]]] = {
        "instance": _instance_case,
        "network": _network_case,
        "trace": _trace_case,
        "sweep": _sweep_case,
    }
    row = {**case, **kinds[case["kind"]](case, arguments), "peak_mib": _peak_mib()}
    del row["kind"]
    return row


def _instance_case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    instance = json.loads(arguments.instance.read_text())
    dense = _dense(instance)
    budget = case["budget"] / 100 * dense
    if case["solver"] in OURS:
        return {**_solved(_instance_problem(instance), case["solver"], budget), "dense_us": dense}
    from planning_peers import integer_programme, papers_knapsack, true_latency

    if case["solver"] == PEERS[0]:
        import scipy.optimize
        import scipy.sparse  # noqa: F401  imported before the clock starts

    before, cpu = time.perf_counter(), time.process_time()
    if case["solver"] == PEERS[0]:
        found = integer_programme(instance, budget, gap=0.0, seconds=arguments.seconds)
    else:
        found = papers_knapsack(instance, budget)
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    latency = true_latency(instance, found["kept"]) if found["kept"] else None
    return {**found, "latency_us": latency, "dense_us": dense, "seconds": seconds, "cpu_seconds": cpu}


def _dense(instance: dict[str, Any]) -> float:
    from planning_peers import true_latency

    return true_latency(instance, [size - 1 for size in instance["choices"]])


def _instance_problem(instance: dict[str, Any]) -> Any:
    from halp_trt.planning.instance import parse_instance

    return parse_instance(instance, "the instance")


def _solved(problem: Any, solver: str, budget: float) -> dict[str, Any]:
    from dataclasses import replace

    from halp_trt.planning.solvers import SOLVERS

    before, cpu = time.perf_counter(), time.process_time()
    solution = SOLVERS[solver](replace(problem, budgets={"latency_us": budget}))
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    return {
        "value": solution.value,
        "bound": solution.bound,
        "gap": solution.gap,
        "status": solution.status,
        "latency_us": solution.costs["latency_us"],
        "live_value": problem.value(solution.choices, live=True),
        "num_removed": sum(g.widths[c] == 0 for g, c in zip(problem.groups, solution.choices, strict=True)),
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def _trace_case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The network's graph and the magnitude of its (random) weights, for the cases that plan it."""
    from halp_trt.models.saliency import magnitude
    from halp_trt.models.sources import load_model
    from halp_trt.models.trace import trace
    from halp_trt.store import save

    network = load_model(f"torchvision:{case['network']}", input_shape=(3, 224, 224), num_classes=1000, seed=0)
    graph = trace(network.module, network.example)
    save(graph, arguments.folder / f"{case['network']}.graph.json")
    save(magnitude(network.module, graph), arguments.folder / f"{case['network']}.saliency.json")
    return {}


def _network_case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from halp_trt.planning.network import Ask, network_problem
    from halp_trt.planning.surfaces import surface_from
    from halp_trt.runtimes.synthetic import latency_us
    from halp_trt.specs import PruningPlan
    from halp_trt.store import load

    graph = load(arguments.folder / f"{case['network']}.graph.json")
    saliency = load(arguments.folder / f"{case['network']}.saliency.json")
    surface = (
        surface_from(load(arguments.lut).lookup)
        if arguments.lut
        else lambda spec, widths: np.asarray([latency_us(spec.with_widths(*pair), 1) for pair in widths])
    )
    before = time.perf_counter()
    ask = Ask(
        budgets={"latency_us": 1.0},
        steps={group.name: arguments.step for group in graph.prunable_groups},
        removes_blocks=case["solver"] == "joint-blocks",
    )
    problem = network_problem(PruningPlan.dense(graph), saliency, surface, ask)
    seconds = time.perf_counter() - before
    full = [len(group.widths) - 1 for group in problem.groups]
    dense = problem.costs(full)["latency_us"]
    return {
        "table": str(arguments.lut) if arguments.lut else "synthetic",
        "step": arguments.step,
        "num_groups": len(problem.groups),
        "most_choices": max(len(group.widths) for group in problem.groups),
        "pricing_seconds": seconds,
        **_solved(problem, case["solver"], case["budget"] / 100 * dense),
        "dense_us": dense,
        "dense_value": problem.value(full),
    }


def _sweep_case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    from halp_trt.planning.frontier import frontier

    problem = _instance_problem(json.loads(arguments.instance.read_text()))
    dense = problem.budgets["latency_us"]
    before, cpu = time.perf_counter(), time.process_time()
    points = frontier(problem, "joint", 0.2 * dense, 0.9 * dense, dense=dense)
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu
    return {"solver": "joint", "num_points": len(points), "seconds": seconds, "cpu_seconds": cpu}


def _peak_mib() -> float:
    """Peak resident memory of this process since it was started."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
