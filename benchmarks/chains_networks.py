"""The networks of benchmarks/chains.py, and what is asked for of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from halp_trt.latency import Effort
from halp_trt.models.sources import import_torchvision
from halp_trt.specs import Budget
from halp_trt.workflows.settings import NO_DATA, Settings
from halp_trt.workflows.survey import Survey

SIDE = 64
"""Height and width of the pictures."""
_BRANCH_SCALE = 0.2
"""Scale at the end of each residual branch."""
_STATISTICS_BATCH = 8
"""Pictures of noise that frozen statistics are taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A network, and how far its table and its training go.

    Attributes:
        name: its name in the result.
        model: what ``--model`` takes.
        side: height and width of its pictures; None for the network's own shape.
        width_step: channels between two measured widths.
        max_probes: most measurements of the table's survey.
        runtime: its engines' runtime.
        data: its pictures.
        pruning_steps: pruning steps on the way to the budget.
        minibatches: training minibatches before each of them.
        train_batch: pictures in one of these.
        tune_rate: learning rate of fine-tuning, of which they take a tenth.
        timing_seconds: most seconds for comparing the engines of one step.
        classes: number of classes; None as the pictures tell it.
    """

    name: str
    model: str
    side: int | None = SIDE
    width_step: int = 16
    max_probes: int = 600
    runtime: str = "onnxruntime"
    data: str = "digits"
    pruning_steps: int = 2
    minibatches: int = 8
    train_batch: int = 16
    tune_rate: float = 0.002
    timing_seconds: float = 10.0
    classes: int | None = None

    @property
    def trained(self) -> str:
        """The training in words."""
        if self.data == NO_DATA:
            return "initial weights, no pictures: channels are scored by their weights"
        return (
            f"initial weights; {self.pruning_steps} times {self.minibatches} minibatches of {self.train_batch} "
            f"pictures ({self.data}) while pruning, no fine-tuning"
        )

    @property
    def survey(self) -> Survey:
        """The layout of its latency table."""
        return Survey(step=self.width_step, effort=Effort(max_probes=self.max_probes))

    def settings(self, table: Path, budget: Budget) -> Settings:
        """The settings of its run."""
        return Settings.of(
            model=self.model,
            input=() if self.side is None else (3, self.side, self.side),
            data=self.data,
            classes=self.classes,
            runtime=self.runtime,
            lut=str(table),
            width_step=self.width_step,
            budget=budget,
            pruning_steps=self.pruning_steps,
            minibatches=self.minibatches,
            train_batch=self.train_batch,
            tune_rate=self.tune_rate,
            epochs=0,
            timing_seconds=self.timing_seconds,
        )


CHAINS = (
    Chain(name="ResNet-50, frozen batch norms", model="chains_networks:frozen_resnet50", max_probes=500),
    Chain(name="ResNet-50, group norms", model="timm:resnet50_gn"),
    Chain(name="ConvNeXt-atto", model="timm:convnext_atto", width_step=8),
    Chain(name="EfficientViT-B0", model="timm:efficientvit_b0", width_step=8, max_probes=1000),
)


def frozen_resnet50(num_classes: int = 10) -> tuple[nn.Module, torch.Tensor]:
    """ResNet-50 with the frozen batch norms of torchvision's detectors; their statistics are those of a batch of noise.

    With the statistics of a fresh network, 0 and 1, its outputs would grow by each of its blocks, and with scales of 1
    at the ends of its branches its gradients.
    """
    torchvision = import_torchvision()
    fresh = torchvision.models.resnet50(weights=None, num_classes=num_classes)
    for norm in fresh.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the statistics become those of the batch alone
    for block in fresh.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            nn.init.constant_(block.bn3.weight, _BRANCH_SCALE)
    with torch.no_grad():
        fresh.train()(torch.randn(_STATISTICS_BATCH, 3, SIDE, SIDE))
    frozen = torchvision.models.resnet50(
        weights=None, num_classes=num_classes, norm_layer=torchvision.ops.misc.FrozenBatchNorm2d
    )
    frozen.load_state_dict(fresh.state_dict())
    return frozen, torch.zeros(1, 3, SIDE, SIDE)
