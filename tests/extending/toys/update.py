"""A weight update of one's own: a sharpness-aware step of two passes (arXiv 2010.01412, algorithm 1, rho = 0.05)."""

import torch

from halp_trt.training.updates import UPDATES


def sharpness_aware(optimizer, gradients):
    """Steps by the gradients at the worst point nearby."""
    loss = gradients()
    weights = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    before = [weight.detach().clone() for weight in weights]
    norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
    with torch.no_grad():
        for weight in weights:
            weight += 0.05 * weight.grad / norm
    gradients()
    with torch.no_grad():
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    optimizer.step()
    return loss


UPDATES["sam"] = sharpness_aware
