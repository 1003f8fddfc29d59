"""A job as it runs, detached from the host: rows are measured in fresh processes and written one by one.

A layer at which a process crashes, hangs or runs out of memory is tried once more, alone in a fresh process; then its
reason is its row. The clock of the limits is monotonic: a clock that is set meanwhile changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from typing import Any, Callable

from halp_trt.device.agent.child import Child, ended_with
from halp_trt.device.agent.place import DONE, RUNNING, STOPPED, Job, Place
from halp_trt.device.conditions import power_mode
from halp_trt.device.faults import HalpError, InUseError, LinkError, MeasurementError, TargetMismatchError
from halp_trt.device.identity import boot_id

__all__ = ["Supervisor", "supervise"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def supervise(place: Place, name: str, words: dict[str, Any], told: int) -> None:
    """Runs a job to its end in this process, and says so in its state.

    Args:
        place: the agent's folder.
        name: the job's name.
        words: what others are told of the holder of the device.
        told: a descriptor; one byte is written once the device is held, none where another job holds it.
    """
    if not place.lock.take({**words, "pid": os.getpid(), "job": name}):
        return
    job = place.job(name)
    for number in _SIGNALS:
        signal.signal(number, _cancelled)
    try:
        job.say(RUNNING)
        with contextlib.suppress(OSError):  # the session is gone; its job is not
            os.write(told, b"1")
            os.close(told)
        Supervisor(place, job).run()
        job.say(DONE)
    except HalpError as error:
        job.say(STOPPED, error)
    except BaseException as error:
        job.say(STOPPED, MeasurementError(f"the agent failed ({type(error).__name__}: {error}); please report it"))
        raise
    finally:
        place.lock.free()


def _cancelled(number: int, _: object) -> None:
    raise InUseError("the job was cancelled on its device; order it again")


class Supervisor:
    """A job that runs.

    Attributes:
        job: the job.
    """

    def __init__(self, place: Place, job: Job, mode: Callable[[], str] = power_mode) -> None:
        """Runs a job of a place; ``mode`` tells the device's power mode."""
        self.job = job
        self._place, self._mode = place, mode
        self._order = job.order()
        self._boot = boot_id()
        self._seconds: list[float] = []

    def run(self) -> None:
        """Measures every layer that has no row yet.

        Raises:
            HalpError: the job cannot go on; the rows so far are safe.
        """
        self.job.rows.repair()
        known = {row.get("key") for row in self.job.rows.read()}
        left = [key for key in dict.fromkeys(self._order["items"]) if key not in known]
        started = self._mode()
        while left:
            batch = left[: max(1, int(self._order["batch"]))]
            fault = self._measure(batch, 1, started)
            if fault is not None and batch:
                again = batch[:1]
                second = self._measure(again, 2, started)
                if second is not None and again:
                    self.job.rows.append([self._row(again[0], 2, {"fault": second})])
                batch = batch[1:]
            left = batch + left[max(1, int(self._order["batch"])) :]

    def _measure(self, keys: list[str], attempt: int, mode: str) -> dict[str, str] | None:
        """Measures layers in one fresh process and takes those that are done off ``keys``.

        Returns:
            The fault of the first that is left; None if the process has measured all of them.
        """
        child = Child(["measure", str(self._place.root), self.job.name], self.job.log)
        try:
            child.link.send({"keys": keys})
            num_begun, since = 0, time.monotonic()
            while keys:
                message, _ = child.link.receive(self._limit_s(num_begun))
                if "stop" in message:
                    raise TargetMismatchError(message["stop"])
                if "fault" in message:
                    return dict(message["fault"])
                if "begun" in message:
                    since = time.monotonic() if not num_begun else since
                    num_begun += 1
                rows = message.get("rows", [])
                if rows:
                    self._check_mode(mode)
                    self.job.rows.append([self._row(key, attempt, {"row": row}) for key, row in zip(keys, rows)])
                    del keys[: len(rows)]
                    now = time.monotonic()
                    self._seconds.append((now - since) / len(rows))
                    num_begun, since = max(0, num_begun - len(rows)), now
            return None
        except LinkError as error:
            return self._ending(child, error)
        finally:
            child.end()

    def _ending(self, child: Child, error: LinkError) -> dict[str, str]:
        """The fault of a process that is gone, or silent."""
        code = child.last(0.5)
        if code is None:
            return {"kind": "hang", "reason": f"nothing came of it in time ({error})"}
        if code == -signal.SIGKILL:
            return {"kind": "memory", "reason": "the system killed its process, as it does where memory is lacking"}
        words = self.job.last_words()
        return {
            "kind": "crash",
            "reason": f"its process ended with {ended_with(code)}" + (f": {words}" if words else ""),
        }

    def _limit_s(self, num_begun: int) -> float:
        """The longest wait for the next word of a process that has begun so many layers and not told their rows."""
        limits = self._order["limits"]
        if not num_begun:
            return float(limits["start_s"])
        usual = statistics.median(self._seconds) if self._seconds else 0.0
        return float(max(limits["least_s"], limits["factor"] * usual)) * num_begun

    def _check_mode(self, started: str) -> None:
        """Refuses rows that were measured in another power mode than the first ones.

        Raises:
            TargetMismatchError: the mode has changed.
        """
        now = self._mode()
        if now != started:
            raise TargetMismatchError(
                f"the device's power mode went from {started or 'none'!r} to {now or 'none'!r} while it measured; "
                "set it back and go on, or start another table"
            )

    def _row(self, key: str, attempt: int, outcome: dict[str, Any]) -> dict[str, Any]:
        return {"key": key, "attempt": attempt, "boot": self._boot, **outcome}
