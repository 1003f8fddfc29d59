"""Imported once by the process from which the zoo's processes are forked: everything that takes seconds."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from halp_trt.graphs.export import export
from halp_trt.models.sources import import_torchvision

torch.set_num_threads(1)
import_torchvision()
for name in ("timm", "onnxruntime", "halp_trt.models.trace"):
    import_module(name)
export(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval(), (torch.zeros(1, 3, 8, 8),))
