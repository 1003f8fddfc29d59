"""How well sums over kernels explain engines: random pruned variants of networks, predicted and measured.

    python benchmarks/prediction.py [--model NAME[@BATCH] ...] [--variants 20] [--precision fp32]

Half of the variants keep multiples of 8 channels, half any number; each group keeps 30 to 100 %. Every kernel that the
runtime executes of a variant, and every layer that planning prices, is measured alone; the engine takes turns with
them, round by round, because shared machines run faster and slower by the second. The dense network and a few other
variants calibrate: one factor for all. Results land in benchmarks/results/prediction.json, one network after the
other. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.rewrite import rewrite
from halp_trt.latency import graph_specs
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.planning.resources import footprint_bytes
from halp_trt.runtimes import get_runtime
from halp_trt.runtimes.round_bench import Turns
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import encode, write_json
from halp_trt.timing import Processor
from halp_trt.workflows.stages import example_inputs

RESULT = Path(__file__).resolve().parent / "results" / "prediction.json"
SCHEMA = "halp-trt/prediction/2"
MODELS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:densenet121",
    "torchvision:resnet50@8",
)
CALIBRATION = (1000, 1001, 1002, 1003)
"""Seeds of the variants that calibrate; the others are not among them."""


def main() -> None:
    """Measures all variants of all networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="a model source, @ and its batch size")
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the rounds of a variant go on, about")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    kept = json.loads(arguments.result.read_bytes()) if arguments.result.exists() else {}
    networks = kept.get("networks", {})
    for name in arguments.model or MODELS:
        source, _, batch = name.partition("@")
        networks[f"{name} ({arguments.runtime})"] = _network(source, int(batch or 1), arguments)
        write_json(arguments.result, {"schema": SCHEMA, "version": __version__, "networks": networks})


def _network(source: str, batch_size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    runtime: Any = get_runtime(arguments.runtime)
    target = runtime.target("fp32", batch_size)
    loaded = load_model(source)
    example = tuple(tensor.repeat_interleave(batch_size, dim=0) for tensor in loaded.example)
    model = export(loaded.module, example)
    graph = trace(loaded.module, example, source=source, model=model)
    rows = []
    for seed in (-1, *CALIBRATION, *range(arguments.variants)):
        kind, plan = variant(graph, seed)
        with runtime.prober(target) as prober:
            row = _measure(prober, runtime, rewrite(model, plan).SerializeToString(), plan, target, arguments.seconds)
        rows.append({"seed": seed, "widths": kind, **row})
        print(source, batch_size, rows[-1], flush=True)
    num_fitted = 1 + len(CALIBRATION)
    found = {"target": encode(target), **_summary(rows[:num_fitted], rows[num_fitted:]), "variants": rows}
    print(source, batch_size, {key: value for key, value in found.items() if key != "variants"}, flush=True)
    return found


def _measure(prober: Any, runtime: Any, model: bytes, plan: PruningPlan, target: Any, seconds: float) -> dict[str, Any]:
    """Kernels, layers and engine of one variant, in the same rounds."""
    units = runtime.units(model, target)
    specs = graph_specs(plan.graph, plan.counts())
    kernels = {unit.spec: unit.model for unit in units}
    layers = {spec: make_probe(spec, target.batch_size) for spec in specs}
    footprint = footprint_bytes(specs, target.batch_size)
    turns = {
        name: Turns(prober.bench, [prober.layer(probe) for probe in probes.values()], footprint)
        for name, probes in (("units", kernels), ("layers", layers))
    }
    session = runtime.load(model, target)
    engine, processor = session.bind(example_inputs(session, None)), Processor()
    samples: list[float] = []
    start = time.monotonic()
    while len(samples) < 8 or time.monotonic() - start < seconds:
        engine()
        samples.append(processor.start(engine).elapsed_us)
        for one in turns.values():
            one.round()
    engine_us = float(np.median(samples))
    by_unit = dict(zip(kernels, turns["units"].rows(), strict=True))
    by_layer = dict(zip(layers, turns["layers"].rows(), strict=True))
    units_us = math.fsum(by_unit[unit.spec].latency_us for unit in units)
    layers_us = math.fsum(by_layer[spec].latency_us for spec in specs)
    return {
        "engine_us": round(engine_us, 1),
        "engine_spread": round(float(np.subtract(*np.percentile(samples, [90, 10]))) / engine_us, 4),
        "num_rounds": len(samples),
        "num_units": len(units),
        "units_us": round(units_us, 1),
        "layers_us": round(layers_us, 1),
        "units_error": round(units_us / engine_us - 1, 4),
        "layers_error": round(layers_us / engine_us - 1, 4),
        "tare_us": {name: round(one.tare_us, 2) for name, one in turns.items()},
    }


def _summary(fitted: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors as they are, and after a calibration by variants that are not among those it is judged on."""
    found: dict[str, Any] = {}
    for name in ("units", "layers"):
        sums, engines = (np.asarray([row[key] for row in fitted], float) for key in (f"{name}_us", "engine_us"))
        slope = float(np.mean(engines / sums))
        for kind, factor in (("", 1.0), ("_calibrated", slope)):
            errors = np.abs([row[f"{name}_us"] * factor / row["engine_us"] - 1 for row in held_out])
            found[f"{name}{kind}"] = {
                "median": round(float(np.median(errors)), 4),
                "p90": round(float(np.percentile(errors, 90)), 4),
                "largest": round(float(errors.max()), 4),
            }
        found[f"{name}_slope"] = round(slope, 4)
    return found


def variant(graph: ChannelGraph, seed: int) -> tuple[str, PruningPlan]:
    """A random variant of a network: -1 is dense, even seeds keep multiples of 8, odd ones anything."""
    if seed < 0:
        return "dense", PruningPlan.dense(graph)
    random = np.random.default_rng(seed)
    kept = {}
    for group in graph.groups:
        count = group.num_channels
        if group.prunable:
            share = random.uniform(0.3, 1.0)
            count = max(1, round(share * count))
            if seed % 2 == 0:
                count = min(group.num_channels, max(8, 8 * math.floor(count / 8 + 0.5)))
        kept[group.name] = tuple(sorted(random.choice(group.num_channels, count, replace=False).tolist()))
    return "multiples of 8" if seed % 2 == 0 else "any", PruningPlan(graph=graph, kept=kept)


if __name__ == "__main__":
    main()
