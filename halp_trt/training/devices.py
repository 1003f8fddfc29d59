"""The devices of this machine that a network can be trained on."""

from __future__ import annotations

import warnings

from halp_trt.errors import RuntimeUnavailableError, UsageError
from halp_trt.texts import counted

__all__ = ["AUTO", "CPU", "device_of_process", "find_device"]

AUTO = "auto"
"""The name of whichever device trains fastest: an accelerator that is there, else the CPU."""
CPU = "cpu"
"""The device that every machine has."""


def find_device(name: str) -> str:
    """PyTorch's name of a training device that is there, with its index (``cuda:0``).

    Args:
        name: ``auto``, or any device string of PyTorch (``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu`` ...). ``auto``
            takes an accelerator that is there and computes, else the CPU.

    Raises:
        UsageError: PyTorch knows no such device.
        RuntimeUnavailableError: it is not there, or does not compute.
    """
    import torch

    if name != AUTO:
        return _computing(name)
    if not torch.accelerator.is_available():
        return CPU
    try:
        return _computing(str(torch.accelerator.current_accelerator()))
    except RuntimeUnavailableError as error:
        warnings.warn(f"{error}; until then the CPU trains", stacklevel=2)
        return CPU


def device_of_process(name: str, local_rank: int, local_size: int) -> str:
    """PyTorch's name of the training device of one process among several on this machine: an accelerator for each.

    Args:
        name: as in :func:`find_device`, without an index.
        local_rank: number of the process on this machine, counted from 0.
        local_size: number of processes on this machine.

    Raises:
        UsageError: PyTorch knows no such device, an index is given, or there are more processes than devices.
        RuntimeUnavailableError: it is not there, or does not compute.
    """
    import torch

    found = torch.device(find_device(name))
    if local_size == 1 or found.type == CPU or not torch.accelerator.is_available():
        return str(found)
    if ":" in name:
        raise UsageError(
            f"{local_size} processes cannot all train on {name}; name the kind alone ({found.type}), and each takes one"
        )
    count = torch.accelerator.device_count()
    if local_size > count:
        raise UsageError(
            f"{local_size} processes are to train here and there {'is' if count == 1 else 'are'} "
            f"{counted(count, f'{found.type} device')}; start as many processes as devices, or train on the {CPU}"
        )
    return find_device(f"{found.type}:{local_rank}")


def _computing(name: str) -> str:
    """The full name of a device that adds two numbers correctly; raises as :func:`find_device`."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"PyTorch knows no training device {name!r}; {_choice()}") from error
    try:
        two = torch.ones(1, device=device) + 1
        is_right = float(two.cpu()) == 2
    except Exception as error:  # each backend has errors of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeUnavailableError(
            f"training device {name!r} is not there or does not compute ({lines[0].rstrip('.')}); {_choice()}"
        ) from error
    if not is_right:
        raise RuntimeUnavailableError(f"training device {name!r} does not compute; {_choice()}")
    return str(two.device)


def _choice() -> str:
    import torch

    here = [CPU]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        here += [f"{kind}:{index}" for index in range(torch.accelerator.device_count())]
    return f"this machine has {', '.join(here)}: name one of these, or {AUTO}"
