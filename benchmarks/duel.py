"""The duel: all methods at the same measured latency, from the same weights, after the same fine-tuning.

Uniform pruning, Torch-Pruning, ModelOpt FastNAS, halp and joint on CIFAR-10, at 70, 50 and 30 % of the dense latency as
ONNX Runtime shows it on one core, three seeds:

    python benchmarks/duel.py --data cifar10:PATH --work WORK --processes 2 --fastnas PYTHON

``PYTHON`` is the interpreter of an environment that has ModelOpt too (pip install -c constraints.txt
'.[torch,onnx,onnxruntime,data,planning]' nvidia-modelopt==0.47.0 torchprofile==0.0.4 requests huggingface_hub
datasets). Results land in benchmarks/results/duel.json (the committed ones: one --result for each --network), rewritten
after every cell. WORK keeps every finished part; a second call goes on from it, and WORK/<network>/dense.safetensors is
taken for the dense weights where it exists.

Phases: ``dense`` trains the dense networks and ``tune`` the narrow ones, over ``--processes``; ``choose`` and ``time``
measure, so that nothing else may run on the machine meanwhile. ``--phase`` does one of them, ``--shard 0/2`` a part.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from dense_training import TRAINING, timed, train_cycles
from duel_cells import Cell, cells_of, choose, time_all, tune
from duel_contest import Contest
from duel_methods import METHODS
from duel_result import result_of
from duel_rules import QUICK, Rules, check_rules, contest_of, pictures_of, weights_path

from halp_trt import __version__
from halp_trt.models.sources import load_model
from halp_trt.store import encode, read_json, save_tensors, write_json

RESULT = Path(__file__).resolve().parent / "results" / "duel.json"
SCHEMA = "halp-trt/duel/1"
PHASES = ("dense", "choose", "tune", "time")
NETWORKS = ("resnet20", "mobilenetv2-cifar")
BUDGETS = (70, 50, 30)
FASTNAS = "fastnas"
Contests = Callable[[str], Contest]


def main() -> None:
    """Runs the phases that are asked for."""
    torch.set_num_threads(1)
    arguments = _arguments()
    rules = _rules(arguments)
    cells = cells_of(arguments.network, arguments.budget, arguments.method, arguments.seeds, arguments.work)
    check_rules(rules, arguments.work / "rules.json")
    contests = cache(partial(contest_of, arguments.work, arguments.data, rules))
    phases: Mapping[str, Callable[[], None]] = {
        "dense": lambda: _in_parallel(arguments, "dense", partial(_dense, arguments, rules)),
        "choose": lambda: _choose(arguments, rules, cells, contests),
        "tune": lambda: _in_parallel(arguments, "tune", partial(_tune, arguments, rules, cells, contests)),
        "time": lambda: _time(arguments, cells, contests),
    }
    for phase in [arguments.phase] if arguments.phase else PHASES:
        timed({}, phase, phases[phase])
    _write(arguments, rules, cells)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data source, as halp-trt takes it")
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is finished")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--network", nargs="+", default=list(NETWORKS), help="built-in networks")
    parser.add_argument("--budget", nargs="+", type=int, default=list(BUDGETS), help="percent of the dense latency")
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    for field in fields(Rules):
        if field.name in ("epochs", "rate", "minibatches", "steps", "grid", "timing"):
            parser.add_argument(f"--{field.name}", type=type(field.default))
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing all engines of a network")
    parser.add_argument("--device", default="cpu", help="where narrow networks are trained, as PyTorch names it")
    parser.add_argument("--fastnas", metavar="PYTHON", help="interpreter of an environment with ModelOpt")
    parser.add_argument("--remarks", default="", help="what is to be known about the result")
    parser.add_argument("--phase", choices=PHASES)
    parser.add_argument("--shard", default="0/1", help="this process's part of a phase that trains, I/N")
    parser.add_argument("--processes", type=int, default=1, help="for the phases that train")
    parser.add_argument("--quick", action="store_true", help="few pictures, nothing trained: shows that it runs")
    return parser.parse_args()


def _rules(arguments: argparse.Namespace) -> Rules:
    asked = {f.name: getattr(arguments, f.name, None) for f in fields(Rules)}
    return replace(QUICK if arguments.quick else Rules(), **{k: v for k, v in asked.items() if v is not None})


# ---- phases --------------------------------------------------------------------------------------------------------


def _in_parallel(arguments: argparse.Namespace, phase: str, work: Callable[[], None]) -> None:
    """Does a phase here, or starts a process for every shard of it."""
    if arguments.processes == 1:
        return work()
    shards = [
        subprocess.Popen(
            [
                sys.executable,
                *sys.argv,
                "--phase",
                phase,
                "--processes",
                "1",
                "--shard",
                f"{index}/{arguments.processes}",
            ]
        )
        for index in range(arguments.processes)
    ]
    if max(shard.wait() for shard in shards):
        sys.exit(f"error: a process of phase {phase} failed; call again to go on")


def _dense(arguments: argparse.Namespace, rules: Rules) -> None:
    for network in _share(arguments.network, arguments.shard):
        path = weights_path(arguments.work, network)
        if path.exists():
            continue
        data = pictures_of(arguments.work, arguments.data, rules)
        module = load_model(network, input_shape=data.input_shape, num_classes=data.num_classes).module
        if rules.is_trained:
            train_cycles(module, data, TRAINING[network], path)
        else:
            save_tensors(path, module.state_dict())


def _choose(arguments: argparse.Namespace, rules: Rules, cells: list[Cell], contests: Contests) -> None:
    for cell in cells:
        if cell.choice.exists() or (cell.method == FASTNAS and _fastnas_absent()):
            continue
        timed({}, f"choose {cell.network} {cell.name}", partial(choose, contests(cell.network), cell))
        _write(arguments, rules, cells)
    if arguments.fastnas and FASTNAS in arguments.method:
        _choose_elsewhere(arguments)


def _choose_elsewhere(arguments: argparse.Namespace) -> None:
    """Has FastNAS choose in the environment that has it; what stops it goes into the result."""
    options = [*sys.argv, "--phase", "choose", "--method", FASTNAS, "--processes", "1"]
    at = options.index("--fastnas")
    places = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [arguments.fastnas, *options[:at], *options[at + 2 :]]
    try:
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        failed = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1] if done.returncode else ""
    except OSError as error:
        failed = str(error)
    if failed:
        write_json(arguments.work / "fastnas.json", {"failed": failed})
    else:
        (arguments.work / "fastnas.json").unlink(missing_ok=True)


@cache
def _fastnas_absent() -> str:
    """Why FastNAS cannot run in this process; empty where it can."""
    return "" if importlib.util.find_spec("modelopt") else "nvidia-modelopt is not installed here"


def _tune(arguments: argparse.Namespace, rules: Rules, cells: list[Cell], contests: Contests) -> None:
    for cell in _share([cell for cell in cells if cell.is_chosen], arguments.shard):
        if not cell.tuned.exists():
            work = partial(tune, contests(cell.network), cell, arguments.device)
            timed({}, f"tune {cell.network} {cell.name}", work)
            _write(arguments, rules, cells)


def _time(arguments: argparse.Namespace, cells: list[Cell], contests: Contests) -> None:
    for network in arguments.network:
        path = arguments.work / network / "timings.json"
        mine = [cell for cell in cells if cell.network == network]
        time_all(contests(network), mine, path, seconds=arguments.seconds)


def _share(items: Iterable[Any], shard: str) -> list[Any]:
    index, _, count = shard.partition("/")
    return list(items)[int(index) :: int(count)]


# ---- what came of it -----------------------------------------------------------------------------------------------


def _write(arguments: argparse.Namespace, rules: Rules, cells: Iterable[Cell]) -> None:
    """The result as far as it has got."""
    everything = cells_of(arguments.network, arguments.budget, list(METHODS), arguments.seeds, arguments.work)
    reasons = arguments.work / "fastnas.json"
    why = read_json(reasons)["failed"] if reasons.exists() else _fastnas_absent() if not arguments.fastnas else ""
    training = {network: encode(TRAINING[network]) for network in arguments.network if rules.is_trained}
    found = result_of(everything, {FASTNAS: why} if why else {})
    elsewhere = {row["choice"].get("notes", {}).get("modelopt", "") for row in found["cells"]} - {""}
    packages = {name: _version(name) for name in ("torch", "torch-pruning", "onnxruntime")}
    packages["nvidia-modelopt"] = ", ".join(sorted(elsewhere)) or _version("nvidia-modelopt")
    write_json(
        arguments.result,
        {
            "schema": SCHEMA,
            "command": _command(arguments),
            "version": __version__,
            "packages": packages,
            "rules": encode(rules),
            "training": training,
            **found,
            "remarks": arguments.remarks,
        },
    )


def _command(arguments: argparse.Namespace) -> str:
    """What was asked for, without the paths of this machine."""
    kind = arguments.data.partition(":")[0]
    words = ["python", "benchmarks/duel.py", "--data", f"{kind}:PATH", "--work", "WORK"]
    given = {f.name: getattr(arguments, f.name, None) for f in fields(Rules)}
    words += [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    words += ["--network", *arguments.network] if arguments.network != list(NETWORKS) else []
    words += ["--quick"] if arguments.quick else []
    words += ["--fastnas", "PYTHON"] if arguments.fastnas else []
    return shlex.join(words)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


if __name__ == "__main__":
    main()
