"""Moving a network to another device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from halp_trt.errors import ModelError
from halp_trt.interrupts import raise_if_stopped
from halp_trt.models.positions import holders_of

__all__ = ["check_runs", "device_of", "move"]


def device_of(module: nn.Module) -> torch.device:
    """The device of a network's parameters and buffers, the CPU if it has none."""
    tensor = next((tensor for own in (module.parameters(), module.buffers()) for tensor in own), None)
    return torch.device("cpu") if tensor is None else tensor.device


def move(module: nn.Module, device: str | torch.device) -> nn.Module:
    """Moves a network's parameters and buffers to a device, in place; shared ones stay shared.

    Parameters may become new tensors: an optimiser has to be made afterwards.

    Returns:
        The same module.
    """
    shared = [places for places in holders_of(module).values() if len(places) > 1]
    module.to(device)
    for (first, name), *others in shared:  # some devices (lazy, XLA) give each place a tensor of its own
        is_parameter = name in first._parameters
        for child, attribute in others:
            if is_parameter:
                child._parameters[attribute] = first._parameters[name]
            else:
                child._buffers[attribute] = first._buffers[name]
    return module


def check_runs(module: nn.Module, example: Sequence[torch.Tensor]) -> None:
    """Refuses a network that does not run on the device where it lies, and leaves it in evaluation mode.

    On the CPU, where its export ran, nothing is tried.

    Args:
        module: the network.
        example: example inputs, batch included, on any device.

    Raises:
        ModelError: it fails; tensors that are neither parameters nor buffers stay behind when a network is moved, and
            a device may lack an operator.
    """
    device = device_of(module)
    module.eval()
    if device.type == "cpu":
        return
    try:
        with torch.no_grad():
            module(*(tensor.to(device) for tensor in example))
    except Exception as error:  # user code and devices fail in their own ways
        raise_if_stopped(error)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the network does not run on {device} ({lines[0].rstrip('.')}); register its tensors as parameters or "
            f"buffers, or train it on another device with --train-device"
        ) from error
