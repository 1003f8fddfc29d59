"""The processes that torchrun starts for one training: which of them this is, and which of them speaks."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from halp_trt.cli.streams import mute, say, unmute
from halp_trt.errors import HalpError, LostProcessError, ShareWarning, UsageError
from halp_trt.texts import one_line, sentence
from halp_trt.workflows.settings import Settings

if TYPE_CHECKING:
    from halp_trt.training.link import LastWords, Link
    from halp_trt.training.world import Launch, World

__all__ = ["launch_of", "mute_all_but_first", "taking_part", "told_once"]

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The variables by which torchrun tells a process which it is."""
_CLEAN_UP_ONLY = "2"
"""PyTorch's number for communication on GPUs that is broken off where it fails, while the process goes on."""
_EXIT_LOST = 2
"""Exit code of a process that ends by force."""


def mute_all_but_first(environment: MutableMapping[str, str]) -> None:
    """Lets the first of the processes that torchrun started speak alone: what all have to say is said once.

    A process whose communication on GPUs fails goes on until it notices, and says so, while PyTorch would abort it.
    """
    if not all(environment.get(name) for name in _NAMES):
        return
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it warns of what is meant, once in each process
    environment.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", _CLEAN_UP_ONLY)
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
def taking_part(settings: Settings, saved: str) -> Iterator[tuple[Settings, World]]:
    """The settings with the device that trains, and this process among those that train.

    All but the first are silent, unless nothing is heard of the first; what a process alone comes to see of the data,
    it says itself, unless another one has said it.

    Args:
        settings: the settings.
        saved: the end of the sentence by which a process ends that can do nothing else: what is saved.

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
        with joined(launch, device, last_words=_last_words(saved)) as link, told_once(launch, link):
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


def _last_words(saved: str) -> LastWords:
    """A function that ends this process at once, after a sentence that ends with what is saved."""

    def end(reason: str) -> NoReturn:
        if reason:
            say(sentence(f"error: {reason}; {saved}"), err=True, aloud=True)
        os._exit(_EXIT_LOST)

    return end


@contextlib.contextmanager
def told_once(launch: Launch, link: Link) -> Iterator[None]:
    """A context in which warnings of what each process sees of the data are said by whichever sees it first."""
    before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if not issubclass(category, ShareWarning):
            before(message, category, *rest, **named)
        elif link.is_news(str(message)):
            who = "" if launch.rank == 0 else f"process {launch.rank} of {launch.size}: "
            say(sentence(f"warning: {who}{message}"), err=True, aloud=True)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
