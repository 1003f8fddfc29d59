"""The world that settings ask for: the processes that train, and the device of this one."""

from __future__ import annotations

from halp_trt.training.devices import find_device
from halp_trt.training.world import World
from halp_trt.workflows.settings import FineTuningSettings

__all__ = ["world_of"]


def world_of(settings: FineTuningSettings) -> World:
    """The world of a training, whose device is there.

    Raises:
        UsageError: PyTorch knows no such device.
        RuntimeUnavailableError: it is not there, or does not compute.
    """
    return World(device=find_device(settings.train_device), compiles=settings.compile)
