"""Sharpness-aware updates: steps by the gradients at a worse point nearby (AdaSAP, arXiv:2306.14306; ASAM, 2102.11600).

Such training ends in flat places, where a weight more or less matters little: removing channels and corrupting inputs
cost less there. An update takes two passes, and so twice the time.

A weight ``w`` with gradient ``g`` is moved to ``w + ρ T² g / ||T g||``, with ``T = |w| + η`` for each number and the
norm over all weights. The gradients there update the weights where they were. In the adaptive rule a neuron (an output
channel of a layer) has a radius ``ρ`` of its own, the larger the less it matters: ``ρ_max`` for the neuron of the
smallest norm in its layer, ``ρ_min`` for that of the largest, linear in between. The paper scores by norm or by Taylor
and leaves open whether its extremes are of the layer or the network; its radii are not published.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

__all__ = ["adaptive", "uniform"]

RHO = 0.5
"""Radius of the uniform rule, as ASAM has it for CIFAR-10."""
RHO_MIN, RHO_MAX = 0.1, 1.0
"""Radii of a layer's most and least important neuron in the adaptive rule."""
ETA = 0.01
"""A number added to the size of a weight, so that weights of zero are moved, too."""

Radius = Callable[[torch.Tensor], torch.Tensor]


def uniform(optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
    """Takes a step of the optimiser by the gradients at the worst point within one radius; returns the first loss."""
    return _step(optimizer, gradients, lambda weight: weight.new_tensor(RHO))


def adaptive(optimizer: torch.optim.Optimizer, gradients: Callable[[], float]) -> float:
    """Takes such a step with larger radii for neurons that matter less; returns the first loss."""
    return _step(optimizer, gradients, partial(_radius, low=RHO_MIN, high=RHO_MAX))


def _radius(weight: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """The radius of every neuron of a weight, shaped to be multiplied with it; the mean one for a vector."""
    if weight.ndim < 2:
        return weight.new_tensor((low + high) / 2)
    norms = weight.detach().flatten(1).norm(dim=1)
    least, most = norms.min(), norms.max()
    share = (norms - least) / (most - least).clamp_min(torch.finfo(norms.dtype).tiny)
    radii: torch.Tensor = high - share * (high - low)
    return radii.view(-1, *[1] * (weight.ndim - 1))


def _step(optimizer: torch.optim.Optimizer, gradients: Callable[[], float], radius: Radius) -> float:
    loss = gradients()
    weights = [one for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        sizes = [weight.abs() + ETA for weight in weights]
        scaled = [size * weight.grad for size, weight in zip(sizes, weights, strict=True)]
        norm = torch.stack([one.norm().float() for one in scaled]).norm() if scaled else torch.zeros(())
        if float(norm) > 0:
            for weight, size, one in zip(weights, sizes, scaled, strict=True):
                weight += radius(weight) * size * one / norm.to(weight.dtype)
    try:
        gradients()
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.copy_(old)
    optimizer.step()
    return loss
