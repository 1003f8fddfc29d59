"""The state of an iteration: one value, enough to resume it and to predict the engine of its plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

from halp_trt.planning.calibration import Calibration, fit
from halp_trt.specs import PruningPlan

__all__ = ["Step", "Timed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """An engine that was timed while a network was pruned, in turns with the dense one.

    Attributes:
        step: index of its step.
        sum_us: latency of its plan by the table.
        dense_us: measured latency of the dense engine beside it.
        engine_us: its own measured latency.
        is_chosen: True if the step ended with its plan; False if the step was planned again.
    """

    step: int
    sum_us: float
    dense_us: float
    engine_us: float
    is_chosen: bool = True

    def correction(self, dense_us: float) -> float:
        """The measured share of the dense latency over the predicted one: ``(engine / dense) / (sum_us / dense_us)``.

        Args:
            dense_us: latency of the dense network by the table.
        """
        return (self.engine_us / self.dense_us) / (self.sum_us / dense_us)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The state of an iteration after a step; all that it needs to go on.

    Attributes:
        index: number of steps done.
        plan: plan of the last step, on the table's scale; its calibration is :attr:`calibration`.
        dense_us: latency of the dense network by the table.
        slope: measured latency of the dense engine over ``dense_us``; 1 if unmeasured.
        engines: all engines that were timed so far, in order.
    """

    index: int
    plan: PruningPlan
    dense_us: float
    slope: float = 1.0
    engines: tuple[Timed, ...] = ()

    def __post_init__(self) -> None:
        line = self.calibration
        plan = replace(
            self.plan,
            calibration=line.slope,
            overhead_us=line.overhead_us,
            calibration_r_squared=line.r_squared,
            calibration_error_fraction=line.largest_error_fraction,
            calibration_engines=line.num_engines,
        )
        object.__setattr__(self, "plan", plan)

    @property
    def timed(self) -> Timed | None:
        """The engine of the step's own plan; None if it was not timed."""
        return next((engine for engine in self.engines if engine.step == self.index and engine.is_chosen), None)

    @property
    def correction(self) -> float:
        """The plan's measured share of the dense latency over the share that the table predicts; 1 if unmeasured."""
        return self.timed.correction(self.dense_us) if self.timed else 1.0

    @property
    def calibration(self) -> Calibration:
        """The line from table sums to engines, fitted to the dense engine and all timed ones but the plan's own.

        The plan's engine is left out so that it is truly predicted. Engines count by their share of the dense latency
        measured beside them, so a drift of the machine does not matter.
        """
        chosen = [engine for engine in self.engines if engine.is_chosen and engine.step != self.index]
        engines = [*chosen, *(engine for engine in self.engines if not engine.is_chosen)]
        if not engines:
            return Calibration(slope=self.slope)
        whole_us = self.slope * self.dense_us
        return fit(
            [self.dense_us, *(engine.sum_us for engine in engines)],
            [whole_us, *(whole_us * engine.engine_us / engine.dense_us for engine in engines)],
        )
