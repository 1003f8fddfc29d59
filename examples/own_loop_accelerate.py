"""Pruning in a loop of Hugging Face Accelerate; it was tried in one process alone.

Run it in an empty folder: ``python own_loop_accelerate.py`` (needs ``pip install accelerate``).
"""

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import halp_trt

accelerator = Accelerator()
torch.manual_seed(0)
digits = load_digits()
pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
convs = [nn.Conv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()]
net = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
export = halp_trt.export(net, pictures[:1])
graph = halp_trt.trace(net, pictures[:1], model=export)
plan = halp_trt.PruningPlan.dense(graph)
model, optimizer, data = accelerator.prepare(
    net,
    torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9),
    DataLoader(TensorDataset(pictures, torch.tensor(digits.target)), batch_size=64, shuffle=True),
)


def train(after_backward=lambda: None):
    for batch, labels in data:
        optimizer.zero_grad()
        accelerator.backward(cross_entropy(model(batch), labels))
        after_backward()  # with several processes, gradients are averaged already
        optimizer.step()
        halp_trt.mask(net, plan, optimizer)  # what the plan removed stays zero


def score(plan):
    scorer = halp_trt.scorer(net, graph, "taylor")
    train(scorer.after_backward)
    return scorer.finish()


if accelerator.is_main_process:  # it alone measures and plans; the others train beside it, and hear its plans
    table = halp_trt.lookup(graph, "luts/digits.jsonl", runtime="onnxruntime")
    steps = halp_trt.prune(graph, table, budget="60%", score=score, num_steps=3, grid_step=16)
for number in range(1, 4):
    step = next(steps) if accelerator.is_main_process else score(plan)
    (plan,) = broadcast_object_list([step.plan if accelerator.is_main_process else None])
    halp_trt.mask(net, plan, optimizer)
    accelerator.print(f"step {number} of 3: {len(plan.kept)} groups, {plan.latency_us:.0f} us by the table")
train()
if accelerator.is_main_process:
    halp_trt.save(halp_trt.build(halp_trt.rewrite(export, plan, module=net), runtime="onnxruntime"), "engines/x.onnx")
