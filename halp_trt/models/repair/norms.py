"""Statistics of batch norms, estimated anew on pictures: those of the dense network do not suit a pruned one.

Differs from EagleEye's released code (arXiv:2007.02491), which lets the old statistics fade: they are reset, and the
new ones are the mean over all batches.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from halp_trt.models.repair import Batches, Sample
from halp_trt.specs import PruningPlan

__all__ = ["estimate", "estimate_norms"]


def estimate_norms(module: nn.Module, *, dense: nn.Module, plan: PruningPlan, sample: Sample) -> None:
    """Estimates the statistics of all batch norms anew, in place; a way of repairing."""
    estimate(module, lambda: chain(sample.fit(), sample.check()))


def estimate(module: nn.Module, batches: Batches) -> None:
    """Sets the running mean and variance of every batch norm to their means over all batches, in place.

    Everything but batch norms is in evaluation mode, where the network is left. A channel that is constant keeps its
    variance: one of 0 would magnify rounding errors, and any change in training.

    Args:
        module: the network, dense, masked or slimmed.
        batches: pictures, on its device.
    """
    module.eval()
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm) and _tracks(part)]
    if not norms:
        return
    kept = [(norm.momentum, _clone(norm.running_var), _clone(norm.num_batches_tracked)) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for pictures in batches():
                module(pictures)
    finally:
        module.eval()
        for norm, (momentum, variance, count) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            with torch.no_grad():
                if count is not None and norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.copy_(count)
                if variance is not None and norm.running_var is not None:
                    norm.running_var.copy_(torch.where(norm.running_var > 0, norm.running_var, variance))


def _tracks(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    return norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None


def _clone(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().clone()
