"""How well sums over a latency table predict engines: random pruned variants of networks, predicted and measured.

    python benchmarks/prediction.py --work WORK [--model NAME[@BATCH] ...] [--variants 20]

Half of the variants keep multiples of 8 channels, half any number; each group keeps 30 to 100 %. Results land in
benchmarks/results/prediction.json. WORK keeps the latency tables; a second call measures only what they lack. Nothing
else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.planning import counts_latency_us
from halp_trt.runtimes import get_runtime
from halp_trt.specs import ChannelGraph, PruningPlan
from halp_trt.store import encode, write_json
from halp_trt.workflows.build_lut import measurer
from halp_trt.workflows.stages import example_inputs
from halp_trt.workflows.verify import layer_checks, time_engines

RESULT = Path(__file__).resolve().parent / "results" / "prediction.json"
SCHEMA = "halp-trt/prediction/1"
MODELS = (
    "torchvision:resnet18",
    "torchvision:resnet50",
    "torchvision:mobilenet_v2",
    "torchvision:densenet121",
    "torchvision:resnet50@8",
)


def main() -> None:
    """Measures all variants of all networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="a model source, @ and its batch size")
    parser.add_argument("--variants", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each engine is timed")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--work", type=Path, required=True, help="folder for the latency tables")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--layers", action="store_true", help="record every layer against the runtime's own profile")
    arguments = parser.parse_args()
    networks = {}
    for name in arguments.model or MODELS:
        source, _, batch = name.partition("@")
        networks[name] = _network(source, int(batch or 1), arguments)
    write_json(arguments.result, {"schema": SCHEMA, "version": __version__, "networks": networks})


def _network(source: str, batch_size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    runtime = get_runtime(arguments.runtime)
    target = runtime.target("fp32", batch_size)
    loaded = load_model(source, num_classes=None if ":" in source else 10)
    example = tuple(tensor.repeat_interleave(batch_size, dim=0) for tensor in loaded.example)
    model = export(loaded.module, example)
    graph = trace(loaded.module, example, source=source, model=model)
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = arguments.work / f"{source.replace(':', '-')}-{batch_size}.jsonl"
    num_probes = 0

    def count(done: int, total: int) -> None:
        nonlocal num_probes
        num_probes += done == total and total

    lookup = measurer(table, runtime, target, progress=count)
    variants: list[dict[str, Any]] = []
    for index in range(-1, arguments.variants):
        kind, plan = _variant(graph, index)
        rewritten = rewrite(model, plan)
        started, known = time.perf_counter(), num_probes
        predicted_us = counts_latency_us(graph, lookup, plan.counts())
        probed = time.perf_counter() - started
        session = runtime.load(runtime.build(rewritten.SerializeToString(), target), target)
        inputs = example_inputs(session, None)
        found = time_engines({"engine": session}, inputs, seconds=arguments.seconds)["engine"]
        row: dict[str, Any] = {
            "widths": kind,
            "predicted_us": round(predicted_us, 1),
            "measured": encode(found),
            "error_fraction": round(predicted_us / found.latency_us - 1, 4),
            "num_new_probes": num_probes - known,
            "probing_seconds": round(probed, 1),
        }
        if arguments.layers:
            specs = {layer.name: layer.spec_at(plan.counts()) for layer in graph.layers}
            rows = lookup(list(specs.values()))
            by_layer = {name: rows[spec].latency_us for name, spec in specs.items()}
            checks, unmatched_us = layer_checks(plan, rewritten, by_layer, session.profile(inputs, 10))
            row["layers"] = [
                [c.name, str(c.spec), round(c.predicted_us, 1), c.measured_us]
                for c in sorted(checks, key=lambda c: -abs(c.predicted_us - c.measured_us))
            ]
            row["unmatched_us"] = unmatched_us
            row["fused_us"] = {n: us for n, us in by_layer.items() if n not in {c.name for c in checks}}
        variants.append(row)
        print(source, batch_size, {k: v for k, v in row.items() if k not in ("measured", "layers")}, flush=True)
    errors = np.abs([row["error_fraction"] for row in variants[1:]])
    summary = {
        "median_error_fraction": float(np.median(errors)),
        "p90_error_fraction": float(np.percentile(errors, 90)),
    }
    print(source, batch_size, summary, flush=True)
    return {"target": encode(target), **summary, "dense": variants[0], "variants": variants[1:]}


def _variant(graph: ChannelGraph, index: int) -> tuple[str, PruningPlan]:
    """Variant ``index`` of a network: -1 is dense, even ones keep multiples of 8, odd ones anything."""
    if index < 0:
        return "dense", PruningPlan.dense(graph)
    random = np.random.default_rng(index)
    kept = {}
    for group in graph.groups:
        count = group.num_channels
        if group.prunable:
            share = random.uniform(0.3, 1.0)
            count = max(1, round(share * count))
            if index % 2 == 0:
                count = min(group.num_channels, max(8, 8 * math.floor(count / 8 + 0.5)))
        kept[group.name] = tuple(sorted(random.choice(group.num_channels, count, replace=False).tolist()))
    return "multiples of 8" if index % 2 == 0 else "any", PruningPlan(graph=graph, kept=kept)


if __name__ == "__main__":
    main()
