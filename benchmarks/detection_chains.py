"""Large detectors and segmenters with initial weights through the whole chain, and their plans in low precision."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from chains import place_of, printed_by, run_chain
from chains_networks import Chain

from halp_trt.graphs.reading import read_model
from halp_trt.runtimes import RUNTIMES, Array, available_runtimes, get_runtime
from halp_trt.specs import Budget
from halp_trt.store import read_json, write_json
from halp_trt.workflows.build import DeployOptions, build_engine
from halp_trt.workflows.folder import RunFolder, origin_of
from halp_trt.workflows.settings import NO_DATA

__all__ = ["DETECTORS", "run_chains", "run_detector_chain"]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "detection"
PLANS = next(name for name, entry in RUNTIMES.items() if entry.traits.builds_anywhere)
"""The TensorRT that builds plans without a GPU."""
PRECISIONS = ("fp16", "int8")
NUM_NOISE = 8
"""Inputs of noise that int8 plans are calibrated on: they show that the plan is built, not its score."""
Write = Callable[[dict[str, Any]], None]


def _chain(name: str, model: str, side: int | None, classes: int = 20, max_probes: int = 600) -> Chain:
    return Chain(
        name=name, model=model, side=side, classes=classes, data=NO_DATA, max_probes=max_probes, timing_seconds=20.0
    )


DETECTORS = (
    _chain("SSD512-ResNet50", "ssd512-resnet50", 512),
    _chain("RetinaNet-R50-FPN", "torchvision-detection:retinanet_resnet50_fpn", 320),
    _chain("FCOS-R50-FPN", "torchvision-detection:fcos_resnet50_fpn", 320),
    _chain("ssdlite320", "torchvision-detection:ssdlite320_mobilenet_v3_large", 320),
    _chain("YOLO-like", "yolo_like:network", None),
    _chain("U-Net", "unet", 256),
    _chain("DeepLab-R50", "torchvision-segmentation:deeplabv3_resnet50", 256),
)


def run_chains(arguments: argparse.Namespace, write: Write) -> None:
    """Runs every network that is not there yet, each in a process of its own."""
    starts = tuple(word.lower() for word in arguments.only)
    wanted = [one for one in DETECTORS if not starts or one.name.lower().startswith(starts)]
    if not wanted:
        sys.exit(f"no network is called {' or '.join(arguments.only)}; choose from {', '.join(_names())}")
    known = read_json(arguments.result).get("chains", {}) if arguments.result.exists() else {}
    chains = dict(known.get("networks", {}))
    options = ["--work", str(arguments.work), "--budget", arguments.budget, "--seconds", str(arguments.seconds)]
    failed = []
    for one in wanted:
        if one.name in chains:
            continue
        script = str(Path(__file__).with_name("detection.py"))
        row = printed_by([sys.executable, script, "chains", "--one", one.name, *options])
        if row is None:
            failed.append(one.name)
            continue
        chains[one.name] = row
        print(f"{one.name}: {row['share']:.1%} of dense, outputs differ by {row['difference']:.0e}", flush=True)
        write({"networks": chains})
    if failed:
        sys.exit(f"these ended with an error: {', '.join(failed)}")


def _names() -> list[str]:
    return [one.name for one in DETECTORS]


def run_detector_chain(chain: Chain, work: Path, budget: Budget, seconds: float) -> None:
    """Takes one network through the chain, builds its plans, and prints its row as JSON."""
    sys.path.insert(0, str(EXAMPLES))
    row = run_chain(chain, work, budget, seconds)
    print(json.dumps({**row, "plans": plans_of(place_of(work, chain.name))}))


def plans_of(place: Path) -> dict[str, Any]:
    """The pruned network of a chain as TensorRT plans: bytes, number formats, and what stays in fp32."""
    if PLANS not in available_runtimes():
        return {"absent": f"{PLANS} is not installed"}
    stamp = place / "plans.json"
    if stamp.exists():
        return dict(read_json(stamp))
    run, runtime, random = RunFolder(path=place / "run"), get_runtime(PLANS), np.random.default_rng(0)
    model = read_model(run.pruned_model)
    (given,) = model.graph.input
    shape = [size.dim_value for size in given.type.tensor_type.shape.dim]
    noise: list[dict[str, Array]] = [
        {given.name: random.standard_normal(shape).astype(np.float32)} for _ in range(NUM_NOISE)
    ]
    order, found = DeployOptions(engines=place / "engines", examples=lambda: noise), {}
    for precision in PRECISIONS:
        origin = origin_of(run, "pruned", order.engines)
        path = order.engines / f"pruned-{precision}.plan"
        record = build_engine(model, path, runtime, runtime.target(precision, 1), origin, order)
        found[precision] = {
            "num_bytes": record.num_bytes,
            "types": dict(record.types),
            "kept": len(record.kept),
            "build_seconds": record.build_seconds,
        }
    write_json(stamp, found)
    return found
