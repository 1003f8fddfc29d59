"""The link between processes that train together: what they average and agree on, and the end of another one.

Gradients and statistics travel in PyTorch's process group of the device. What one process may take hours for, such as
measuring, the others wait for in a second group that has no time limit.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from halp_trt.errors import HalpError, LostProcessError, RuntimeUnavailableError
from halp_trt.training.patience import followed_up
from halp_trt.training.world import Launch

__all__ = ["LastWords", "Link", "joined"]

T = TypeVar("T")
LastWords = Callable[[str], None]
"""A function that ends this process by force, having said a sentence, or nothing if that is empty."""

_STEP_LIMIT, _WAIT_LIMIT = timedelta(minutes=30), timedelta(days=365)
"""The longest time that one step may take, and that all but the first process wait for it in between."""
_PATIENCE_SECONDS = 10.0
"""The time that a process which is told to end has for the step under way; torchrun kills it after 30 s."""
_NEWS_SECONDS = 2.0
"""The time in which a process that fails has said why."""
_BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
"""Backends of PyTorch's process groups by the type of the device."""
_LOSS = re.compile(
    r"connection (was )?(closed|reset|refused)|broken pipe|gloo|nccl|remote process|socket|monitoredbarrier", re.I
)
"""The words of PyTorch's errors for another process that is gone."""
_REASON, _SPEAKER = "reason", "speaker"
"""Keys of the store: the error that ended the first process to fail, and that the first process has said its own."""


