"""Taking time: the measuring loop and what is made of its samples."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from halp_trt.errors import MeasurementError
from halp_trt.specs import Measurement

__all__ = ["MAX_ATTEMPTS", "SHORTEST_US", "involuntary_switches", "pin_to_one_core", "summarise", "time_interleaved"]

MAX_ATTEMPTS = 4
"""How often an interrupted sample is taken."""

SHORTEST_US = 0.01
"""No measured latency is below this: a layer that takes no measurable time still has one."""


def summarise(samples_us: Sequence[float], overhead_us: float = 0.0, reference_us: float = 0.0) -> Measurement:
    """Median, 10th and 90th percentile of samples, each less ``overhead_us`` and at least ``SHORTEST_US``.

    Raises:
        MeasurementError: there are no samples, or one is negative or not finite.
    """
    samples = np.asarray(samples_us, dtype=np.float64)
    if samples.size == 0 or not np.isfinite(samples).all() or samples.min() < 0:
        raise MeasurementError(f"expected finite, non-negative samples, got {list(samples_us)[:5]}; check the clock")
    p10, median, p90 = np.maximum(np.percentile(samples, [10, 50, 90]) - overhead_us, SHORTEST_US).tolist()
    return Measurement(
        latency_us=median, p10_us=p10, p90_us=p90, num_samples=samples.size, reference_us=float(reference_us)
    )


def time_interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int,
    num_warmup: int = 0,
    rotate: bool = True,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    interruptions: Callable[[], int] | None = None,
) -> dict[str, list[float]]:
    """Times several runs in turn, so that a drift of the machine's speed meets all of them alike.

    A run during which the kernel gave the core to another process is not a sample of its own latency: it is taken
    again, up to ``MAX_ATTEMPTS`` times; the last attempt counts in any case.

    Args:
        runs: what to time, by name.
        num_rounds: timed rounds; each calls every run once.
        num_warmup: untimed rounds before them.
        rotate: whether each round starts one run later than the last, so that none always follows the same other.
        clock_ns: a monotonic clock in nanoseconds.
        interruptions: a count that rises when the thread loses its core; the system's by default.

    Returns:
        For each name its samples in microseconds, in the order taken.
    """
    interruptions = interruptions or involuntary_switches
    calls = list(runs.items())
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(-num_warmup, num_rounds):
        shift = index % len(calls) if rotate else 0
        for name, call in calls[shift:] + calls[:shift]:
            for _ in range(MAX_ATTEMPTS):
                before = interruptions()
                start = clock_ns()
                call()
                elapsed = clock_ns() - start
                if index < 0 or interruptions() == before:
                    break
            if index >= 0:
                samples[name].append(elapsed / 1e3)
    return samples


def involuntary_switches() -> int:
    """How often the kernel took the core from the calling thread so far; always 0 where the system does not tell."""
    who = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if who is None else int(resource.getrusage(who).ru_nivcsw)


@contextmanager
def pin_to_one_core() -> Iterator[None]:
    """Keeps the calling thread on the last of its cores while inside; does nothing where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
