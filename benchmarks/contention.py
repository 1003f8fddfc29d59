"""Other work on the machine: the same chain of verbs alone, beside itself, and beside loops that keep cores busy.

    python benchmarks/contention.py --work WORK [--only NAME ...] [--out RESULT] [--resume]

A table is measured, the network pruned by it, deployed and verified, by the verbs as a user types them. Two idle runs
show what differs without other work. Each run is a line of RESULT's name with .jsonl, from which --resume goes on.
Nothing but what the experiment starts may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contention_result import SCHEMA, rows
from json_lines import whole_lines

from halp_trt import __version__
from halp_trt.runtimes.cpu.settled_bench import processor_name
from halp_trt.store import load, read_steps, read_table, write_json
from halp_trt.workflows.folder import RunFolder

RESULTS = Path(__file__).resolve().parent / "results"
NETWORKS: Mapping[str, tuple[str, ...]] = {
    "demo": ("--model", "demo", "--data", "digits"),
    "tf_efficientnet_lite0": ("--model", "timm:tf_efficientnet_lite0", "--data", "none"),
}
"""The networks, and the options that name them."""
QUICK = ("--saliency", "magnitude", "--epochs", "0", "--pruning-steps", "2", "--minibatches", "1")
"""Options of pruning: what a plan then depends on besides the weights are latencies."""
SITUATIONS = ("idle", "beside itself", "beside a loop on one core", "beside loops on all cores", "idle again")
LOOP = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def main() -> None:
    """Runs the experiment, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for tables, runs and engines")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--situations", nargs="*", default=list(SITUATIONS), choices=SITUATIONS)
    parser.add_argument("--budget", default="60%")
    parser.add_argument("--max-probes", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long engines are timed")
    parser.add_argument("--out", type=Path, default=RESULTS / "contention.json")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    lines = arguments.out.with_suffix(".jsonl")
    if lines.exists() and not arguments.resume:
        sys.exit(f"{lines} is there already; go on with --resume, or remove it")
    records = whole_lines(lines)
    known = {(one["network"], one["situation"]) for one in records}
    for network in arguments.only:
        for situation in arguments.situations:
            if (network, situation) in known:
                continue
            found = _in(situation, network, arguments)
            with lines.open("a") as file:
                file.write("".join(json.dumps(one) + "\n" for one in found))
            records += found
            for one in found:
                print(json.dumps({key: one[key] for key in one if key != "kept"}), flush=True)
    _write(arguments.out, records)


def _in(situation: str, network: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The records of the runs of a network in a situation: two where it runs beside itself."""
    num_runs = 2 if situation == "beside itself" else 1
    cores = sorted(os.sched_getaffinity(0))
    busy = {"beside a loop on one core": cores[-1:], "beside loops on all cores": cores}.get(situation, [])
    name = f"{network}-{situation}".replace(" ", "-")
    places = [arguments.work / f"{name}-{number}" for number in range(num_runs)]
    with loops(busy):
        started = [_Chain(place, NETWORKS[network], arguments) for place in places]
        going = list(started)
        while going:
            going = [chain for chain in going if chain.goes_on()]
            time.sleep(0.05)
    return [{"network": network, "situation": situation, **chain.record()} for chain in started]


@contextmanager
def loops(cores: Sequence[int]) -> Iterator[None]:
    """A loop on each of some cores."""
    running = [subprocess.Popen([sys.executable, "-c", LOOP, str(core)]) for core in cores]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


class _Chain:
    """The verbs of a run, one after the other in a folder of its own, up to the first that does not end well."""

    def __init__(self, place: Path, network: Sequence[str], arguments: argparse.Namespace) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        runtime = ("--runtime", "onnxruntime")
        pruning = ("--lut", "lut.jsonl", "--budget", arguments.budget, "--timing-seconds", str(arguments.seconds))
        self._waiting: list[tuple[str, ...]] = [
            ("build-lut", *network, *runtime, "--out", "lut.jsonl", "--max-probes", str(arguments.max_probes)),
            ("prune", *network, *runtime, *pruning, *QUICK, "--out", "run"),
            ("deploy", "run"),
            ("verify", "run", "--seconds", str(arguments.seconds), "--json"),
        ]
        self._place, self._process = place, subprocess.Popen(["true"])
        self._codes: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._verb, self._started = "", time.monotonic()

    def goes_on(self) -> bool:
        """False when the last verb has ended; begins the next one where there is one."""
        code = self._process.poll()
        if code is None:
            return True
        if self._verb:
            self._codes[self._verb] = code
            self._seconds[self._verb] = round(time.monotonic() - self._started, 1)
        if not self._waiting or any(one not in (0, 1) for one in self._codes.values()):
            return False
        words = self._waiting.pop(0)
        self._verb, self._started = words[0], time.monotonic()
        with (self._place / f"{words[0]}.out").open("w") as out, (self._place / f"{words[0]}.err").open("w") as err:
            command = [sys.executable, "-m", "halp_trt", *words]
            self._process = subprocess.Popen(command, cwd=self._place, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        return True

    def record(self) -> dict[str, Any]:
        """What came of it: the plan, the verdict, the doubts and the exit codes."""
        found: dict[str, Any] = {"codes": self._codes, "seconds": self._seconds}
        table = self._place / "lut.jsonl"
        if table.exists():
            measured = read_table(table).rows.values()
            found["rows"] = {"all": len(measured), "doubted": sum(not row.is_trusted for row in measured)}
        run = RunFolder(path=self._place / "run")
        if self._codes.get("prune") == 0:
            plan = load(run.plan)
            last = read_steps(run.log)[-1]
            found["predicted_share"] = round(last["latency_us"] / last["dense_us"], 4)
            found["calibration"] = [plan.calibration, plan.overhead_us, plan.calibration_r_squared]
            found["kept"] = {name: len(kept) for name, kept in plan.kept.items()}
        if "verify" in self._codes:
            verification = json.loads((self._place / "verify.out").read_text())
            dense, pruned = (verification[role]["measurement"] for role in ("dense", "pruned"))
            found["measured_share"] = round(pruned["latency_us"] / dense["latency_us"], 4)
            found["latencies_us"] = [round(dense["latency_us"], 1), round(pruned["latency_us"], 1)]
            found["doubts"] = [row["doubt"] for row in (dense, pruned) if row.get("doubt")]
            found["passed"] = verification["passed"]
        return found


def _write(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    options = [word for word in sys.argv[1:] if word != "--resume"]
    for name in ("--work", "--out"):
        if name in options:
            options[options.index(name) + 1] = name[2:].upper()
    command = shlex.join(["python", "benchmarks/contention.py", *options])
    machine = {"processor": processor_name(), "cores": len(os.sched_getaffinity(0))}
    result = {"schema": SCHEMA, "version": __version__, "command": command, "machine": machine}
    write_json(path, {**result, "rows": rows(records)})


if __name__ == "__main__":
    main()
