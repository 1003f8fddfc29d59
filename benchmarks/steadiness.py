"""Times an engine against itself, in turns: how far apart two medians of the same engine lie on this machine.

    python benchmarks/steadiness.py

Writes benchmarks/results/steadiness.json. Exit code 1 if two medians differ by 1 % or more in the worst trial.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.sources import load_model
from halp_trt.models.trace import trace
from halp_trt.runtimes import Runtime, get_runtime
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import PruningPlan, Target
from halp_trt.store import encode, write_json
from halp_trt.workflows.compare import Certainty, compare

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = "halp-trt/steadiness/1"
LIMIT_FRACTION = 0.01


def main() -> None:
    """Times every model against itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["demo", "resnet20", "torchvision:mobilenet_v2"])
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each trial, about")
    parser.add_argument("--out", type=Path, default=RESULTS / "steadiness.json")
    arguments = parser.parse_args()
    given = {
        name: value for name in ("runtime", "trials", "seconds")
        if (value := getattr(arguments, name)) != parser.get_default(name)
    }  # fmt: skip
    runtime = get_runtime(arguments.runtime)
    target = runtime.target("fp32", 1)
    rows = []
    for model in arguments.models:
        rows.append(time_against_itself(model, runtime, target, trials=arguments.trials, seconds=arguments.seconds))
        print(f"{model}: medians differ by {rows[-1]['worst_fraction']:.2%} at worst", flush=True)
    worst = max(row["worst_fraction"] for row in rows)
    write_json(
        arguments.out,
        {
            "schema": SCHEMA,
            "command": shlex.join(["python", "benchmarks/steadiness.py", *(f"--{n}={v}" for n, v in given.items())]),
            "version": __version__,
            "target": encode(target),
            "limit_fraction": LIMIT_FRACTION,
            "worst_fraction": worst,
            "rows": rows,
        },
    )
    if worst >= LIMIT_FRACTION:
        sys.exit(f"two medians of one engine differ by {worst:.2%}, {LIMIT_FRACTION:.0%} or more: the machine is busy")


def time_against_itself(model: str, runtime: Runtime, target: Target, *, trials: int, seconds: float) -> dict[str, Any]:
    """The medians of two sessions of one engine in every trial, and how far apart they lie at worst."""
    network = load_model(model, weights=None, input_shape=None, num_classes=None, seed=0)
    graph_model = export(network.module, network.example)
    graph = trace(network.module, network.example, source=model, model=graph_model)
    engine = runtime.build(rewrite(graph_model, PruningPlan.dense(graph)).SerializeToString(), target)
    sessions = {name: runtime.load(engine, target) for name in ("first", "second")}
    inputs, until = random_inputs(sessions["first"].input_shapes), Certainty.lasting(seconds)
    taken = [compare(sessions, inputs, until=until).measurements for _ in range(trials)]
    pairs = [(one["first"].latency_us, one["second"].latency_us) for one in taken]
    return {
        "model": model,
        "num_rounds": taken[0]["first"].num_samples,
        "medians_us": [list(pair) for pair in pairs],
        "variation": [max(row.variation for row in one.values()) for one in taken],
        "worst_fraction": max(abs(second / first - 1) for first, second in pairs),
    }


if __name__ == "__main__":
    main()
