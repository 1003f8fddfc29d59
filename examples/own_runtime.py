"""A runtime of one's own, ONNX Runtime called plainly. Run it in an empty folder: ``python own_runtime.py``."""

from contextlib import nullcontext
from types import SimpleNamespace

import onnxruntime
import torch
from torch import nn

import halp_trt
from halp_trt.runtimes import RUNTIMES, Entry
from halp_trt.runtimes.noise import random_inputs
from halp_trt.specs import Target, TimingProtocol
from halp_trt.timing import summarise, time_interleaved
from halp_trt.workflows.verify import Tolerances


class Plain:
    name, suffix = "plain", ".onnx"

    def target(self, precision, batch_size):
        told = {"device": "cpu", "runtime_version": onnxruntime.__version__, "precision": precision}
        return Target(**told, runtime=self.name, batch_size=batch_size, protocol=TimingProtocol(method="50 runs"))

    def build(self, model, target):
        return model

    def load(self, engine, target):
        session = onnxruntime.InferenceSession(engine)
        names = tuple(value.name for value in session.get_outputs())
        return SimpleNamespace(
            input_shapes={value.name: tuple(value.shape) for value in session.get_inputs()},
            output_names=names,
            run=lambda inputs: dict(zip(names, session.run(None, inputs), strict=True)),
            bind=lambda inputs: lambda: session.run(None, inputs),
            profile=lambda inputs, num_runs: {},  # it cannot tell what each layer takes inside an engine
        )

    def prober(self, target):
        return nullcontext(self)

    def measure(self, probe):
        session = self.load(probe, None)
        run = session.bind(random_inputs(session.input_shapes))
        return summarise(time_interleaved({"layer": run}, num_rounds=50)["layer"])


RUNTIMES["plain"] = Entry(make=Plain)

model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 8, 3))
export = halp_trt.export(model, torch.zeros(1, 3, 24, 24))
graph = halp_trt.trace(model, torch.zeros(1, 3, 24, 24), model=export)
table = halp_trt.lookup(graph, "luts/plain.jsonl", runtime="plain")
score = halp_trt.scorer(model, graph, "magnitude").finish
*_, step = halp_trt.prune(graph, table, budget="60%", score=lambda plan: score(), grid_step=16)
narrow = [halp_trt.rewrite(export, plan) for plan in (halp_trt.PruningPlan.dense(graph), step.plan)]
engines = [halp_trt.build(onnx_model, runtime="plain") for onnx_model in narrow]
proof = halp_trt.verify(*engines, step.plan, table=table.table, tolerances=Tolerances(seconds=1))
print(f"{proof.speedup:.2f} times as fast on {proof.target.runtime}, off by {proof.max_difference:.0e}")
