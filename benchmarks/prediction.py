"""How well sums over kernels explain engines: random pruned variants of networks, predicted and measured.

    python benchmarks/prediction.py [--model NAME[@BATCH] ...] [--runtime onnxruntime] [--precision fp32]

Half of the variants keep multiples of 8 channels, half any number; each group keeps 30 to 100 %. On ONNX Runtime every
kernel that it executes of a variant, and in fp32 every layer that planning prices, is measured in a network of probes;
the engine takes turns with them, round by round, because shared machines run faster and slower by the second. Other
runtimes measure layers only, between two timings of the engine. The dense network and a few other variants calibrate:
one factor for all. Results land in benchmarks/results/prediction.json, one network after the other; networks that are
there are not repeated. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.precision import to_half
from halp_trt.graphs.probe import make_probe
from halp_trt.graphs.quantize import quantize
from halp_trt.graphs.rewrite import rewrite
from halp_trt.latency import graph_specs
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.planning.resources import footprint_of
from halp_trt.runtimes import TellsKernels, get_runtime
from halp_trt.runtimes.cpu.round_bench import Turns
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import encode, write_json
from halp_trt.timing import MAX_ATTEMPTS, Processor
from halp_trt.workflows.inputs import example_inputs

RESULT = Path(__file__).resolve().parent / "results" / "prediction.json"
SCHEMA = "halp-trt/prediction/3"
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
    parser.add_argument("--precision", default="fp32", help="of engines and kernels; layers are priced in fp32 only")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    known = json.loads(arguments.result.read_bytes()) if arguments.result.exists() else {}
    networks = known.get("networks", {})
    for name in arguments.model or MODELS:
        source, _, batch = name.partition("@")
        key = f"{name} ({arguments.runtime} {arguments.precision})"
        if key not in networks:
            networks[key] = _network(source, int(batch or 1), arguments)
        command = "python benchmarks/prediction.py"
        result = {"schema": SCHEMA, "version": __version__, "command": command, "networks": networks}
        write_json(arguments.result, result)


def _network(source: str, batch_size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    runtime: Any = get_runtime(arguments.runtime)
    target = runtime.target(arguments.precision, batch_size)
    loaded = load_model(source)
    example = tuple(tensor.repeat_interleave(batch_size, dim=0) for tensor in loaded.example)
    model = export(loaded.module, example)
    graph = trace(loaded.module, example, source=source, model=model)
    rows = []
    for seed in (-1, *CALIBRATION, *range(arguments.variants)):
        kind, plan = variant(graph, seed)
        measure = _in_rounds if isinstance(runtime, TellsKernels) else _between
        engine = _typed(rewrite(model, plan), target.precision)
        with runtime.prober(target) as prober:
            row = measure(prober, runtime, engine, plan, target, arguments.seconds)
        rows.append({"seed": seed, "widths": kind, **row})
        print(source, batch_size, rows[-1], flush=True)
    num_fitted = 1 + len(CALIBRATION)
    found = {"target": encode(target), **_summary(rows[:num_fitted], rows[num_fitted:]), "variants": rows}
    print(source, batch_size, {key: value for key, value in found.items() if key != "variants"}, flush=True)
    return found


def _typed(model: onnx.ModelProto, precision: str) -> bytes:
    """A network in the precision of its engine; 8 bits by ranges of random pictures, which take no less time."""
    shapes = {value.name: [n.dim_value for n in value.type.tensor_type.shape.dim] for value in model.graph.input}
    feeds = [random_inputs(shapes, seed) for seed in range(2)]
    if precision == "int8":
        model = quantize(model, feeds).model
    elif precision == "fp16":
        model = to_half(model, precision, examples=feeds).model
    return bytes(model.SerializeToString())


def _between(prober: Any, runtime: Any, model: bytes, plan: PruningPlan, target: Any, seconds: float) -> dict[str, Any]:
    """Layers of one variant, between two timings of its engine."""
    session = runtime.load(model, target)
    engine, processor = session.bind(example_inputs(session, None)), Processor()
    specs = graph_specs(plan.graph, plan.counts())
    layers = list(dict.fromkeys(specs))
    np.random.default_rng(0).shuffle(layers)  # as tables are measured
    samples: list[float] = []

    def time_engine() -> None:
        start = time.monotonic()
        while time.monotonic() - start < seconds / 2:
            engine()
            samples.append(_sample(engine, processor))

    time_engine()
    probes = [make_probe(spec, target.batch_size) for spec in layers]
    rows = chain.from_iterable(prober.measure_all(probes, footprint_of(specs, target.batch_size)))
    by_layer = dict(zip(layers, rows, strict=True))
    time_engine()
    return _row(samples, layers=[by_layer[spec].latency_us for spec in specs])


def _sample(engine: Callable[[], object], processor: Processor) -> float:
    """Microseconds of one run; taken again where something else had the core."""
    for _ in range(MAX_ATTEMPTS):
        sample = processor.start(engine)
        if not sample.is_disturbed:
            break
    return sample.elapsed_us


def _row(samples: list[float], **kernels: list[float]) -> dict[str, Any]:
    """One variant: its engine, and what each way to see it adds up to."""
    engine_us = float(np.median(samples))
    row: dict[str, Any] = {
        "engine_us": round(engine_us, 1),
        "engine_spread": round(float(np.subtract(*np.percentile(samples, [90, 10]))) / engine_us, 4),
        "num_samples": len(samples),
    }
    for name, latencies_us in kernels.items():
        total_us = math.fsum(latencies_us)
        row |= {
            f"num_{name}": len(latencies_us),
            f"{name}_us": round(total_us, 1),
            f"{name}_error": round(total_us / engine_us - 1, 4),
        }
    return row


def _in_rounds(
    prober: Any, runtime: Any, model: bytes, plan: PruningPlan, target: Any, seconds: float
) -> dict[str, Any]:
    """Kernels, in fp32 layers, and engine of one variant, in the same rounds."""
    units = runtime.units(model, target)
    specs = graph_specs(plan.graph, plan.counts())
    kernels = {unit.spec: unit.model for unit in units}
    layers = {spec: make_probe(spec, target.batch_size) for spec in specs if target.precision == "fp32"}
    footprint = footprint_of(specs, target.batch_size)
    kinds = (("units", kernels), ("layers", layers))
    turns = {
        name: Turns(prober.bench, [prober.layer(probe) for probe in probes.values()], footprint)
        for name, probes in kinds
        if probes
    }
    session = runtime.load(model, target)
    engine, processor = session.bind(example_inputs(session, None)), Processor()
    samples: list[float] = []
    start = time.monotonic()
    while len(samples) < 8 or time.monotonic() - start < seconds:
        engine()
        samples.append(_sample(engine, processor))
        for one in turns.values():
            one.round()
    known = {name: dict(zip(keys, turns[name].rows(), strict=True)) for name, keys in kinds if name in turns}
    executed = {"units": [unit.spec for unit in units], "layers": specs}
    found = {name: [rows[spec].latency_us for spec in executed[name]] for name, rows in known.items()}
    return _row(samples, **found)


def _summary(fitted: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors as they are, and after a calibration by variants that are not among those it is judged on."""
    found: dict[str, Any] = {}
    for name in [name for name in ("units", "layers") if f"{name}_us" in fitted[0]]:
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
