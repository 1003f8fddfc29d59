"""Networks with other norms and operators than a plain ResNet's, through the whole chain to a share of their latency.

    python benchmarks/chains.py --work WORK [--only NAME ...] [--result RESULT] [--resume]

Each is traced, its layers are measured into a table, it is pruned with a few minibatches of training to 60 % of its
measured latency, rewritten, compiled and verified, as a user's would be, on one core of this machine. Each runs in a
process of its own. RESULT is written after every network; --resume goes on with those that it lacks, and with what
WORK holds of them. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from chains_networks import CHAINS, Chain
from dense_training import report

from halp_trt import __version__
from halp_trt.graphs.unprobed import unprobed
from halp_trt.specs import Budget, PruningPlan, Verification
from halp_trt.store import encode, read_json, write_json
from halp_trt.workflows.compare import Certainty, Comparison, compare
from halp_trt.workflows.deploy import DeployOptions
from halp_trt.workflows.deploy_stage import deploy_run
from halp_trt.workflows.folder import RunFolder, engine_path, load_engine
from halp_trt.workflows.inputs import example_inputs
from halp_trt.workflows.network import network_of
from halp_trt.workflows.prepared import Prepared, prepare
from halp_trt.workflows.prune_stage import prune_run
from halp_trt.workflows.settings import PlaceSettings
from halp_trt.workflows.table_stage import measure_table
from halp_trt.workflows.target import find_target
from halp_trt.workflows.verify import Tolerances
from halp_trt.workflows.verify_stage import verify_run

RESULT = Path(__file__).resolve().parent / "results" / "chains.json"
SCHEMA = "halp-trt/chains/1"
BUDGET = "60%"
ROLES = ("dense", "pruned")
_Value = TypeVar("_Value")


def main() -> None:
    """Runs every network that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, runs and engines")
    parser.add_argument("--only", nargs="*", default=[], help="names of networks, or the beginnings of names")
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the two engines are timed")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    known = {one.name: one for one in CHAINS}
    if arguments.one:
        budget = Budget.parse(arguments.budget)
        print(json.dumps(run_chain(known[arguments.one], arguments.work, budget, arguments.seconds)))
        return
    if arguments.result.exists() and not arguments.resume:
        sys.exit(f"{arguments.result} is there already; go on with --resume, or remove it")
    chains = read_json(arguments.result)["chains"] if arguments.result.exists() else {}
    failed = []
    for name in _wanted(list(known), arguments.only):
        if name in chains:
            continue
        row = _in_its_process(name, arguments)
        if row is None:
            failed.append(name)
            continue
        chains[name] = row
        _write(arguments.result, chains)
    if failed:
        sys.exit(f"these ended with an error: {', '.join(failed)}")


def _wanted(names: list[str], only: list[str]) -> list[str]:
    """The names that begin as one of ``only`` does, in any case of letters; all of them without."""
    starts = tuple(word.lower() for word in only)
    found = [name for name in names if not starts or name.lower().startswith(starts)]
    if not found:
        sys.exit(f"no network is called {' or '.join(only)}; choose from {'; '.join(names)}")
    return found


