"""Slimming: pruned channels are removed from the module, so that fine-tuning gets faster.

User code still calls the layers of a removed block, and layers without channels fail in many ways (PyTorch has no
convolution that reads none). A removed block therefore keeps a stump: one channel of every group inside, zero and not
trained. The block then adds the same constant to its bypass as in the masked network, and the constant goes on learning
through the bias and the batch norm behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from halp_trt.errors import GraphMismatchError
from halp_trt.models.masks.hard import mask
from halp_trt.models.positions import dead_positions, holders_of, named_tensors
from halp_trt.specs import PruningPlan

__all__ = ["slim", "slim_like", "with_stumps"]

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Convolutions; the transposed ones are the last three."""


def slim(module: nn.Module, plan: PruningPlan, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
    """Removes pruned channels from parameters, buffers and layer attributes, in place.

    Parameters become new tensors. The optimiser, if given, holds the new ones afterwards, with its state (momentum,
    Adam's moments) sliced alike.

    Args:
        module: the dense network, masked or not.
        plan: the channels that stay.
        optimizer: an optimiser of the module's parameters, or None.

    Returns:
        The same module, physically narrow; parameters of removed blocks are frozen at zero.

    Raises:
        GraphMismatchError: the plan was made for another network.
    """
    mask(module, plan, optimizer)
    tensors = named_tensors(module)
    cuts: dict[str, list[tuple[int, torch.Tensor]]] = defaultdict(list)
    stumps = with_stumps(plan)
    for axis in plan.graph.parameters:
        if not plan.kept_positions(axis):
            tensors[axis.parameter].requires_grad_(False)
        dead = dead_positions(tensors, axis, stumps)
        if len(dead):
            alive = torch.tensor(stumps.kept_positions(axis), dtype=torch.long, device=dead.device)
            cuts[axis.parameter].append((axis.axis, alive))
    holders = holders_of(module)
    for name, places in cuts.items():
        _replace_everywhere(holders[id(tensors[name])], tensors[name], places, optimizer)
    for child in module.modules():
        _mend_attributes(child)
    return module


def slim_like(module: nn.Module, narrow: Mapping[str, torch.Tensor]) -> nn.Module:
    """Gives a dense module, in place, the widths and values of a narrow one's ``state_dict()``.

    Args:
        module: the dense network.
        narrow: tensors of the same network with fewer channels, on any device.

    Returns:
        The same module, physically narrow.

    Raises:
        GraphMismatchError: the names are not this network's.
    """
    tensors = named_tensors(module)
    strangers = sorted(set(module.state_dict()) ^ set(narrow))
    if strangers:
        raise GraphMismatchError(
            f"the narrow weights are of another network: {strangers[0]!r} is in one of the two alone; "
            "use the network that they were made from"
        )
    holders = holders_of(module)
    for name, tensor in tensors.items():
        if name in narrow:
            value = narrow[name].detach().clone().to(tensor.device)
            is_parameter = isinstance(tensor, nn.Parameter)
            for child, attribute in holders[id(tensor)]:
                if is_parameter:
                    child._parameters[attribute] = nn.Parameter(value, requires_grad=tensor.requires_grad)
                else:
                    child._buffers[attribute] = value
    for child in module.modules():
        _mend_attributes(child)
    return module


def with_stumps(plan: PruningPlan) -> PruningPlan:
    """The plan with one channel in every group of a removed block, as in a slimmed module."""
    return replace(plan, kept={group: kept or (0,) for group, kept in plan.kept.items()})


def _replace_everywhere(
    places: list[tuple[nn.Module, str]],
    tensor: torch.Tensor,
    cuts: list[tuple[int, torch.Tensor]],
    optimizer: torch.optim.Optimizer | None,
) -> None:
    """Puts a narrowed copy of a tensor into all its places, and into the optimiser with its state."""

    def cut(full: torch.Tensor) -> torch.Tensor:
        for axis, alive in cuts:
            full = full.index_select(axis, alive.to(full.device))
        return full.clone()

    with torch.no_grad():
        narrow = cut(tensor.detach())
    if not isinstance(tensor, nn.Parameter):
        for child, attribute in places:
            child._buffers[attribute] = narrow
        return
    parameter = nn.Parameter(narrow, requires_grad=tensor.requires_grad)
    for child, attribute in places:
        child._parameters[attribute] = parameter
    if optimizer is None:
        return
    for group in optimizer.param_groups:
        group["params"] = [parameter if p is tensor else p for p in group["params"]]
    if tensor in optimizer.state:
        state = optimizer.state.pop(tensor)
        same = {k: isinstance(v, torch.Tensor) and v.shape == tensor.shape for k, v in state.items()}
        optimizer.state[parameter] = {k: cut(v) if same[k] else v for k, v in state.items()}


def _mend_attributes(child: nn.Module) -> None:
    """Sets a layer's width attributes (``in_channels``, ``num_features`` ...) to those of its weights."""
    weight = getattr(child, "weight", None)
    if isinstance(child, _CONVS) and isinstance(weight, torch.Tensor):
        transposed = isinstance(child, _CONVS[3:])
        depthwise = child.groups > 1 and child.groups == child.in_channels
        own = weight.shape[0]
        if depthwise:
            child.groups = own if transposed else own * child.in_channels // child.out_channels
        child.in_channels = own if transposed else weight.shape[1] * child.groups
        child.out_channels = weight.shape[1] * child.groups if transposed else own
    elif isinstance(child, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
        sized = next((t for t in (weight, child.running_mean) if t is not None), None)
        child.num_features = child.num_features if sized is None else sized.shape[0]
    elif isinstance(child, nn.GroupNorm) and isinstance(weight, torch.Tensor):
        child.num_groups = child.num_groups * weight.shape[0] // child.num_channels
        child.num_channels = weight.shape[0]
    elif isinstance(child, nn.Linear):
        child.out_features, child.in_features = child.weight.shape
    elif isinstance(child, nn.PReLU):
        child.num_parameters = child.weight.shape[0]
