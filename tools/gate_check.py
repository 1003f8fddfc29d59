"""The project's own throughput gate: the demo's network against a baseline, as it is and made about a tenth slower.

    python tools/gate_check.py            judges; needs torch, onnx and onnxruntime
    python tools/gate_check.py --save     makes the committed baseline anew, on the machine that it runs on

The gate must call the slower engine slower, and must not call the engine slower than itself. The committed baseline
is compared with where the processor is of its model; elsewhere the check says so and makes a baseline of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch

import halp_trt
from halp_trt.gate import CANNOT_TELL, SLOWER, BenchResult
from halp_trt.models.zoo import ZOO, ZOO_INPUT_SHAPES
from halp_trt.runtimes import get_runtime
from halp_trt.store import load
from halp_trt.workflows.bench.gate import Terms
from halp_trt.workflows.bench.stage import BenchRequest, run_bench

BASELINE = Path(__file__).parent.parent / "benchmarks" / "gate-baseline.json"
NAME = "demo"
SHARE = 0.1
"""The arithmetic of the added layer, at least, as a share of the network's."""
SECONDS = 120.0


def demo_network() -> onnx.ModelProto:
    """The demo's network with random weights, which cost the same time as trained ones."""
    torch.manual_seed(0)
    return halp_trt.export(ZOO[NAME](10, ZOO_INPUT_SHAPES[NAME]).eval(), torch.zeros(1, *ZOO_INPUT_SHAPES[NAME]))


def slowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with one further convolution, of at least ``SHARE`` of its arithmetic, that changes no value."""
    shaped = onnx.shape_inference.infer_shapes(model)
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in shaped.graph.value_info}
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv" and node.output[0] in sizes]
    work = {node.output[0]: weights[node.input[1]].size * int(np.prod(sizes[node.output[0]][2:])) for node in convs}
    fitting = [
        node
        for node in convs
        if weights[node.input[1]].shape[0] == weights[node.input[1]].shape[1]
        and weights[node.input[1]].shape[2] == 3
        and work[node.output[0]] >= SHARE * sum(work.values())
    ]
    node = min(fitting, key=lambda one: work[one.output[0]])
    channels, output = weights[node.input[1]].shape[0], node.output[0]
    same = np.zeros((channels, channels, 3, 3), np.float32)
    same[np.arange(channels), np.arange(channels), 1, 1] = 1
    model.graph.initializer.append(onnx.numpy_helper.from_array(same, "slowed.weight"))
    node.output[0] = "slowed.input"
    index = list(model.graph.node).index(node)
    added = onnx.helper.make_node("Conv", ["slowed.input", "slowed.weight"], [output], pads=[1] * 4)
    model.graph.node.insert(index + 1, added)
    onnx.checker.check_model(model)
    return model


def judge(engine: Path, baseline: Path) -> BenchResult:
    """The gate's result for an engine."""
    terms = Terms(seconds=SECONDS)
    result = run_bench(BenchRequest(engines=[f"{NAME}={engine}"], baseline=baseline), terms)
    (one,) = result.engines
    print(f"{engine.stem}: {one.against[0].said}, x{one.against[0].ratio:.3f}, {result.seconds:.0f} s", flush=True)
    return result


def save_baseline(path: Path, folder: Path) -> None:
    """A baseline of the demo's network on this machine."""
    engine = folder / "demo.onnx"
    onnx.save(demo_network(), engine)
    run_bench(BenchRequest(engines=[f"{NAME}={engine}"], save=path), Terms(seconds=SECONDS))


def main() -> int:
    """Runs the check; 0 if the gate is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="make the committed baseline anew")
    is_saved = parser.parse_args().save
    with tempfile.TemporaryDirectory() as folder:
        if is_saved:
            save_baseline(BASELINE, Path(folder))
            return 0
        return check(Path(folder))


def check(folder: Path) -> int:
    """Judges the network as it is and slowed; 0 if the answers are right."""
    here = get_runtime("onnxruntime").target("fp32", 1)
    kept = load(BASELINE).engines[NAME].newest
    there, baseline = kept.setup.target, BASELINE
    if (there.device, there.runtime_version) != (here.device, here.runtime_version):
        print(
            f"the committed baseline is of {there.device} with {there.runtime_version}, this is {here.device} with "
            f"{here.runtime_version}: a baseline is made here"
        )
        baseline = folder / "own.json"
        save_baseline(baseline, folder)
        kept = load(baseline).engines[NAME].newest
    engine = baseline.parent / kept.file
    slow = folder / "slowed.onnx"
    onnx.save(slowed(onnx.load(engine)), slow)
    same, slower = judge(engine, baseline), judge(slow, baseline)
    if CANNOT_TELL in (same.answer, slower.answer):
        print("the machine is too busy to tell within the time; nothing is proven")
    return int(same.answer == SLOWER or slower.answer not in (SLOWER, CANNOT_TELL))


if __name__ == "__main__":
    sys.exit(main())
