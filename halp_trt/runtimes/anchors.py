"""Anchors are the probes that all devices of a fleet measure: they tell a device that runs at another speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from threading import Condition

from halp_trt.runtimes.protocol import Unmeasured
from halp_trt.specs import Measurement

__all__ = ["Anchors"]

QUORUM = 3
"""Devices whose anchors tell what is usual, where there are so many; of two, the one that was named first counts."""


class Anchors:
    """The anchors' latencies on every device, shared by the threads of all devices."""

    def __init__(
        self, names: Iterable[str], *, has_one_speed: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins without any.

        Args:
            names: the devices, in the order in which they were named.
            has_one_speed: True if rows are brought to one speed of the machine by their reference.
            clock: monotonic seconds.
        """
        self._names, self._has_one_speed, self._clock = list(names), has_one_speed, clock
        self._working = set(self._names)
        self._found: dict[str, dict[int, float]] = {}
        self._changed = Condition()
        self._is_stopped = False

    def has(self, name: str) -> bool:
        """True if a device has measured them."""
        with self._changed:
            return name in self._found

    def off_by(self, name: str, rows: Mapping[int, Measurement | Unmeasured], *, patience: float) -> float:
        """The share by which a device is slower than what is usual; below 0 if it is faster.

        Waits until enough devices have measured the anchors to tell, but no longer than ``patience`` seconds.
        """
        end = self._clock() + patience
        with self._changed:
            self._found[name] = {n: self._value(row) for n, row in rows.items() if isinstance(row, Measurement)}
            self._changed.notify_all()
            while not self._is_stopped and len(self._found) < min(QUORUM, len(self._working | set(self._found))):
                left = end - self._clock()
                if left <= 0:
                    break
                self._changed.wait(timeout=min(1.0, left))
            return self._off_by(self._found[name])

    def leave(self, name: str) -> None:
        """Waits for a device no more."""
        with self._changed:
            self._working.discard(name)
            self._changed.notify_all()

    def stop(self) -> None:
        """Has nobody wait any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _off_by(self, own: Mapping[int, float]) -> float:
        found = [self._found[name] for name in self._names if name in self._found]
        known = [number for number in own if all(number in one for one in found)]
        if not known:
            return 0.0
        if len(found) < QUORUM:
            usual = found[0]
        else:
            usual = {number: statistics.median(one[number] for one in found) for number in known}
        return statistics.median(own[number] / usual[number] for number in known) - 1

    def _value(self, row: Measurement) -> float:
        return row.latency_us / row.reference_us if self._has_one_speed and row.reference_us else row.latency_us
