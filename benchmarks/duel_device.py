"""The device as one cell of the duel sees it: what is measured there is counted, and ratios are bisected on it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence

import onnx
import torch
from duel_contest import RUNTIME, Contest, model_for_timing
from torch import nn

from halp_trt.errors import InfeasibleBudgetError
from halp_trt.graphs.rewrite import rewrite
from halp_trt.planning.resources import network_footprint
from halp_trt.runtimes import Session, get_runtime
from halp_trt.specs import LayerSpec, Measurement, PruningPlan
from halp_trt.workflows.compare import Certainty
from halp_trt.workflows.inputs import example_inputs
from halp_trt.workflows.measurer import Measurer
from halp_trt.workflows.stopwatch import Stopwatch, make_stopwatch

__all__ = ["Device", "bisect_share"]


class Device:
    """The device as one cell sees it: layers and engines are measured, and counted.

    Layers that another cell had measured before are counted too, and their seconds estimated: what the cell would have
    needed alone.
    """

    def __init__(self, contest: Contest) -> None:
        """Counts from zero."""
        self._contest = contest
        self._runtime = get_runtime(RUNTIME)
        self._target = self._runtime.target("fp32", 1)
        footprint = network_footprint(contest.graph, self._target.batch_size)
        self._measure = Measurer(
            contest.table, self._runtime, self._target, footprint=footprint, progress=self._count_new
        )
        self._layers: set[LayerSpec] = set()
        self._num_new, self._probing = 0, 0.0
        self.num_engines = 0
        self._time: Stopwatch | None = None

    def _count_new(self, done: int, total: int) -> None:
        self._num_new += total if done == total else 0

    def lookup(self, specs: Sequence[LayerSpec]) -> Mapping[LayerSpec, Measurement]:
        """Latencies of layers."""
        self._layers.update(specs)
        known, before = self._num_new, time.perf_counter()
        rows = self._measure(specs)
        if self._num_new > known:
            self._probing += time.perf_counter() - before
        return rows

    def stopwatch(self, model: onnx.ModelProto) -> tuple[float, float]:
        """Microseconds of the dense engine and of a model's, timed in turns."""
        if self._time is None:
            dense = self._load(rewrite(self._contest.model, PruningPlan.dense(self._contest.graph)))
            inputs = example_inputs(dense, self._contest.data)
            until = Certainty(max_seconds=self._contest.timing_seconds)
            self._time = make_stopwatch(dense, self._load, inputs, until)
        self.num_engines += 1
        return self._time(model)

    def _load(self, model: onnx.ModelProto) -> Session:
        return self._runtime.load(self._runtime.build(model.SerializeToString(), self._target), self._target)

    def share(self, module: nn.Module) -> float:
        """A narrow network's latency over the dense one's."""
        dense_us, narrow_us = self.stopwatch(model_for_timing(self._contest, module))
        return narrow_us / dense_us

    def record(self) -> dict[str, object]:
        """What was measured."""
        return {
            "layers": len(self._layers),
            "layers_new": self._num_new,
            "layer_seconds_new": round(self._probing, 2),
            "engines": self.num_engines,
        }


def bisect_share(
    make: Callable[[float], nn.Module], device: Device, budget: float, *, num_rounds: int
) -> tuple[nn.Module, float, float]:
    """The widest network on a scale from nothing (0) to dense (1) whose engine, as measured, meets a budget.

    A network that was timed before is not timed again; where ``make`` finds a budget infeasible, no network is that
    narrow.

    Returns:
        The network, its latency as a share of the dense one's, and where it stands on the scale.

    Raises:
        InfeasibleBudgetError: none met the budget.
    """
    low, high = 0.0, 1.0
    best: tuple[nn.Module, float, float] | None = None
    known: dict[tuple[torch.Size, ...], float] = {}
    for _ in range(num_rounds):
        middle = (low + high) / 2
        try:
            module = make(middle)
        except InfeasibleBudgetError:
            low = middle
            continue
        widths = tuple(tensor.shape for tensor in module.state_dict().values())
        if widths not in known:
            known[widths] = device.share(copy.deepcopy(module))
        if known[widths] <= budget:
            low, best = middle, (module, known[widths], middle)
        else:
            high = middle
    if best is None:
        raise InfeasibleBudgetError(
            f"the narrowest network took {min(known.values(), default=1.0):.1%} of the dense latency, the budget is "
            f"{budget:.0%}"
        )
    return best
