"""Pruning inside PyTorch Lightning: a callback that prunes while the Trainer trains.

Run it in an empty folder: ``python own_loop_lightning.py`` (needs ``pip install lightning``).
"""

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import halp_trt


class Digits(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        convs = [nn.Conv2d(1, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()]
        self.net = nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))

    def training_step(self, batch, index):
        return cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Pruning(lightning.Callback):
    """Takes a pruning step every 20 batches, by the gradients of the training itself."""

    def __init__(self, net, graph, table, budget):
        self.net, self.graph = net, graph
        self.plan, self.scorer = halp_trt.PruningPlan.dense(graph), halp_trt.scorer(net, graph, "taylor")
        self.steps = halp_trt.prune(graph, table, budget=budget, score=self.score, num_steps=3, grid_step=16)

    def score(self, plan):
        return self.scorer.finish()

    def on_after_backward(self, trainer, module):  # with several processes, gradients are averaged already
        self.scorer.after_backward()

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step % 20 == 0 and (step := next(self.steps, None)):
            self.plan, self.scorer = step.plan, halp_trt.scorer(self.net, self.graph, "taylor")
            print(f"step {step.index}: {step.plan.latency_us / step.dense_us:.0%} of the dense latency by the table")
        halp_trt.mask(self.net, self.plan, trainer.optimizers[0])  # what the plan removed stays zero


digits = load_digits()
pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
data, model = DataLoader(TensorDataset(pictures, torch.tensor(digits.target)), batch_size=64, shuffle=True), Digits()
export = halp_trt.export(model.net, pictures[:1])
graph = halp_trt.trace(model.net, pictures[:1], model=export)
table = halp_trt.lookup(graph, "luts/digits.jsonl", runtime="onnxruntime")
pruning = Pruning(model.net, graph, table, budget="60%")
lightning.Trainer(max_epochs=4, callbacks=[pruning], logger=False, enable_checkpointing=False).fit(model, data)
engine = halp_trt.build(halp_trt.rewrite(export, pruning.plan, module=model.net), runtime="onnxruntime")
halp_trt.save(engine, "engines/digits.onnx")
