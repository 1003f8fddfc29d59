"""Detectors and segmenters: pruned on their own metric, against peers, and through the whole chain.

    python benchmarks/detection.py bccd --work WORK --data voc:BCCD
    python benchmarks/detection.py fastestdet --work WORK --data coco:COCO/train2017,COCO/train2017.json --weights PTH
    python benchmarks/detection.py chains --work WORK [--only NAME ...]

``bccd`` trains single-shot detectors on blood cells with the given splits, and prunes them to 70 and 50 % of their
measured latency by several methods with the same fine-tuning (--phase does a part of it). ``fastestdet`` takes public
weights, and prunes them on pictures alone: no label is read before the engines are scored. ``chains`` takes large
networks with initial weights through the whole chain, and builds TensorRT plans in fp16 and int8.

WORK keeps every finished step, and a second call goes on from it. Results land in benchmarks/results/detection.json and
detection.md, part by part. All engines are timed in turns, on one core: nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from detection_bccd import NETWORKS, PHASES, Rules, run_bccd
from detection_chains import DETECTORS, run_chains, run_detector_chain
from detection_fastestdet import Distilling, run_fastestdet

from halp_trt import __version__
from halp_trt.specs import Budget
from halp_trt.store import read_json, write_json, write_text

RESULT = Path(__file__).resolve().parent / "results" / "detection.json"
SCHEMA = "halp-trt/detection/1"
BUDGETS = (70, 50)


def main() -> None:
    """Runs one part."""
    torch.set_num_threads(1)
    arguments = _parser().parse_args()
    if getattr(arguments, "one", None):
        run_detector_chain(_detector(arguments.one), arguments.work, Budget.parse(arguments.budget), arguments.seconds)
        return

    def write(found: dict[str, Any]) -> None:
        _write(arguments, found)

    arguments.run(arguments, write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    bccd, fastestdet, chains = (parts.add_parser(name) for name in ("bccd", "fastestdet", "chains"))
    for part in (bccd, fastestdet, chains):
        part.add_argument("--work", type=Path, required=True, help="folder of everything that is finished")
        part.add_argument("--result", type=Path, default=RESULT)
        part.add_argument("--seconds", type=float, default=60.0, help="how long engines are timed in turns")
    bccd.add_argument("--data", required=True, help="voc:PATH of the blood cells")
    bccd.add_argument("--network", nargs="+", default=list(NETWORKS))
    bccd.add_argument("--seeds", type=int, default=1)
    bccd.add_argument("--phase", choices=PHASES, help="one phase; all without")
    fastestdet.add_argument("--data", required=True, help="coco:IMAGES,ANNOTATIONS.json, with 'train' in both names")
    fastestdet.add_argument("--weights", type=Path, required=True, help="the public weights")
    for part in (bccd, fastestdet):
        part.add_argument("--budget", nargs="+", type=int, default=list(BUDGETS), help="percent of the dense latency")
    for part, rules in ((bccd, Rules), (fastestdet, Distilling)):
        for one in fields(rules):
            part.add_argument(f"--{one.name.replace('_', '-')}", type=type(one.default), default=one.default)
    chains.add_argument("--only", nargs="*", default=[], help="names of networks, or the beginnings of names")
    chains.add_argument("--budget", default="60%")
    chains.add_argument("--one", help=argparse.SUPPRESS)
    bccd.set_defaults(run=run_bccd)
    fastestdet.set_defaults(run=run_fastestdet)
    chains.set_defaults(run=run_chains)
    return parser


def _detector(name: str) -> Any:
    return next(one for one in DETECTORS if one.name == name)


def _write(arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """Writes a part's result, as far as it has got, beside those of the others."""
    path: Path = arguments.result
    result = read_json(path) if path.exists() else {"schema": SCHEMA}
    result |= {"version": __version__, arguments.part: {"command": _command(), **found}}
    write_json(path, result)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    figures = import_module("tools.figures").figures  # as the documentation shows it
    write_text(path.with_suffix(".md"), figures(path))


def _command() -> str:
    """The command of this call, without the paths of this machine."""
    words = list(sys.argv[1:])
    for name in ("--work", "--result", "--weights"):
        if name in words:
            words[words.index(name) + 1] = name[2:].upper()
    if "--data" in words:
        place = words.index("--data") + 1
        words[place] = words[place].partition(":")[0] + ":PATH"
    return shlex.join(["python", "benchmarks/detection.py", *words])


if __name__ == "__main__":
    main()