def _in_its_process(name: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The row of a network from a fresh process; None if that ended with an error, which stands on the terminal."""
    place = place_of(arguments.work, name)
    if place.exists() and not arguments.resume:
        sys.exit(f"{place} holds an earlier run; go on with --resume, or name another folder")
    options = ["--work", str(arguments.work), "--budget", arguments.budget, "--seconds", str(arguments.seconds)]
    command = [sys.executable, __file__, "--one", name, *options]
    row = printed_by(command)
    if row is None:
        return None
    shown = {key: row[key] for key in ("dense_us", "pruned_us", "share", "share_error", "difference")}
    print(f"{name}: {json.dumps(shown)}, {sum(row['seconds'].values()):.0f} s", flush=True)
    return row


def printed_by(command: list[str]) -> dict[str, Any] | None:
    """The JSON in the last line that a process prints; None if it ended with an error, which stands on the terminal."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return None
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def place_of(work: Path, name: str) -> Path:
    """The folder of a network."""
    return work / re.sub(r"[^a-z0-9]+", "-", name.lower())


def _write(path: Path, chains: dict[str, Any]) -> None:
    options = [word for word in sys.argv[1:] if word != "--resume"]
    for name in ("--work", "--result"):
        if name in options:
            options[options.index(name) + 1] = name[2:].upper()
    command = shlex.join(["python", "benchmarks/chains.py", *options])
    write_json(path, {"schema": SCHEMA, "version": __version__, "command": command, "chains": chains})


# ---- one network ----------------------------------------------------------------------------------------------------


class Clock:
    """Times stages; a stage that an earlier process finished keeps the seconds that it took there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds: dict[str, float] = dict(read_json(path)) if path.exists() else {}

    def timed(self, stage: str, work: Callable[[], _Value]) -> _Value:
        """The result of a stage's work."""
        started = time.perf_counter()
        value = work()
        self.seconds.setdefault(stage, round(time.perf_counter() - started, 1))
        write_json(self._path, self.seconds)
        print(f"  {stage}: {self.seconds[stage]} s", file=sys.stderr, flush=True)
        return value


def run_chain(chain: Chain, work: Path, budget: Budget, seconds: float) -> dict[str, Any]:
    """Takes a network through the whole chain; gives its row of the result."""
    torch.set_num_threads(1)
    place = place_of(work, chain.name)
    place.mkdir(parents=True, exist_ok=True)
    table, engines, run = place / "table.jsonl", place / "engines", RunFolder(path=place / "run")
    settings = chain.settings(table, budget)
    runtime, target = find_target(settings.place)
    clock = Clock(place / "seconds.json")
    prepared = clock.timed("trace", lambda: prepare(*network_of(settings)))
    _, rows = clock.timed(
        "table",
        lambda: measure_table(prepared.graph, chain.survey, table, runtime, target, report("table"), resume=True),
    )
    plan = clock.timed("prune", lambda: prune_run(prepared, settings, run, report("prune"), resume=True))
    clock.timed(
        "compile",
        lambda: deploy_run(run, settings.place, settings.data, DeployOptions(engines=engines), prepared=prepared),
    )
    found = clock.timed(
        "verify",
        lambda: verify_run(
            run,
            lambda: (prepared.network, prepared.data),
            settings.place,
            settings.table,
            budget=budget,
            engines=engines,
            tolerances=Tolerances(seconds=seconds),
        ),
    )
    timed = in_turns(run, settings.place, engines, prepared, seconds)
    return {
        "model": chain.model,
        "input": [list(x.shape) for x in prepared.network.example],
        "trained": chain.trained,
        "budget": str(budget),
        **_latencies(found, timed),
        "difference": found.max_difference,
        "difference_limit": found.difference_limit,
        "channels": _channels(plan),
        "parameters": {"dense": found.dense.num_parameters, "pruned": found.pruned.num_parameters},
        "layers": {"all": len(plan.graph.layers), "estimated": len(unprobed(plan.graph, target.batch_size))},
        "table_rows": len(rows.rows),
        "seconds": clock.seconds,
        "target": encode(target),
    }


def in_turns(run: RunFolder, place: PlaceSettings, engines: Path, prepared: Prepared, seconds: float) -> Comparison:
    """Both engines of a run, loaded once more and timed in turns, which also tells the error of their ratio."""
    runtime, target = find_target(place)
    sessions = {}
    for role, parent in zip(ROLES, (run.dense_model, run.pruned_model), strict=True):
        _, engine = load_engine(engine_path(engines, run, role, target, runtime.suffix), parent)
        sessions[role] = runtime.load(engine, target)
    inputs = example_inputs(sessions["dense"], prepared.data, prepared.network.example)
    return compare(sessions, inputs, until=Certainty.lasting(seconds))


def _latencies(found: Verification, timed: Comparison) -> dict[str, Any]:
    """Measured and predicted latencies, and the pruned engine's share of the dense one's with its standard error."""
    dense, pruned = found.dense, found.pruned
    return {
        "dense_us": round(timed.measurements["dense"].latency_us, 1),
        "pruned_us": round(timed.measurements["pruned"].latency_us, 1),
        "share": round(timed.ratio, 4),
        "share_error": round(timed.ratio * timed.ratio_error_fraction, 4),
        "share_verified": round(1 / found.speedup, 4),
        "share_predicted": round(_predicted(pruned.predicted_us) / _predicted(dense.predicted_us), 4),
        "dense_predicted_us": round(_predicted(dense.predicted_us), 1),
        "pruned_predicted_us": round(_predicted(pruned.predicted_us), 1),
        "meets_budget": found.meets_budget,
    }


def _predicted(latency_us: float | None) -> float:
    assert latency_us is not None, "the run names its table"
    return latency_us


def _channels(plan: PruningPlan) -> dict[str, int]:
    """The network's channels by groups, those among them that may be pruned, and those that are left."""
    groups = plan.graph.groups
    return {
        "dense": sum(group.num_channels for group in groups),
        "prunable": sum(group.num_channels for group in groups if group.prunable),
        "left": sum(len(plan.kept[group.name]) for group in groups),
    }


if __name__ == "__main__":
    main()
