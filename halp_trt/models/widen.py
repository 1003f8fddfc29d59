"""The inverse of slimming: the masked network that a slimmed one came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn

from halp_trt.errors import GraphMismatchError
from halp_trt.models.masks.hard import mask
from halp_trt.models.positions import named_tensors
from halp_trt.models.slim import with_stumps
from halp_trt.specs import PruningPlan

__all__ = ["unslim"]


def unslim(module: nn.Module, plan: PruningPlan, slimmed: Mapping[str, torch.Tensor]) -> nn.Module:
    """Puts the tensors of a slimmed network into the dense one, in place, with zeros for removed channels.

    Args:
        module: the dense network.
        plan: the channels that were kept.
        slimmed: the slimmed network's ``state_dict()``, on any device.

    Returns:
        The same module; it is now the masked network, with the outputs of the slimmed one.

    Raises:
        GraphMismatchError: the tensors are not those of this network slimmed by this plan.
    """
    tensors, stumps = named_tensors(module), with_stumps(plan)
    kept: dict[int, dict[int, list[int]]] = defaultdict(dict)  # by tensor: a tied weight has several names
    for axis in plan.graph.parameters:
        if axis.parameter in tensors:
            kept[id(tensors[axis.parameter])][axis.axis] = stumps.kept_positions(axis)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name in slimmed:
                tensor.copy_(_spread(name, slimmed[name], tensor, kept.get(id(tensor), {})))
    mask(module, plan)
    return module.eval()


def _spread(name: str, narrow: torch.Tensor, dense: torch.Tensor, kept: Mapping[int, list[int]]) -> torch.Tensor:
    """A narrow tensor at the dense one's shape and on its device, zero at all positions but the kept ones.

    Raises:
        GraphMismatchError: the shapes do not fit.
    """
    narrow = narrow.to(dense.device)
    for axis, positions in kept.items():
        if narrow.ndim <= axis or narrow.shape[axis] != len(positions):
            break
        shape = list(narrow.shape)
        shape[axis] = dense.shape[axis]
        places = torch.tensor(positions, dtype=torch.long, device=narrow.device)
        narrow = narrow.new_zeros(shape).index_copy_(axis, places, narrow)
    if narrow.shape != dense.shape:
        raise GraphMismatchError(
            f"weights {name!r} of shape {tuple(narrow.shape)} do not spread to {tuple(dense.shape)} by this plan; "
            f"use the plan and weights of one run"
        )
    return narrow
