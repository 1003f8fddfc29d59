"""Kernel times from OpenVINO's own counters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import openvino as ov

from halp_trt.timing import involuntary_switches

__all__ = ["Counters"]

_MAX_SLOWDOWN = 1.25
"""A run slower than this many times the median is left out, as is one that lost its core for a while."""
_CUT_OFF_US = 0.5
"""Mean loss of a run's time that is cut to whole microseconds."""


class Counters:
    """Runs a network that was compiled to count, and reads its counters after each run.

    A counter holds the mean over all runs so far, cut to whole microseconds, of run times that were cut so themselves.
    The mean times the number of runs is a sum, known to that many microseconds; the difference of two sums is the time
    of the runs between them. So a disturbed run can be left out, but a median cannot be taken.

    Attributes:
        walls_us: wall time of each run, microseconds.
    """

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self._totals: list[Mapping[str, float]] = [{}]
        self._executed: dict[str, None] = {}
        self._disturbed: list[bool] = []
        self.walls_us: list[float] = []

    def run(self) -> None:
        """Runs the network once and reads its counters."""
        before = involuntary_switches()
        start = time.perf_counter_ns()
        self._request.infer(share_outputs=True)
        self.walls_us.append((time.perf_counter_ns() - start) / 1e3)
        self._disturbed.append(involuntary_switches() != before)
        self._totals.append(self._read())

    def kernels_us(self, *, skip: int) -> dict[str, float]:
        """Mean microseconds of every executed kernel, in order, without the first ``skip`` and the disturbed runs."""
        kept = self.kept(skip)
        kernels = {}
        for name in self._executed:
            in_all = sum(self._totals[run + 1][name] - self._totals[run].get(name, 0.0) for run in kept)
            kernels[name] = max(0.0, in_all / len(kept)) + _CUT_OFF_US
        return kernels

    def kept(self, skip: int) -> Sequence[int]:
        """Indices of the runs that count: the undisturbed ones, or all where there are none."""
        limit = _MAX_SLOWDOWN * float(np.median(self.walls_us[skip:]))
        runs = range(skip, len(self.walls_us))
        calm = [index for index in runs if self.walls_us[index] <= limit and not self._disturbed[index]]
        return calm or runs

    def _read(self) -> Mapping[str, float]:
        """Sums over all runs by kernel, corrected for the mean loss of the division.

        OpenVINO reports a kernel as not executed while its mean is below a microsecond.
        """
        num_runs = len(self.walls_us)
        lost = (num_runs - 1) / 2
        infos = self._request.profiling_info
        executed = {info.node_name: None for info in infos if info.status == ov.ProfilingInfo.Status.EXECUTED}
        self._executed = dict.fromkeys((*self._executed, *executed))
        return {info.node_name: info.real_time.total_seconds() * 1e6 * num_runs + lost for info in infos}
