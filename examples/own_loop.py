"""A training loop of one's own: prune while training, go on with the narrow network, prove its engine.

Run it in an empty folder: ``python own_loop.py``.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import halp_trt
from halp_trt.workflows.verify import Tolerances

torch.manual_seed(0)
digits = load_digits()
pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
model = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
export = halp_trt.export(model, pictures[:1])  # once; weights that are trained later go in by their names
graph = halp_trt.trace(model, pictures[:1], model=export)
table = halp_trt.lookup(graph, "luts/digits.jsonl", runtime="onnxruntime")


def train(plan, num_steps, after_backward=lambda: None):
    model.train()
    for _ in range(num_steps):
        batch = torch.randint(1500, (32,))
        optimizer.zero_grad()
        cross_entropy(model(pictures[batch]), labels[batch]).backward()
        after_backward()
        optimizer.step()
        halp_trt.mask(model, plan, optimizer)  # what the plan removed stays zero


def score(plan):  # trains on by the plan of the moment; the gradients on the way score channels
    scorer = halp_trt.scorer(model, graph, "taylor")
    train(plan, 10, scorer.after_backward)
    return scorer.finish()


dense = halp_trt.PruningPlan.dense(graph)
train(dense, 100)
dense_engine = halp_trt.build(halp_trt.rewrite(export, dense, module=model), runtime="onnxruntime")
for step in halp_trt.prune(graph, table, budget="60%", score=score, num_steps=3, grid_step=16):
    halp_trt.mask(model, step.plan, optimizer)
    print(f"step {step.index}: {step.plan.latency_us / step.dense_us:.0%} of the dense latency by the table")
train(step.plan, 100)
engine = halp_trt.build(halp_trt.rewrite(export, step.plan, module=model), runtime="onnxruntime")
halp_trt.save(engine, "engines/digits.onnx")
again, brief = halp_trt.load("engines/digits.onnx"), Tolerances(seconds=1)
proof = halp_trt.verify(dense_engine, again, step.plan, budget="60%", module=model, table=table.table, tolerances=brief)
right = float((model.eval()(pictures[1500:]).argmax(1) == labels[1500:]).float().mean())
print(f"{proof.speedup:.2f} times as fast, {right:.1%} right")
