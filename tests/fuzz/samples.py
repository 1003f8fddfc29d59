"""Valid files of every kind, small: a run of a network of three layers, and values made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from halp_trt.graphs.network import channel_graph
from halp_trt.graphs.rewrite import rewrite
from halp_trt.models.slim import slim
from halp_trt.planning import Step
from halp_trt.planning.step import Timed
from halp_trt.specs import Budget, PruningPlan, Saliency, Score
from halp_trt.store import (
    append_history,
    encode,
    save,
    save_tensors,
    sha256_file,
    write_bytes,
    write_json,
    write_metrics,
)
from halp_trt.tasks.dataset import DataSet
from halp_trt.tasks.pictures import ArrayPictures
from halp_trt.training.course import Course
from halp_trt.training.settings import TrainSettings
from halp_trt.workflows.checkpoint import Progress, PruneWords, save_checkpoint
from halp_trt.workflows.folder import RunFolder
from halp_trt.workflows.settings import Settings
from tests.report.bench_values import BASELINES, BENCH
from tests.report.histories import history
from tests.report.surveys import NET, surveyed
from tests.report.test_trtexec import LAYERS, OLD_QUERIES
from tests.report.values import (
    COMMANDS,
    DEVICE_VERIFICATION,
    EXAMPLES,
    GRAPH,
    LOG,
    METRICS,
    PLAN,
    RECORD,
    SALIENCY,
    TABLE,
    TARGET,
    VERIFICATION,
    measurement,
)

WIDTHS = (1, 16, 16, 3)
"""Channels of the network's input, of its two convolutions and of its output."""
FINGERPRINT = "ab" * 32
VALUES: Mapping[str, object] = {
    "graph": GRAPH,
    "plan": PLAN,
    "saliency": SALIENCY,
    "engine": RECORD,
    "verification": VERIFICATION,
    "target": TARGET,
    "measurement": measurement(12.5),
    "baseline": BASELINES,
    "bench": BENCH,
    "commands": COMMANDS,
    "device-verification": DEVICE_VERIFICATION,
    "examples": EXAMPLES,
}
OLD_VERIFICATION = {
    "target": encode(TARGET),
    "dense": {"sha256": "a", "measurement": encode(measurement(2.0)), "predicted_us": 2.0, "num_parameters": 9,
              "accuracy_fraction": 0.75},
    "pruned": {"sha256": "b", "measurement": encode(measurement(1.0)), "predicted_us": 1.0, "num_parameters": 4},
    "limit_us": 3.0,
    "num_pictures": 40,
}  # fmt: skip
INSTANCE = {
    "layers": [
        {"name": "stem", "reads": None, "latency_us": [0, 2, 3], "saliency": [0, 1, 2]},
        {"name": "a", "reads": ["stem"], "latency_us": [[0, 0, 0], [0, 1, 2], [0, 2, 5]], "saliency": [0, 3, 4]},
        {"name": "b", "reads": ["a"], "latency_us": [[0, 0, 0], [0, 1, 2], [0, 2, 6]], "saliency": [0, 3, 5]},
    ],
    "groups": [["stem"], ["a"], ["b"]],
    "choices": [3, 3, 3],
}
ENGINE_LAYERS = {
    "Layers": [
        {"Name": "0 + 1", "LayerType": "CaskConvolution", "ParameterType": "Convolution", "TacticName": "sm80_tf32f32",
         "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
         "Outputs": [{"Name": "h", "Format/Datatype": "Row major linear FP32"}], "Metadata": "[ONNX Layer: 0]"},
        "6",
    ],
    "Bindings": ["x", "y"],
}  # fmt: skip
CSV = """\
kind,batch,in_channels,height,width,out_channels,kernel,stride,residual,latency_ms
depthwise,1,8,5,5,8,3,1,0,0.0229376
regular,1,64,56,56,64,3,1,1,-1
"""
LOG_OF_TRTEXEC = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=a.plan --dumpProfile
[10/21/2025-10:00:00] [I] Selected Device: Xavier
[10/21/2025-10:00:00] [I] === Performance summary ===
[10/21/2025-10:00:00] [I] Throughput: 101.5 qps
[10/21/2025-10:00:00] [I] GPU Compute Time: min = 8.9 ms, max = 10.9 ms, mean = 9.9 ms, median = 9.8 ms
[10/21/2025-10:00:00] [I] === Profile (309 iterations ) ===
[10/21/2025-10:00:00] [I]   Layer   Time (ms)   Avg. Time (ms)   Median Time (ms)   Time %
[10/21/2025-10:00:00] [I]   0 + 1       28.84           0.0933             0.0895      0.9
&&&& PASSED TensorRT.trtexec [TensorRT v8502] # trtexec --loadEngine=a.plan --dumpProfile
"""
TOML = 'model = "demo"\nbatch = 2\nbudget = "60%"\nmax-prune = 75.0\nfrozen = ["stem"]\nrefine = false\nseed = 3\n'


def make_all(folder: Path) -> None:
    """Writes every file into a folder of its own for each kind."""
    _make_values(folder / "values")
    _make_table(folder / "table")
    _make_device(folder / "device")
    _make_run(folder / "run")
    _make_weights(folder / "weights")


def module() -> nn.Module:
    """The network of the run."""
    torch.manual_seed(0)
    first, second, third, last = WIDTHS
    return nn.Sequential(
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(second, third, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(third, last),
    )


def network() -> onnx.ModelProto:
    """The module's export, by hand: exporting takes seconds."""
    weights = [numpy_helper.from_array(value.numpy(), name) for name, value in module().state_dict().items()]
    nodes = [
        helper.make_node("Conv", ["x", "0.weight", "0.bias"], ["h0"], "0", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["h0"], ["h1"], "1"),
        helper.make_node("Conv", ["h1", "2.weight", "2.bias"], ["h2"], "2", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["h2"], ["h3"], "3"),
        helper.make_node("GlobalAveragePool", ["h3"], ["h4"], "4"),
        helper.make_node("Flatten", ["h4"], ["h5"], "5"),
        helper.make_node("Gemm", ["h5", "6.weight", "6.bias"], ["y"], "6", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTHS[0], 8, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTHS[-1]])]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _make_values(folder: Path) -> None:
    for name, value in VALUES.items():
        save(value, folder / f"{name}.json")
    write_json(folder / "old-verification.json", {"schema": "halp-trt/verification/1", "value": OLD_VERIFICATION})
    save(TABLE, folder / "table.jsonl")
    append_history(folder / "history.jsonl", history().results[:8])
    write_json(folder / "times.json", OLD_QUERIES)
    write_json(folder / "profile.json", LAYERS)
    write_json(folder / "instance.json", INSTANCE)
    write_json(folder / "layers.json", ENGINE_LAYERS)
    (folder / "run.log").write_text(LOG_OF_TRTEXEC)
    (folder / "table.csv").write_text(CSV)
    (folder / "halp.toml").write_text(TOML)


