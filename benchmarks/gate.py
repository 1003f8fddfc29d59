"""The throughput gate on this machine: how often it is red, green or cannot tell, at slowdowns that are known.

    python benchmarks/gate.py [--gates 30] [--load idle|busy|both] [--out RESULT] [--resume]

Engines of ONNX Runtime are slowed by further convolutions and by a spin; each gate is the verb's own, in fresh
processes, with a limit of 3 %. Gates of all ratios follow each other in a random order, once alone and once beside two
busy loops. Rivals' rules judge the same pairs. Every gate is a line of RESULT's name with .jsonl, from which
--resume goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import gate_engines
import gate_rivals
import gate_spin
import numpy as np
from gate_result import COLOURS, bars, markdown, summary
from json_lines import whole_lines

from halp_trt import __version__
from halp_trt.gate import Rule
from halp_trt.runtimes import get_runtime
from halp_trt.store import encode, sha256_file, write_json
from halp_trt.workflows.bench.baseline import BaselineFile
from halp_trt.workflows.bench.engines import Wish, find_engines
from halp_trt.workflows.bench.gate import Terms, bench
from halp_trt.workflows.bench.stage import BenchRequest, run_bench

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/gate/1"
LIMIT_FRACTION = 0.03
LAYERS, SPIN = (1.02, 1.03, 1.05, 1.10), (1.0, 1.02, 1.03, 1.05, 1.10)
RUNTIME_OF = {"layers": "onnxruntime", "spin": gate_spin.NAME}
NUM_BUSY = 2
Case = tuple[str, float, int]


def main() -> None:
    """Runs the experiment, or what is left of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=30, help="for each load, kind and ratio")
    parser.add_argument("--load", choices=("idle", "busy", "both"), default="both")
    parser.add_argument("--out", type=Path, default=RESULTS / "gate.json")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--layers", type=float, nargs="*", default=list(LAYERS))
    parser.add_argument("--spin", type=float, nargs="*", default=list(SPIN))
    parser.add_argument("--process-seconds", type=float, default=1.0)
    parser.add_argument("--gate-seconds", type=float, help="at most, for each gate; without, as long as it takes")
    parser.add_argument("--calibration-seconds", type=float, default=120.0)
    parser.add_argument("--samples", type=int, default=300, help="of one run, for Mann-Whitney")
    arguments = parser.parse_args()
    gate_spin.register()
    work, lines = arguments.out.with_suffix(".work"), arguments.out.with_suffix(".jsonl")
    if not arguments.resume:
        if lines.exists():
            sys.exit(f"{lines} is there already; go on with --resume, or remove it")
        work.mkdir(parents=True, exist_ok=True)
        _prepare(arguments, work)
    plan = json.loads((work / "plan.json").read_text())
    if plan["settings"] != _settings(arguments):
        sys.exit(f"{work} was begun with other settings; give those, or another --out")
    loads = ("idle", "busy") if arguments.load == "both" else (arguments.load,)
    for load in loads:
        with _busy(NUM_BUSY if load == "busy" else 0):
            _run_load(load, arguments, plan, work, lines)
    _write(arguments, plan, whole_lines(lines))


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("model", "layers", "spin", "process_seconds", "gate_seconds", "calibration_seconds", "samples")
    return {name: getattr(arguments, name) for name in names}


def _prepare(arguments: argparse.Namespace, work: Path) -> None:
    """Writes every engine, and the plan with the ratios that are true of them."""
    model = gate_engines.network(arguments.model)
    engines: dict[str, list[dict[str, Any]]] = {"layers": [], "spin": []}
    (work / "layers-base.onnx").write_bytes(model)
    (work / "spin-base.onnx").write_bytes(gate_spin.with_spin(model, 0.0))
    if arguments.layers:
        engines["layers"] = gate_engines.calibrated(model, arguments.layers, seconds=arguments.calibration_seconds)
    for share in arguments.spin:
        slowed = gate_spin.with_spin(model, share - 1)
        engines["spin"].append({"wanted": share, "ratio": share, "error": 0.0, "model": slowed})
    for kind, rows in engines.items():
        for row in rows:
            _engine(work, kind, row["wanted"]).write_bytes(row.pop("model"))
            print(f"{kind}: wanted x{row['wanted']:.2f}, true x{row['ratio']:.4f} +- {row['error']:.4f}", flush=True)
    write_json(work / "plan.json", {"settings": _settings(arguments), "engines": engines})


def _engine(work: Path, kind: str, wanted: float) -> Path:
    return work / f"{kind}-{wanted:.3f}.onnx"


def cases(plan: Mapping[str, Any], num_gates: int, load: str) -> list[Case]:
    """All gates of a load in a random order, the same for equal arguments."""
    found = [
        (kind, row["wanted"], number)
        for number in range(num_gates) for kind, rows in plan["engines"].items() for row in rows
    ]  # fmt: skip
    random.Random(f"gate {load}").shuffle(found)
    return found


