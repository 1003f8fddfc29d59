"""Values made ahead of need by worker processes: the same ones, in the same order, as this process would make."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from halp_trt.errors import DataError, HalpError

__all__ = ["made_ahead"]

T = TypeVar("T")

_PACKAGE = str(Path(__file__).parents[1])
"""The folder of this package; warnings of other packages stay in the worker, as the command line shows ours alone."""
_DEATH = re.compile(r"DataLoader worker \(pid|Pin memory thread|Communication with the workers")
"""Beginnings of the messages by which PyTorch says that a worker is gone."""


@contextlib.contextmanager
def made_ahead(
    make: Callable[[int], T], numbers: Sequence[int], *, num_workers: int, pinned: bool = False
) -> Iterator[Iterator[T]]:
    """An iterator over ``make(number)`` in the order of the numbers; the workers end with the context.

    Warnings of this package and errors appear in this process when their value is due, as if it had made it.

    Args:
        make: a pure function of a number; its values are tensors, or nested tuples, lists and mappings of them.
        numbers: its arguments.
        num_workers: number of processes that call it; 0 calls it here, when a value is due.
        pinned: True if tensors come in page-locked memory, from which a GPU copies faster.

    Raises:
        DataError: a worker died; also raised out of the context's body.
        HalpError: as ``make``.
    """
    if num_workers == 0 or len(numbers) < 2:
        yield map(make, numbers)
        return
    made = _started(make, numbers, min(num_workers, len(numbers)), pinned=pinned)
    workers: list[Any] = list(getattr(made, "_workers", ()))
    try:
        yield _unwrapped(made)
    except RuntimeError as error:
        if not _DEATH.match(str(error)):
            raise
        raise DataError(_obituary(workers, str(error))) from error
    finally:
        getattr(made, "_shutdown_workers", lambda: None)()


def _started(make: Callable[[int], Any], numbers: Sequence[int], num_workers: int, *, pinned: bool) -> Iterator[Any]:
    """PyTorch's iterator over the values, its workers started."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # the user asked for so many
        loader: DataLoader[Any] = DataLoader(
            _Made(make),
            batch_size=None,
            sampler=numbers,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # else the workers' seed would be drawn from the generator of the training
            multiprocessing_context="fork" if "fork" in multiprocessing.get_all_start_methods() else None,
        )
        return iter(loader)


class _Made(Dataset[Any], Generic[T]):
    """The values of a function by number, each with the warnings and the error of making it."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make

    def __getitem__(self, number: int) -> tuple[T | None, list[Warning | str], HalpError | None]:
        value, failure = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                value = self._make(number)
            except HalpError as error:  # PyTorch would hand it on with the worker's traceback for a message
                failure = error
        return value, [one.message for one in caught if one.filename.startswith(_PACKAGE)], failure


def _unwrapped(made: Iterable[tuple[T, list[Warning], HalpError | None]]) -> Iterator[T]:
    """Yields the values alone; warns, in the same categories, and raises as their making did."""
    for value, notes, failure in made:
        for note in notes:
            warnings.warn(note, stacklevel=1)
        if failure is not None:
            raise failure
        yield value


def _as_it_is(value: T) -> T:
    return value


def _ignore_interrupts(worker: int) -> None:
    """Leaves Ctrl-C to the process that started the workers and ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _obituary(workers: Sequence[Any], message: str) -> str:
    """One sentence on the workers that died, by their exit codes, else by PyTorch's message."""
    for worker in workers:
        worker.join(timeout=0.1)
    dead = {worker.pid: worker.exitcode for worker in workers if worker.exitcode}
    if not dead:
        return f"a process that reads pictures ahead is gone ({message.strip()}); try again, or use --workers 0"
    pid, code = next(iter(dead.items()))
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    remedy = {
        -signal.SIGKILL: "if memory ran out, use fewer --workers or a smaller --train-batch",
        -signal.SIGBUS: "shared memory ran out: enlarge /dev/shm, or use fewer --workers or a smaller --train-batch",
    }.get(code, "--workers 0 reads in the main process and shows what is wrong")
    return f"process {pid}, which reads pictures ahead, {how}; {remedy}"
