"""A module's tensors by name and by place, and the positions of a plan's channels in them."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from halp_trt.errors import GraphMismatchError
from halp_trt.specs import ParameterAxis, PruningPlan

__all__ = ["dead_positions", "holders_of", "named_tensors"]


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name; a shared tensor stands under each of its names."""
    named = dict(module.named_parameters(remove_duplicate=False))
    return {**named, **dict(module.named_buffers(remove_duplicate=False))}


def holders_of(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """The holders of every tensor by its ``id``, as ``(module, attribute)``; a shared tensor has several."""
    holders: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
    for child in module.modules():
        for own in (child._parameters, child._buffers):
            for attribute, tensor in own.items():
                if tensor is not None:
                    holders[id(tensor)].append((child, attribute))
    return holders


def dead_positions(tensors: dict[str, torch.Tensor], axis: ParameterAxis, plan: PruningPlan) -> torch.Tensor:
    """Positions along a parameter's axis that a plan removes, on the parameter's device.

    Raises:
        GraphMismatchError: the parameter is missing or has another width.
    """
    length = sum(run.count * run.repeat for run in axis.runs)
    tensor = tensors.get(axis.parameter)
    if tensor is None or tensor.shape[axis.axis] != length:
        fault = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise GraphMismatchError(
            f"the plan was made for another network: {axis.parameter!r} {fault}, expected {length} channels on axis "
            f"{axis.axis}; use the dense network that the plan was made for"
        )
    alive = set(plan.kept_positions(axis))
    dead = [position for position in range(length) if position not in alive]
    return torch.tensor(dead, dtype=torch.long, device=tensor.device)