def _run_load(load: str, arguments: argparse.Namespace, plan: Mapping[str, Any], work: Path, lines: Path) -> None:
    done = {(one["kind"], one["wanted"], one["number"]) for one in whole_lines(lines) if one["load"] == load}
    left = [case for case in cases(plan, arguments.gates, load) if case not in done]
    true = {(kind, row["wanted"]): row["ratio"] for kind, rows in plan["engines"].items() for row in rows}
    stored = {kind: _stored(load, kind, arguments, work) for kind in {case[0] for case in left}}
    started = time.monotonic()
    for index, (kind, wanted, number) in enumerate(left):
        found = _gate(kind, _engine(work, kind, wanted), stored[kind], arguments)
        record = {"load": load, "kind": kind, "wanted": wanted, "number": number, "true": true[kind, wanted], **found}
        with lines.open("a") as file:
            file.write(json.dumps(record) + "\n")
        seconds = (time.monotonic() - started) / (index + 1) * (len(left) - index - 1)
        end = datetime.now() + timedelta(seconds=seconds)
        words = f"{kind} x{wanted:.2f}: {found['verdict']} ({found['ratio']:.4f}, {found['processes']} processes)"
        print(f"{load} {index + 1}/{len(left)} {words}; this load ends at about {end:%d %b %H:%M}", flush=True)


def _stored(load: str, kind: str, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The baseline of a kind, saved as the verb saves it, and one run's samples for the rivals."""
    path, base = work / f"{load}-{kind}.json", work / f"{kind}-base.onnx"
    samples = path.with_suffix(".samples")
    if not path.exists():
        request = BenchRequest(engines=[f"engine={base}"], wish=Wish(runtime=RUNTIME_OF[kind]), save=path)
        run_bench(request, _terms(arguments))
    if not samples.exists():
        write_json(samples, gate_rivals.samples_of(base, RUNTIME_OF[kind], arguments.samples))
    return {"file": path, "samples": json.loads(samples.read_text())}


def _terms(arguments: argparse.Namespace) -> Terms:
    rule = Rule(limit_fraction=LIMIT_FRACTION)
    return Terms(rule=rule, seconds=arguments.gate_seconds, process_seconds=arguments.process_seconds)


def _gate(kind: str, engine: Path, stored: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """One gate, as the verb judges, and what rivals say of the same pair."""
    file = BaselineFile.read(stored["file"])
    contenders = find_engines([f"engine={engine}"], Wish(runtime=RUNTIME_OF[kind]))
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    outcome = bench(contenders, _terms(arguments), stored["file"].parent, file)
    (result,), record = outcome.result.engines, outcome.records["engine"]
    (against,) = result.against
    old = [one.engine.latency_us for series in file.of("engine")["newest"].series for one in series.processes]
    new = [one.engine.latency_us for one in record.processes]
    samples = gate_rivals.samples_of(engine, RUNTIME_OF[kind], arguments.samples)
    return {
        "verdict": COLOURS.get(result.answer, "cannot tell"),
        "reason": result.reason,
        "ratio": round(against.ratio, 5),
        "bounds": [round(bound, 5) for bound in against.bounds or ()],
        "processes": result.num_processes,
        "seconds": outcome.result.seconds,
        "started": started,
        "log_ratios": [round(one.log_ratios["newest"], 6) for one in record.processes],
        "controls": [round(one.control, 6) for one in record.processes],
        "latency_us": [round(one, 2) for one in new],
        "sample_median_us": round(float(np.median(samples)), 2),
        "rivals": {
            "single run": gate_rivals.single_run(old[0], new[0], LIMIT_FRACTION),
            "Mann-Whitney": gate_rivals.mann_whitney(stored["samples"], samples),
            "pyperf": gate_rivals.pyperf_rule(old, new),
        },
    }


@contextmanager
def _busy(number: int) -> Iterator[None]:
    """Keeps some loops running."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=_loop, daemon=True) for _ in range(number)]
    for one in loops:
        one.start()
    try:
        yield
    finally:
        for one in loops:
            one.kill()
            one.join()


def _loop() -> None:
    while True:
        pass


def _write(arguments: argparse.Namespace, plan: Mapping[str, Any], records: list[dict[str, Any]]) -> None:
    rows = summary(records)
    options = [word for word in sys.argv[1:] if word != "--resume"]
    write_json(
        arguments.out,
        {
            "schema": SCHEMA,
            "command": shlex.join(["python", "benchmarks/gate.py", *options]),
            "version": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "target": encode(get_runtime("onnxruntime").target("fp32", 1)),
            "limit_fraction": LIMIT_FRACTION,
            "settings": plan["settings"],
            "engines": plan["engines"],
            "records_sha256": sha256_file(arguments.out.with_suffix(".jsonl")),
            "bars": bars(rows),
            "rows": rows,
        },
    )
    print(markdown(rows))


if __name__ == "__main__":
    main()