def _make_table(folder: Path) -> None:
    folder.mkdir()
    surveyed(folder / "table.jsonl")
    save(NET, folder / "graph.json")
    scores = {group.name: tuple(float(n % 7) for n in range(group.num_channels)) for group in NET.prunable_groups}
    save(Saliency(scores=scores), folder / "saliency.json")


def _make_device(folder: Path) -> None:
    folder.mkdir()
    for role in ("dense", "pruned"):
        write_json(folder / f"{role}.times.json", OLD_QUERIES)
        write_json(folder / f"{role}.profile.json", LAYERS)
        write_json(folder / f"{role}.layers.json", ENGINE_LAYERS)
        (folder / f"{role}.log").write_text(LOG_OF_TRTEXEC)


def course() -> Course:
    """The course of a training with averaged and best weights, one minibatch an epoch."""
    four = ArrayPictures(pixels=np.zeros((4, 1, 8, 8), dtype=np.uint8), labels=np.zeros(4, dtype=np.int64))
    data = DataSet(name="four", train=four, test=four, classes=("a", "b"), input_shape=(1, 8, 8), mean=(0,), std=(1,))
    how = TrainSettings(num_epochs=2, batch_size=4, ema=0.9, score_every=1, keep="best")
    return Course(
        how, data, phase="tune", score=lambda _: Score(name="top-1", value=0.5, unit="fraction", num_examples=4)
    )


def _make_run(folder: Path) -> None:
    run, model, dense = RunFolder(path=folder), network(), module()
    graph = channel_graph(model, dense.state_dict(), source_name="demo")
    kept = {g.name: tuple(range(0, g.num_channels, 2 if g.prunable else 1)) for g in graph.groups}
    plan = PruningPlan(graph=graph, kept=kept, latency_us=60.0, budget_us=70.0, saliency=3.0, bound=3.5)
    assert len(graph.prunable_groups) == 2
    write_bytes(run.dense_model, model.SerializeToString())
    write_bytes(run.pruned_model, rewrite(model, plan).SerializeToString())
    parents = {path.name: sha256_file(path) for path in (run.dense_model, run.pruned_model)}
    save(PruningPlan(graph=graph, kept=kept, latency_us=60.0, budget_us=70.0, parents=parents), run.plan)
    save(graph, run.graph)
    save(VERIFICATION, run.verification)
    save(TABLE, folder / "table.jsonl")
    write_bytes(run.log, b"".join(json.dumps(row).encode() + b"\n" for row in LOG))
    write_metrics(run.metrics, METRICS)
    settings = Settings.of(
        model="demo", input=(1, 8, 8), data="none", budget=Budget(fraction=0.7), lut=str(folder / "table.jsonl")
    )
    run.write_settings(settings)
    engines = (Timed(step=1, sum_us=60.0, dense_us=110.0, engine_us=70.0),)
    step = Step(index=1, plan=plan, dense_us=100.0, slope=1.1, engines=engines)
    words = PruneWords.of(Progress(step=step), fingerprint=FINGERPRINT, num_rows=5)
    optimizer = torch.optim.SGD(dense.parameters(), lr=0.1, momentum=0.9)
    dense(torch.zeros(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    told = course()
    told.begin(dense)
    told.after_step(dense, 1, 0.5)
    told.end_epoch(dense, 1)
    save_checkpoint(folder / "checkpoint.safetensors", words, dense, optimizer, course=told)
    slimmed = slim(module(), plan)
    save_tensors(run.weights, slimmed.state_dict())


def _make_weights(folder: Path) -> None:
    state = module().state_dict()
    save_tensors(folder / "weights.safetensors", state)
    torch.save({"state_dict": state, "epoch": 3}, folder / "weights.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
