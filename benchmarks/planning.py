"""Planning side by side: every solver, an independent formulation and the papers' recurrence, each in its own process.

    python benchmarks/planning.py --instance SHARED/titanv/resnet50.json

Results land in benchmarks/results/planning.json. Networks are planned on the synthetic device there. On a table that
was measured on this machine, without the instance:

    python benchmarks/planning.py --table TABLE --model torchvision:resnet50 --model torchvision:resnet101 --measure

with results in benchmarks/results/planning-measured.json. Latencies are those of the adaptive surfaces that ``prune
--method joint`` plans with; ``--measure`` first measures what they need and TABLE lacks, on an otherwise idle machine.

One process runs at a time; of the quick ones the fastest of ``--repeats`` counts, and seconds are the solver's own,
without reading files.
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

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/planning-benchmark/1"
BUDGETS = (80, 55, 30)
OURS = ("halp", "exact", "joint", "joint-blocks")
PEERS = ("integer programme", "papers in plain Python")
NETWORKS = ("torchvision:resnet50", "torchvision:resnet101")
SYNTHETIC = "synthetic"
QUICK_S = 20.0


def main() -> None:
    """Runs everything, or with ``--case`` one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instance", type=Path, help="planning instance; without it the networks alone are planned")
    parser.add_argument("--table", type=Path, help="measured latency table for the networks")
    parser.add_argument("--measure", action="store_true", help="measure what the table lacks")
    parser.add_argument("--model", action="append", default=[], help="a network; by default ResNet-50 and ResNet-101")
    parser.add_argument("--step", type=int, default=8, help="channels between two widths of the networks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=600.0, help="time limit of the integer programme")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.model = arguments.model or list(NETWORKS)
    if arguments.instance is None and arguments.table is None:
        parser.error("name an --instance, or the --table that networks are planned on")
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
    out = arguments.out or RESULTS / ("planning.json" if arguments.instance else "planning-measured.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {out}")


def _all(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    instance, networks, tables = [], [], []
    for budget in BUDGETS if arguments.instance else ():
        for solver in (*OURS, *PEERS):
            instance.append(_measure({"kind": "instance", "solver": solver, "budget": budget}, arguments, folder))
    for network in arguments.model:
        tables.append(_spawn({"kind": "trace", "network": network}, arguments, folder))
        for budget in BUDGETS:
            for solver in ("joint", "joint-blocks"):
                case = {"kind": "network", "network": network, "solver": solver, "budget": budget}
                networks.append(_measure(case, arguments, folder))
    if not arguments.instance:
        return {"tables": tables, "networks": networks}
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
    command = [sys.executable, __file__, "--step", str(arguments.step), "--seconds", str(arguments.seconds)]
    command += ["--folder", str(folder), "--case", json.dumps(case)]
    for option in ("instance", "table"):
        given = getattr(arguments, option)
        command += [f"--{option}", str(given)] if given else []
    command += ["--measure"] if arguments.measure else []
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: case {case} failed")
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
    if case["solver"] not in PEERS:
        return {**_solved(_instance_problem(instance), case["solver"], budget), "dense_us": dense}
    from planning_peers import integer_programme, papers_knapsack, true_latency

    if case["solver"] == PEERS[0]:
        import scipy.optimize
        import scipy.sparse  # noqa: F401 (imported before the clock starts)

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
    from halp_trt.solvers.instance import parse_instance

    return parse_instance(instance, "the instance")


def _solved(problem: Any, solver: str, budget: float) -> dict[str, Any]:
    from dataclasses import replace

    from halp_trt.solvers.registry import SOLVERS

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
    """The network's graph and the magnitude of its (random) weights, for the cases that plan it; its table's rows."""
    from halp_trt.models.saliency.weight_norms import magnitude
    from halp_trt.models.sources import load_model
    from halp_trt.models.trace import trace
    from halp_trt.store import save

    network = load_model(case["network"], seed=0)
    graph = trace(network.module, network.example)
    save(graph, _file(case, arguments, "graph"))
    save(magnitude(network.module, graph), _file(case, arguments, "saliency"))
    if not arguments.table:
        return {}
    before, num_new = time.perf_counter(), 0

    def count(done: int, total: int) -> None:
        nonlocal num_new
        num_new += total if done == total else 0

    lookup = _lookup(arguments, "measure" if arguments.measure else "refuse", count)
    for solver in ("joint", "joint-blocks"):
        _network_problem(case["network"], solver, arguments, lookup)
    return {"num_measured": num_new, "seconds": time.perf_counter() - before}


def _file(case: Mapping[str, Any], arguments: argparse.Namespace, kind: str) -> Path:
    path: Path = arguments.folder / f"{case['network'].replace(':', '-')}.{kind}.json"
    return path


def _lookup(arguments: argparse.Namespace, on_miss: str, progress: Callable[[int, int], None]) -> Any:
    """What the table holds, measured where it is missing and that is allowed."""
    from halp_trt.runtimes import get_runtime
    from halp_trt.store import read_table
    from halp_trt.workflows.measurer import Measurer

    runtime = get_runtime("onnxruntime")
    target = read_table(arguments.table).target if arguments.table.exists() else runtime.target("fp32", 1)
    return Measurer(arguments.table, get_runtime(target.runtime), target, on_miss=on_miss, progress=progress)


def _network_problem(network: str, solver: str, arguments: argparse.Namespace, lookup: Any) -> Any:
    """The network's planning problem on the table's surfaces, or on the synthetic device's."""
    import numpy as np

    from halp_trt.planning.network import PlanConstraints, network_problem
    from halp_trt.planning.surfaces import RowCache
    from halp_trt.runtimes.synthetic import latency_us
    from halp_trt.solvers.registry import SOLVERS
    from halp_trt.specs import PruningPlan
    from halp_trt.store import load

    graph = load(_file({"network": network}, arguments, "graph"))
    saliency = load(_file({"network": network}, arguments, "saliency"))
    ask = PlanConstraints(
        budgets={"latency_us": 1.0},
        steps={group.name: arguments.step for group in graph.prunable_groups},
        removes_blocks=SOLVERS[solver].removes_blocks,
    )
    surface = (
        RowCache(lookup).surface
        if lookup
        else lambda spec, widths: np.asarray([latency_us(spec.with_widths(*pair), 1) for pair in widths])
    )
    return network_problem(PruningPlan.dense(graph), saliency, surface, ask)


def _network_case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    from halp_trt.errors import InfeasibleBudgetError

    lookup = _lookup(arguments, "refuse", lambda done, total: None) if arguments.table else None
    before = time.perf_counter()
    problem = _network_problem(case["network"], case["solver"], arguments, lookup)
    seconds = time.perf_counter() - before
    full = [len(group.widths) - 1 for group in problem.groups]
    dense = problem.costs(full)["latency_us"]
    try:
        solved = _solved(problem, case["solver"], case["budget"] / 100 * dense)
    except InfeasibleBudgetError as error:  # narrow networks cannot reach every budget in steps of 8
        solved = {"status": f"infeasible: {error}", "seconds": time.perf_counter() - before}
    return {
        "table": arguments.table.name if arguments.table else SYNTHETIC,
        "step": arguments.step,
        "num_groups": len(problem.groups),
        "most_choices": max(len(group.widths) for group in problem.groups),
        "pricing_seconds": seconds,
        **solved,
        "dense_us": dense,
        "dense_value": problem.value(full),
    }


def _sweep_case(case: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    from halp_trt.solvers.frontier import frontier

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