class Link:
    """The link of one process to all others; :func:`joined` makes it."""

    def __init__(
        self, launch: Launch, store: Store, group: Any, *, is_late: bool = False, last_words: LastWords | None = None
    ) -> None:
        """Takes what :func:`joined` has made.

        Args:
            launch: this process.
            store: texts that all processes read.
            group: process group that has no time limit.
            is_late: True if the device goes on before it knows that others are gone, as GPUs do.
            last_words: ends this process where nothing else does; None leaves it to wait.
        """
        self._launch, self._store, self._group, self._is_late = launch, store, group, is_late
        self._num_held, self._is_told_to_end, self._is_aborted = 0, False, False
        self._last_words = last_words

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over all processes.

        Raises:
            LostProcessError: another process is gone.
        """
        total = tensor.detach().clone()
        with self.guarded():
            dist.all_reduce(total)
        return total / self._launch.size

    def agree(self, value: T) -> T:
        """The value of the first process, which the others wait for.

        Raises:
            LostProcessError: another process is gone.
        """
        box: list[Any] = [value if self._launch.rank == 0 else None]
        with self.guarded():
            dist.broadcast_object_list(box, src=0, group=self._group)
        found: T = box[0]
        return found

    def settle(self) -> None:
        """Waits until what was averaged has arrived, and makes sure that it is whole.

        A collective on a CPU fails where another process is gone. One on a GPU is only begun when it returns, and one
        that was broken off leaves numbers behind that mean nothing: PyTorch's barrier over gloo tells.

        Raises:
            LostProcessError: another process is gone.
        """
        if not self._is_late:
            return
        with self.guarded():
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            dist.monitored_barrier(group=self._group, timeout=_STEP_LIMIT)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """A context that ends as a whole: a request to end (SIGTERM) waits for its end.

        Raises:
            LostProcessError: another process is gone, or this one was told to end.
        """
        self._num_held += 1
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, HalpError) or not (self._is_aborted or _is_loss(error)):
                raise
            raise (self._ended() if self._is_aborted else self._lost()) from error
        finally:
            self._num_held -= 1
        if self._is_told_to_end and not self._num_held:
            raise self._ended()

    def is_news(self, text: str) -> bool:
        """True in the first process that asks for a text, and False in all others and later."""
        with contextlib.suppress(RuntimeError):  # the store ends with whoever keeps it
            return self._store.add(sha256(text.encode()).hexdigest(), 1) == 1
        return True

    def tell(self, reason: str) -> None:
        """Keeps the reason why this process ends, for the first one to say; the first reason stands."""
        rank, size = self._launch.rank, self._launch.size
        self._announce()
        with contextlib.suppress(RuntimeError):
            self._store.compare_set(_REASON, "", reason if rank == 0 else f"process {rank} of {size}: {reason}")

    def is_speaker(self) -> bool:
        """True if this process is to say why all ended: the first, or the second if nothing is heard of the first."""
        return self._launch.rank == 0 or (self._launch.rank == 1 and self._heard(_SPEAKER) is None)

    def _lost(self) -> LostProcessError:
        """The error for another process that is gone, with its reason if it had time to say one."""
        self._announce()
        gone = f"another of the {self._launch.size} processes that train together is gone, torchrun says how"
        return LostProcessError(self._heard(_REASON) or gone)

    def _ended(self) -> LostProcessError:
        """The error for a request to end, which torchrun makes where another process is gone, too."""
        self._announce()
        return LostProcessError(
            self._heard(_REASON) or "told to end by SIGTERM, as torchrun does where another process is gone"
        )

    def _announce(self) -> None:
        """Lets the others know that the first process says what there is to say."""
        if self._launch.rank == 0:
            with contextlib.suppress(RuntimeError):  # the store ends with whoever keeps it
                self._store.set(_SPEAKER, "1")

    def _heard(self, key: str) -> str | None:
        """The text of a key in the store, once there was time to say it; None if there is none."""
        until = time.monotonic() + _NEWS_SECONDS
        with contextlib.suppress(RuntimeError):
            while True:
                if self._store.check([key]):
                    return bytes(self._store.get(key)).decode()
                if time.monotonic() >= until:
                    return None
                time.sleep(0.1)
        return None

    def _abort(self) -> None:
        """Breaks off what this process and the others wait for each other in, where PyTorch can: on GPUs alone."""
        if self._is_late:
            self._is_aborted = True
            group: Any = dist.group.WORLD
            with contextlib.suppress(RuntimeError, AttributeError):  # PyTorch before 2.7 has no such method
                group.abort()

    def _give_up(self) -> None:
        """Ends this process, whatever it waits for; the last checkpoint is as it was."""
        if self._last_words is not None:
            self._last_words(str(self._ended()) if self.is_speaker() else "")

    def _on_request(self, number: int, frame: FrameType | None) -> None:
        """Takes a request to end: at once where nothing is guarded, as Ctrl-C does."""
        self._is_told_to_end = True
        if not self._num_held:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def until_end(self) -> Iterator[None]:
        """The context of all work; how it fails is told to the other processes.

        Raises:
            LostProcessError: this process was told to end.
        """
        before: Any = None
        with contextlib.suppress(ValueError):  # not the main thread
            before = signal.signal(signal.SIGTERM, self._on_request)
        try:
            with followed_up([(_PATIENCE_SECONDS, self._abort), (_PATIENCE_SECONDS, self._give_up)]):
                yield
        except LostProcessError:
            raise
        except HalpError as error:
            self.tell(str(error))
            raise
        except Exception as error:
            lines = str(error).strip().splitlines()
            self.tell(": ".join([type(error).__name__, *lines[:1]]))
            raise
        except KeyboardInterrupt as error:
            if not self._is_told_to_end:
                self.tell("stopped by Ctrl-C")
                raise
            raise self._ended() from error
        finally:
            if before is not None:
                signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def joined(launch: Launch, device: str, *, last_words: LastWords | None = None) -> Iterator[Link]:
    """The link of this process to all others that ``torchrun`` started, until the context ends.

    Args:
        launch: this process.
        device: torch's name of the device that it computes on.
        last_words: called where this process is told to end and waits inside of a library all the same; it ends it.

    Raises:
        RuntimeUnavailableError: the device cannot speak to those of other processes, or the processes do not meet.
        LostProcessError: this process was told to end.
    """
    kind = torch.device(device).type
    if kind not in _BACKENDS or not dist.is_available():
        raise RuntimeUnavailableError(
            f"processes of torchrun cannot speak to each other from {device}; train on one of {', '.join(_BACKENDS)}, "
            f"or start without torchrun"
        )
    if kind != "cpu":
        choose = getattr(torch.accelerator, "set_device_index", None) or torch.accelerator.set_device_idx  # before 2.8
        choose(torch.device(device).index or 0)
    try:
        store, _, _ = next(rendezvous("env://", rank=launch.rank, world_size=launch.size))
        dist.init_process_group(
            _BACKENDS[kind],
            store=PrefixStore("training", store),
            rank=launch.rank,
            world_size=launch.size,
            timeout=_STEP_LIMIT,
        )
        group = dist.new_group(backend="gloo", timeout=_WAIT_LIMIT)
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeUnavailableError(
            f"process {launch.rank} of {launch.size} does not meet the others ({lines[0].rstrip('.')}); start all with "
            f"one torchrun"
        ) from error
    told = PrefixStore("halp_trt", store)
    link = Link(launch, told, group, is_late=_BACKENDS[kind] != "gloo", last_words=last_words)
    with link.until_end():
        yield link
        dist.destroy_process_group()


def _is_loss(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or bool(_LOSS.search(str(error)))
