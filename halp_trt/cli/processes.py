"""The processes that torchrun starts for one training: which of them this is, and which of them speaks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING

from halp_trt.cli.streams import mute, say, unmute
from halp_trt.errors import HalpError, LostProcessError, UsageError
from halp_trt.texts import one_line
from halp_trt.workflows.settings import Settings

if TYPE_CHECKING:
    from halp_trt.training.world import Launch, World

__all__ = ["launch_of", "mute_all_but_first", "taking_part"]

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The variables by which torchrun tells a process which it is."""


def mute_all_but_first(environment: MutableMapping[str, str]) -> None:
    """Lets the first of the processes that torchrun started speak alone: what all have to say is said once."""
    if not all(environment.get(name) for name in _NAMES):
        return
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of what is meant, once in each process
    if environment["RANK"] != "0":
        mute()


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """This process among those that torchrun started; None if it was started alone.

    Raises:
        UsageError: the variables of torchrun are none of its own.
    """
    from halp_trt.training.world import Launch

    values = [environment.get(name, "") for name in _NAMES]
    if not all(values):
        return None
    if not all(value.isascii() and value.isdigit() for value in values):
        found = ", ".join(f"{name}={value}" for name, value in zip(_NAMES, values, strict=True))
        raise UsageError(f"{found} are no numbers of processes; start with torchrun, or unset them")
    rank, size, local_rank, local_size = map(int, values)
    return Launch(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


@contextlib.contextmanager
def taking_part(settings: Settings) -> Iterator[tuple[Settings, World]]:
    """The settings with the device that trains, and this process among those that train.

    All but the first are silent, unless nothing is heard of the first.

    Raises:
        UsageError, RuntimeUnavailableError: the device is unknown or not there, or the processes do not meet.
        LostProcessError: another process is gone.
    """
    from halp_trt.training.devices import AUTO, CPU, device_of_process, find_device
    from halp_trt.training.world import World

    launch, asked = launch_of(os.environ), settings.tune.train_device
    if launch is None:
        device = find_device(asked)
        if asked == AUTO and device != CPU:
            say(one_line(f"training on {device}; name another device with --train-device"), err=True)
        yield settings.changed(train_device=device), World(device=device, compiles=settings.tune.compile)
        return
    from halp_trt.training.link import joined

    device, link = device_of_process(asked, launch.local_rank, launch.local_size), None
    if launch.size > 1:
        say(one_line(f"{launch.size} processes train on {device.partition(':')[0]}"), err=True)
    try:
        with joined(launch, device) as link:
            world = World(
                rank=launch.rank,
                size=launch.size,
                num_here=launch.local_size,
                device=device,
                compiles=settings.tune.compile,
                link=link,
            )
            yield settings.changed(train_device=device), world
    except LostProcessError:
        if link is not None and link.is_speaker():
            unmute()
        raise
    except HalpError:
        raise
    except Exception:  # a fault, whose traceback is wanted
        unmute()
        raise
