"""Accuracy of one trained network in fp32, fp16 and int8 through ONNX Runtime: one JSON with all results.

The fp16 and int8 graphs are those that TensorRT is given; int8 is also tried as ONNX Runtime's own kernels want it:

    python benchmarks/precision.py --model resnet20 --weights WEIGHTS --data cifar10:PATH

The result lands in benchmarks/results/precision.json. Exit code 1 if fp16 lies more than 0.1 points from fp32, or int8
more than 1.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from halp_trt import __version__
from halp_trt.graphs.export import export
from halp_trt.graphs.mixed import quantize_in_half
from halp_trt.graphs.precision import TypedModel, compute_types, to_half
from halp_trt.graphs.quantize import quantize
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.trace import trace
from halp_trt.runtimes import Array, get_runtime
from halp_trt.specs import PruningPlan
from halp_trt.store import sha256_file, write_json
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.evaluation import evaluate
from halp_trt.workflows.inputs import calibration_inputs
from halp_trt.workflows.network import network_of
from halp_trt.workflows.settings import Settings

RESULT = Path(__file__).resolve().parent / "results" / "precision.json"
SCHEMA = "halp-trt/precision/1"
LIMITS_POINTS = {"fp16": 0.1, "int8": 1.0}
"""How far an accuracy may lie from fp32's, by the first word of a row's name."""
BATCH = 50
NUM_CALIBRATION = 512


def main() -> None:
    """Runs every precision over the whole test split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    settings = Settings.of(
        model=arguments.model, weights=arguments.weights, data=arguments.data, batch=BATCH, classes=10
    )
    network, data = network_of(settings)
    if data is None:
        sys.exit("error: accuracy needs pictures; name them with --data")
    model = export(network.module, network.example)
    dense = rewrite(model, PruningPlan.dense(trace(network.module, network.example, model=model)), opset=17)
    examples = calibration_inputs(dense, data, NUM_CALIBRATION)
    recipes: dict[str, Callable[[], TypedModel]] = {
        "fp32": lambda: TypedModel(model=dense),
        "fp16": lambda: to_half(dense, "fp16", examples=examples[:2]),
        "int8 with fp16, as for TensorRT 10 and later": lambda: quantize_in_half(dense, examples),
        "int8, as for TensorRT before 10": lambda: quantize(dense, examples),
        "int8, as for ONNX Runtime": lambda: quantize(dense, examples, style="asymmetric"),
    }
    rows = [_row(name, make(), dense, data) for name, make in recipes.items()]
    source = f"{arguments.data.partition(':')[0]}:PATH"
    write_json(
        arguments.out,
        {
            "schema": SCHEMA,
            "command": f"python benchmarks/precision.py --model {arguments.model} --weights WEIGHTS --data {source}",
            "version": __version__,
            "runtime": f"onnxruntime {get_runtime('onnxruntime').target('fp32', 1).runtime_version}",
            "model": arguments.model,
            "weights_sha256": sha256_file(arguments.weights),
            "num_calibration_pictures": len(examples) * BATCH,
            "num_pictures": data.num_test,
            "rows": [{**row, "points_from_fp32": _points(row, rows[0])} for row in rows],
        },
    )

    lost = [row["name"] for row in rows if abs(_points(row, rows[0])) > LIMITS_POINTS.get(row["name"][:4], 0.0)]
    if lost:
        sys.exit(f"error: {lost[0]} is too far from fp32; see {arguments.out}")


def _row(name: str, typed: TypedModel, dense: onnx.ModelProto, data: DataSet) -> dict[str, Any]:
    """Accuracy of a typed graph, and how far its outputs lie from fp32's on one batch."""
    runtime = get_runtime("onnxruntime")
    target = runtime.target("fp32", BATCH)
    session, exact = (runtime.load(model.SerializeToString(), target) for model in (typed.model, dense))
    ((key, _),), (output, *_) = session.input_shapes.items(), session.output_names
    started, changed = time.perf_counter(), []

    def answer(pictures: Array) -> dict[str, Array]:
        found, reference = (engine.run({key: pictures})[output] for engine in (session, exact))
        changed.append(int((found.argmax(1) != reference.argmax(1)).sum()))
        return {output: found}

    found = evaluate(answer, data, batch_size=BATCH)
    pictures = {key: data.test_batch(range(BATCH))[0].numpy()}
    expected = exact.run(pictures)[output]
    print(f"{name}: {found.value:.2%} in {time.perf_counter() - started:.0f} s", flush=True)
    return {
        "name": name,
        "accuracy_fraction": found.value,
        "num_changed_answers": sum(changed),
        "max_difference": float(np.abs(session.run(pictures)[output] - expected).max() / np.abs(expected).max()),
        "products": dict(Counter(compute_types(typed.model).values())),
        "kept": dict(typed.kept),
        "num_bytes": typed.model.ByteSize(),
    }


def _points(row: dict[str, Any], reference: dict[str, Any]) -> float:
    return float(round(100 * (row["accuracy_fraction"] - reference["accuracy_fraction"]), 2))


if __name__ == "__main__":
    main()
