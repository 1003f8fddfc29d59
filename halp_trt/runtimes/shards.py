"""Work that several devices share: shards that whoever is idle takes, until everything is done once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from threading import Condition

__all__ = ["Board", "Shard"]

_STALLED = 4.0
"""A shard is given to another device, too, when its holder is silent for so many times the longest wait for a row."""
_LEAST_STALL_SECONDS = 30.0
"""Silence below which nobody counts as stalled."""


@dataclass(eq=False)
class Shard:
    """Probes that a device measures one after the other.

    Attributes:
        probes: the probes that are not done, by their numbers.
        holders: the devices that measure it now.
        heard: when its last row came.
        refusals: why devices could not measure it, by the device.
    """

    probes: dict[int, bytes]
    holders: set[str] = field(default_factory=set)
    heard: float = 0.0
    refusals: dict[str, str] = field(default_factory=dict)


class Board:
    """The shards that are left, shared by the threads of all devices.

    A shard goes to one device, and to a second one only when the first has gone, or has long been silent and nothing
    else is left; what both measure then counts once.
    """

    def __init__(
        self,
        probes: Iterable[bytes],
        names: Iterable[str],
        *,
        num_probes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Puts up the work.

        Args:
            probes: all probes; read as devices ask for them, since a network's are too large to be held at once.
            names: the devices that work.
            num_probes: number of probes in a shard.
            clock: monotonic seconds.
        """
        self._working = set(names)
        self._probes: Iterator[tuple[int, bytes]] = iter(enumerate(probes))
        self._num_probes, self._clock = num_probes, clock
        self._changed = Condition()
        self._waiting: deque[Shard] = deque()
        self._held: list[Shard] = []
        self._done: set[int] = set()
        self._longest_wait = 0.0
        self._is_read, self._is_stopped = False, False

    def first(self, count: int) -> dict[int, bytes]:
        """Some probes of the first shard, spread over it; they stay in it until they are done."""
        with self._changed:
            shard = self._next()
            if shard is None:
                return {}
            self._waiting.appendleft(shard)
            numbers = list(shard.probes)
            step = max(1, len(numbers) // count)
            return {number: shard.probes[number] for number in numbers[::step][:count]}

    def take(self, name: str) -> Shard | None:
        """The next shard for a device, waiting for one where others hold all; None when nothing is left for it."""
        with self._changed:
            while not self._is_stopped:
                shard = self._next(name) or self._stalled(name)
                if shard is not None:
                    shard.holders.add(name)
                    shard.heard = self._clock()
                    if shard not in self._held:
                        self._held.append(shard)
                    return shard
                if not self._held and all(self._working <= set(one.refusals) for one in self._waiting):
                    return None
                self._changed.wait(timeout=1.0)
            return None

    def report(self, shard: Shard | None, numbers: Iterable[int]) -> list[int]:
        """Marks probes as done; returns those among them that were not before."""
        with self._changed:
            fresh = [number for number in numbers if number not in self._done]
            self._done.update(fresh)
            if shard is not None:
                now = self._clock()
                self._longest_wait = max(self._longest_wait, now - shard.heard)
                shard.heard = now
            for one in (*self._held, *self._waiting):
                for number in fresh:
                    one.probes.pop(number, None)
            self._held = [one for one in self._held if one.probes]
            self._waiting = deque(one for one in self._waiting if one.probes)
            self._changed.notify_all()
            return fresh

    def give_back(self, name: str, shard: Shard, refusal: str = "") -> None:
        """Puts what is left of a device's shard up again; another device measures it where this one refused it."""
        with self._changed:
            shard.holders.discard(name)
            if refusal:
                shard.refusals[name] = refusal
            if shard in self._held and not shard.holders:
                self._held.remove(shard)
                self._waiting.append(shard)
            self._changed.notify_all()

    def leave(self, name: str) -> None:
        """Counts on a device no more."""
        with self._changed:
            self._working.discard(name)
            self._changed.notify_all()

    @property
    def refusal(self) -> str:
        """Why a shard that is left was refused, and by which device; empty if none was."""
        with self._changed:
            found = (f"{name}: {reason}" for one in self._waiting for name, reason in one.refusals.items())
            return next(found, "")

    def stop(self) -> None:
        """Has no device get any more work."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    @property
    def is_done(self) -> bool:
        """True if everything was measured."""
        with self._changed:
            if not (self._held or self._waiting) and (shard := self._next()) is not None:
                self._waiting.append(shard)
            return not (self._held or self._waiting)

    def _next(self, name: str = "") -> Shard | None:
        """A shard that waits, and that this device has not refused; read from the probes where none does."""
        for shard in self._waiting:
            if name not in shard.refusals:
                self._waiting.remove(shard)
                return shard
        if not self._is_read:
            probes = dict(islice(self._probes, self._num_probes))
            self._is_read = len(probes) < self._num_probes
            return Shard(probes=probes) if probes else None
        return None

    def _stalled(self, name: str) -> Shard | None:
        """The shard whose holder has been silent for longest, if it is too long."""
        limit = max(_LEAST_STALL_SECONDS, _STALLED * self._longest_wait)
        found = [
            shard
            for shard in self._held
            if name not in shard.holders and name not in shard.refusals and self._clock() - shard.heard > limit
        ]
        return min(found, key=lambda shard: shard.heard, default=None)
